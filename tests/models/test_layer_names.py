"""Files in the naming of RepDistiller, mdistiller and torchvision give the logits of the network that wrote them."""

import argparse

import numpy as np
import pytest
import torch
from torchvision import models as torchvision_models

from ltkd.models import build_model, list_models, load_weights

CONVOLUTION = ["weight"]
BIASED = ["weight", "bias"]
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def tensors(*layers):
    """Names of tensors in the order in which a state dict has them."""
    return [f"{layer}.{name}" for layer, names in layers for name in names]


def residual(depths, convolutions, *, shortcut="downsample", first_shortcut=False, classifier="fc"):
    layers = [("conv1", CONVOLUTION), ("bn1", NORM)]
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                layers += [(f"{name}.conv{number}", CONVOLUTION), (f"{name}.bn{number}", NORM)]
            if shortcut and block == 0 and (stage > 1 or first_shortcut):
                layers += [(f"{name}.{shortcut}.0", CONVOLUTION), (f"{name}.{shortcut}.1", NORM)]
    return tensors(*layers, (classifier, BIASED))


def wide(depth):
    layers = [("conv1", CONVOLUTION)]
    for stage in (1, 2, 3):
        for block in range((depth - 4) // 6):
            name = f"block{stage}.layer.{block}"
            layers += [(f"{name}.bn1", NORM), (f"{name}.conv1", CONVOLUTION)]
            layers += [(f"{name}.bn2", NORM), (f"{name}.conv2", CONVOLUTION)]
            layers += [(f"{name}.convShortcut", CONVOLUTION)] if block == 0 else []
    return layers


def wide_without_first(depth):
    """Width 1: the first stage has as many channels as the stem, and so no shortcut of its own."""
    return [layer for layer in wide(depth) if layer[0] != "block1.layer.0.convShortcut"]


def vgg(depths):
    layers = []
    for block, depth in enumerate(depths):
        for position in range(depth):
            layers += [(f"block{block}.{3 * position}", BIASED), (f"block{block}.{3 * position + 1}", NORM)]
    return tensors(*layers, ("classifier", BIASED))


def mobilenetv2():
    layers = [("conv1.0", CONVOLUTION), ("conv1.1", NORM)]
    for group, depth in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for block in range(depth):
            name = f"blocks.{group}.{block}.conv"
            for number in (0, 3, 6):
                layers += [(f"{name}.{number}", CONVOLUTION), (f"{name}.{number + 1}", NORM)]
    return tensors(*layers, ("conv2.0", CONVOLUTION), ("conv2.1", NORM), ("classifier.0", BIASED))


def mobilenetv1():
    layers = [("model.0.0", CONVOLUTION), ("model.0.1", NORM)]
    for block in range(1, 14):
        for number in (0, 3):
            layers += [(f"model.{block}.{number}", CONVOLUTION), (f"model.{block}.{number + 1}", NORM)]
    return tensors(*layers, ("fc", BIASED))


def shufflenetv2():
    layers = [("conv1", CONVOLUTION), ("bn1", NORM)]
    for stage, depth in enumerate((4, 8, 4), 1):
        for block in range(depth):
            for number in range(1, 6 if block == 0 else 4):
                layers += [(f"layer{stage}.{block}.conv{number}", CONVOLUTION)]
                layers += [(f"layer{stage}.{block}.bn{number}", NORM)]
    return tensors(*layers, ("conv2", CONVOLUTION), ("bn2", NORM), ("linear", BIASED))


WIDE_END = [("bn1", NORM), ("fc", BIASED)]
FOREIGN_NAMES = {
    **{f"resnet{depth}": residual([(depth - 2) // 6] * 3, 2) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": residual([(depth - 2) // 6] * 3, 2, first_shortcut=True) for depth in (8, 32)},
    "resnet32_a": residual([5, 5, 5], 2, shortcut=None, classifier="linear"),
    "resnet18": residual([2, 2, 2, 2], 2, shortcut="shortcut", classifier="linear"),
    "resnet50": residual([3, 4, 6, 3], 3, shortcut="shortcut", first_shortcut=True, classifier="linear"),
    "imagenet_resnet18": residual([2, 2, 2, 2], 2),
    "imagenet_resnet34": residual([3, 4, 6, 3], 2),
    "imagenet_resnet50": residual([3, 4, 6, 3], 3, first_shortcut=True),
    **{f"wrn_{depth}_2": tensors(*wide(depth), *WIDE_END) for depth in (16, 40)},
    **{f"wrn_{depth}_1": tensors(*wide_without_first(depth), *WIDE_END) for depth in (16, 40)},
    "vgg8": vgg((1, 1, 1, 1, 1)),
    "vgg11": vgg((1, 1, 2, 2, 2)),
    "vgg13": vgg((2, 2, 2, 2, 2)),
    "mobilenetv1": mobilenetv1(),
    "mobilenetv2": mobilenetv2(),
    "shufflenetv1": residual([4, 8, 4], 3, shortcut=None, classifier="linear"),
    "shufflenetv2": shufflenetv2(),
}


def foreign_file(name, model):
    """The model's tensors under the foreign names; both projects build their layers in the order that ours have."""
    own = model.state_dict()
    foreign = dict(zip(FOREIGN_NAMES[name], own.values(), strict=True))
    assert not foreign.keys() - {"classifier.weight", "classifier.bias"} & own.keys()
    return foreign


def randomised(model):
    """Statistics and scales that a mix-up of two layers of one shape would not leave unnoticed."""
    generator = torch.Generator().manual_seed(1)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and ("norm" in key or "shortcut.1" in key):
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2)
    return model.eval()


def test_every_network_of_our_own_is_among_them():
    assert set(FOREIGN_NAMES) == {name for name in list_models() if "/" not in name}


@pytest.mark.parametrize("name", sorted(FOREIGN_NAMES))
@pytest.mark.parametrize("project", ["repdistiller", "mdistiller"])
def test_equal_logits(tmp_path, name, project):
    torch.manual_seed(0)
    model = randomised(build_model(name, 7))
    foreign = foreign_file(name, model)
    suffix = (".pth", ".pth.tar", ".ckpt")[sorted(FOREIGN_NAMES).index(name) % 3]
    path = tmp_path / f"ckpt_epoch_240{suffix}"
    if project == "repdistiller":
        torch.save({"opt": argparse.Namespace(lr=0.05), "model": foreign, "best_acc": torch.tensor(70.0)}, path)
    else:
        path = tmp_path / "latest"
        held = {f"module.student.{key}": tensor for key, tensor in foreign.items()}
        torch.save({"epoch": 240, "model": held, "best_acc": np.float64(70.1)}, path)
    other = build_model(name, 7).eval()
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(other(images).logits, model(images).logits)
    load_weights(other, path)
    torch.testing.assert_close(other(images).logits, model(images).logits)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_torchvision_files_fit_our_imagenet_networks(tmp_path, depth):
    theirs = torchvision_models.get_model(f"resnet{depth}", num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_model(f"imagenet_resnet{depth}", 5).eval()
    load_weights(ours, tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours(images).logits, theirs(images), atol=1e-4, rtol=1e-4)


def test_a_distiller_with_a_teacher_of_another_network_gives_the_one_that_fits(tmp_path):
    teacher, student = build_model("resnet20", 7), build_model("resnet8", 7)
    held = {}
    for role, name, model in (("teacher", "resnet20", teacher), ("student", "resnet8", student)):
        held |= {f"module.{role}.{key}": tensor for key, tensor in foreign_file(name, model).items()}
    torch.save({"model": held}, tmp_path / "latest")
    for name, model in (("resnet20", teacher), ("resnet8", student)):
        other = build_model(name, 7)
        load_weights(other, tmp_path / "latest")
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))

"""What the long-tail task losses do over the epochs and to the network."""

import logging
import math

import pytest
import torch
from torch import nn

from ltkd import losses
from ltkd.errors import UserError
from ltkd.models import build_model
from ltkd.task_losses import build_task_loss

COUNTS = torch.tensor([100, 50, 25, 12, 6, 3])
CHOICES = [
    {"name": "class_balanced", "deferred": 0.8},
    {"name": "class_balanced", "deferred": 0.8, "divide_by": "weights"},
    {"name": "focal", "deferred": 0.8},
    {"name": "class_balanced_focal", "deferred": 0.8},
    {"name": "ldam"},
]


@pytest.fixture
def logits():
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_class_weights_come_after_four_fifths_of_the_epochs(choice, logits):
    loss = build_task_loss(choice, COUNTS)
    unweighted = build_task_loss({**choice, "beta": 0.0}, COUNTS)(logits, LABELS)
    weighted = build_task_loss({**choice, "deferred": 0.0}, COUNTS)(logits, LABELS)
    assert not torch.equal(unweighted, weighted)
    assert torch.equal(loss(logits, LABELS), unweighted)  # before anyone says which epoch it is
    for epoch, expected in ((1, unweighted), (160, unweighted), (161, weighted), (200, weighted), (2, unweighted)):
        loss.start_epoch(epoch, 200)
        assert torch.equal(loss(logits, LABELS), expected), epoch
    assert not loss.state_dict()  # the epoch determines the weights


@pytest.mark.parametrize("choice", [{"name": "ldam", "deferred": None}, "focal"], ids=str)
def test_without_deferral_the_epoch_changes_nothing(choice, logits):
    loss = build_task_loss(choice, COUNTS)
    before = loss(logits, LABELS)
    loss.start_epoch(10, 10)
    assert torch.equal(loss(logits, LABELS), before)


def test_a_beta_without_effect_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        build_task_loss({"name": "focal", "deferred": 0.5, "beta": 0.9}, COUNTS)
        assert not caplog.records
        build_task_loss({"name": "focal", "beta": 0.9}, COUNTS)
    assert "beta has no effect without deferred" in caplog.text


def test_focal_needs_every_class_once_it_weighs_them():
    counts = torch.tensor([4, 0, 2])
    assert build_task_loss("focal", counts)(torch.zeros(1, 3), torch.tensor([0])).isfinite()
    with pytest.raises(UserError, match="none of class 1"):
        build_task_loss({"name": "focal", "deferred": 0.8}, counts)


NETWORKS = {
    "own": ("resnet8", {"in_channels": 1}, torch.zeros(2, 1, 8, 8)),
    "timm": ("timm/mobilenetv3_small_050", {}, torch.zeros(2, 3, 32, 32)),
    "timm transformer": (
        "timm/vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "depth": 2},
        torch.zeros(2, 3, 32, 32),
    ),
    "torchvision": ("torchvision/resnet18", {}, torch.zeros(2, 3, 32, 32)),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_ldam_puts_a_cosine_classifier_in(network):
    name, arguments, images = network
    model = build_model(name, num_classes=6, **arguments).eval()
    before = {key: value.shape for key, value in model.state_dict().items() if "weight" in key}
    build_task_loss({"name": "ldam", "scale": 20.0}, COUNTS).adapt_network(model)
    assert {key: value.shape for key, value in model.state_dict().items() if "weight" in key} == before
    assert model.classifier.weight.norm(dim=1).tolist() == pytest.approx([1] * 6)

    torch.manual_seed(0)
    for features in (False, True):
        output = model(torch.randn_like(images), features=features)
        x, w = output.embedding, model.classifier.weight
        cosines = (x @ w.T) / (x.norm(dim=1, keepdim=True) * w.norm(dim=1))
        torch.testing.assert_close(output.logits, 20 * cosines, rtol=1e-4, atol=1e-4)
        assert output.logits.abs().max() <= 20
    before = model(images + 1).logits
    with torch.no_grad():
        w.mul_(7.0)  # its length means nothing
    torch.testing.assert_close(model(images + 1).logits, before)
    assert sum(1 for key in model.state_dict() if "classifier" in key and key.endswith("bias")) == 0


def test_cosines_are_not_rounded_under_autocast():
    model = build_model("resnet8", num_classes=6, in_channels=1)
    build_task_loss("ldam", COUNTS).adapt_network(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 1, 8, 8)).logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "found"),
    [("torchvision/squeezenet1_0", "its last layer is Conv2d"), ("timm/deit_tiny_distilled_patch16_224", "no single")],
)
@pytest.mark.parametrize("loss", ["ldam", "class_balanced_focal"])
def test_a_network_without_one_linear_classifier_is_refused(name, found, loss):
    model = build_model(name, num_classes=6)
    with pytest.raises(UserError, match=rf"task_loss: {loss} needs a network .* one linear layer; .*{found}"):
        build_task_loss(loss, COUNTS).adapt_network(model)


def test_sigmoids_start_with_the_probability_of_one_class_and_its_bias_does_not_decay():
    model = build_model("resnet8", num_classes=6, in_channels=1)
    loss = build_task_loss("class_balanced_focal", COUNTS)
    loss.adapt_network(model)
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(5)] * 6)
    assert model.classifier.bias.sigmoid().sum().item() == pytest.approx(1)

    others, bias = loss.network_parameter_groups(model)
    assert bias["params"] == [model.classifier.bias]
    assert bias["weight_decay"] == 0
    assert len(others["params"]) + 1 == len(list(model.parameters()))
    optimizer = torch.optim.SGD([others, bias], lr=0.1, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decayed = not torch.equal(parameter, before[name])
        assert decayed == (name != "classifier.bias" and before[name].abs().sum() > 0), name


def test_other_losses_take_the_network_as_it_is():
    model = build_model("resnet8", num_classes=6, in_channels=1)
    classifier = model.classifier
    for choice in ("ce", "balanced_softmax", "class_balanced", "focal"):
        loss = build_task_loss(choice, COUNTS)
        loss.adapt_network(model)
        assert model.classifier is classifier
        assert isinstance(classifier, nn.Linear)
        (group,) = loss.network_parameter_groups(model)
        assert group["params"] == list(model.parameters())


def test_ldam_on_the_cosine_head_is_the_loss_of_its_cosines():
    model = build_model("resnet8", num_classes=6, in_channels=1)
    loss = build_task_loss("ldam", COUNTS)
    loss.adapt_network(model)
    logits = model(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))).logits
    expected = losses.ldam(logits / 30, LABELS, COUNTS, max_margin=0.5, scale=30.0)
    torch.testing.assert_close(loss(logits, LABELS), expected)

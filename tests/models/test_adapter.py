import copy
import os
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from torch import nn

from ltkd.errors import UserError
from ltkd.models import build_model, count_multiply_adds, list_models, model_factory


def test_libraries_are_imported_only_when_used():
    code = "import sys, ltkd.models as m; m.build_model('resnet8', 3); print({'timm', 'torchvision'} & {*sys.modules})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "size", "widths", "sizes"),
    [
        ("timm/mobilenetv3_small_050", 64, [16, 8, 16, 24, 288], [32, 16, 8, 4, 2]),
        ("timm/resnet10t", 64, [64, 64, 128, 256, 512], [32, 16, 8, 4, 2]),
        ("torchvision/shufflenet_v2_x0_5", 64, [24, 24, 48, 96, 1024], [32, 16, 8, 4, 2]),
        ("torchvision/mobilenet_v3_small", 64, [16, 16, 24, 48, 576], [32, 16, 8, 4, 2]),
        ("torchvision/swin_t", 64, [96, 192, 384, 768], [16, 8, 4, 2]),  # its modules return [B, H, W, C]
        ("torchvision/googlenet", 64, [64, 192, 480, 832, 1024], [32, 16, 8, 4, 2]),  # has auxiliary classifiers
    ],
)
def test_adapted_output(name, size, widths, sizes):
    model = build_model(name, num_classes=7)
    assert isinstance(model.train()(torch.randn(2, 3, size, size)).logits, torch.Tensor)
    model.eval()
    images = torch.randn(2, 3, size, size)
    plain, full = model(images), model(images, features=True)
    assert torch.equal(plain.logits, full.logits)
    assert torch.equal(plain.logits, model.network(images))
    assert [tuple(stage.shape) for stage in full.stages] == [(2, w, s, s) for w, s in zip(widths, sizes, strict=True)]
    assert plain.stages is None
    assert full.preact_stages is None
    assert isinstance(model.classifier, nn.Linear)
    for output in (plain, full):
        assert torch.equal(model.classifier(output.embedding), output.logits)
    assert all(key.startswith("network.") for key in model.state_dict())  # the classifier is not stored twice


def test_stage_maps_carry_gradients_and_normalisation_sees_each_batch_once():
    for name in ("timm/resnet10t", "torchvision/shufflenet_v2_x0_5"):
        model = build_model(name, 3).train()
        output = model(torch.randn(2, 3, 64, 64), features=True)
        output.stages[1].sum().backward()
        assert next(model.parameters()).grad is not None
        counts = [int(b) for n, b in model.named_buffers() if n.endswith("num_batches_tracked")]
        assert set(counts) == {1}


def test_torchvisions_tokens_offer_no_false_maps():
    transformer = build_model("torchvision/vit_b_32", 3, image_size=32).eval()
    assert transformer(torch.randn(1, 3, 32, 32), features=True).stages is None


TRANSFORMERS = ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize(
    ("arguments", "channels", "size", "side"),
    [({}, 3, 224, 14), ({"img_size": 32, "patch_size": 4}, 3, 32, 8), ({"img_size": 8, "patch_size": 2}, 1, 8, 4)],
)
def test_plain_transformers_give_maps_of_four_depths(name, arguments, channels, size, side):
    torch.manual_seed(0)
    model = build_model(f"timm/{name}", 7, in_channels=channels, **arguments).eval()
    images = torch.randn(2, channels, size, size)
    blocks = []  # what the blocks themselves return, caught independently
    for block in model.network.blocks:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output))
    output = model(images, features=True)
    first_patch = blocks[0].shape[1] - side**2  # after the class and distillation tokens
    assert [tuple(stage.shape) for stage in output.stages] == [(2, 192, side, side)] * 4
    for stage, depth in zip(output.stages, (3, 6, 9, 12), strict=True):
        assert torch.equal(stage.flatten(2).transpose(1, 2), blocks[depth - 1][:, first_patch:])
    assert torch.equal(output.logits, model(images).logits)
    assert torch.equal(output.logits, model.network(images))


def test_the_embedding_of_a_transformer_is_its_class_token():
    model = build_model("timm/vit_tiny_patch16_224", 3, img_size=32, patch_size=8, depth=2).eval()
    images = torch.randn(2, 3, 32, 32)
    output = model(images, features=True)
    assert torch.equal(output.embedding, model.network.forward_features(images)[:, 0])
    assert torch.equal(model.classifier(output.embedding), output.logits)
    assert len(output.stages) == 2  # no more than there are blocks


def test_the_embedding_of_several_heads_is_what_they_see_side_by_side():
    model = build_model("timm/deit_tiny_distilled_patch16_224", 3, img_size=32, depth=1)
    network, images = model.network, torch.randn(2, 3, 32, 32)
    for mode in (True, False):
        model.train(mode)
        for output in (model(images), model(images, features=True)):
            class_token, distillation_token = output.embedding.chunk(2, dim=1)
            logits = (network.head(class_token) + network.head_dist(distillation_token)) / 2
            torch.testing.assert_close(output.logits, logits)
    assert model.classifier is None
    cross = build_model("timm/crossvit_tiny_240", 3).eval()
    output = cross(torch.randn(1, 3, 240, 240), features=True)
    parts = output.embedding.split([head.in_features for head in cross.network.head], dim=1)
    logits = [head(part) for head, part in zip(cross.network.head, parts, strict=True)]
    torch.testing.assert_close(output.logits, torch.stack(logits).mean(dim=0))


def test_logits_that_are_more_than_linear_have_no_embedding():
    model = build_model("timm/volo_d1_224", 3, img_size=32).eval()
    assert model(torch.randn(1, 3, 32, 32)).embedding is None


def test_a_copy_catches_its_own_features():
    model = build_model("torchvision/shufflenet_v2_x0_5", 3).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.classifier.weight.zero_()
        images = torch.randn(1, 3, 64, 64)
        output = twin(images, features=True)
    assert len(output.stages) == 5
    assert output.embedding is not None
    assert twin.classifier is not model.classifier
    assert torch.equal(twin.classifier(output.embedding), output.logits)


def test_multiply_adds_of_an_adapted_network():
    model = build_model("torchvision/resnet18", 1000)
    assert round(count_multiply_adds(model, (3, 224, 224)) / 1e9, 3) == 1.814  # torchvision publishes 1.814 GFLOPS


def test_channels_and_arguments():
    model = build_model("timm/resnet10t", 3, in_channels=1, stem_type="").eval()
    assert model(torch.randn(1, 1, 32, 32)).logits.shape == (1, 3)
    with pytest.raises(UserError, match=r"torchvision/resnet18: takes 3 channels, but the data has 1"):
        build_model("torchvision/resnet18", 3, in_channels=1)
    with pytest.raises(UserError, match="aux_logits"):
        build_model("torchvision/googlenet", 3, aux_logits=True)
    for name in ("timm/resnet10t", "torchvision/resnet18"):
        with pytest.raises(UserError, match=f"model {name}: .*widht"):
            build_model(name, 3, widht=2)


def test_names():
    assert "timm/resnet10t" in list_models("timm/resnet1*")
    assert list_models("torchvision/resnet1?") == ["torchvision/resnet18"]
    assert "torchvision/fcn_resnet50" not in list_models("torchvision/*")
    with pytest.raises(UserError, match=r"'timm/resnt18'.*timm/resnet18"):
        model_factory("timm/resnt18")
    with pytest.raises(UserError, match=r"'torchvision/resnet19'.*torchvision/resnet18"):
        build_model("torchvision/resnet19", 3)
    with pytest.raises(UserError, match="bogus"):
        build_model("timm/resnet18.bogus", 3)


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/resnet18.a1_in1k", "torchvision/resnet18"])
def test_classes_of_pretrained_weights_are_checked_before_anything_is_built(name, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("built"))
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(UserError, match=f"model {name}: .*1000 classes.*the data has 10;.*new_classifier=true"):
        build_model(name, 10, pretrained=True)


def test_new_classifier_keeps_the_features(monkeypatch):
    published = torchvision.models.shufflenet_v2_x0_5(num_classes=1000).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    model = build_model("torchvision/shufflenet_v2_x0_5", 10, pretrained=True, new_classifier=True)
    assert torch.equal(model.network.conv5[0].weight, published["conv5.0.weight"])
    assert model.classifier.weight.shape == (10, 1024)
    assert model.eval()(torch.randn(1, 3, 64, 64)).embedding.shape == (1, 1024)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_failing_download_names_the_model(name, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=f"model {name}: its pretrained weights could not be had.*no route to host"):
        build_model(name, 1000, pretrained=True)


def test_a_network_without_published_weights_says_so():
    with pytest.raises(UserError, match="timm/botnet50ts_256: timm has no pretrained weights"):
        build_model("timm/botnet50ts_256", 1000, pretrained=True)

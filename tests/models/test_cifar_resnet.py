import inspect

import pytest
import torch
from torch import nn

from ltkd.errors import UserError
from ltkd.models import build_model, count_multiply_adds, count_parameters, list_models, model_factory

# parameters and millions of multiply-adds at 100 classes and 32x32, as published for the field's networks
SIZES = {
    "resnet8": (83_892, 12.5),
    "resnet14": (181_108, 26.7),
    "resnet20": (278_324, 40.8),
    "resnet32": (472_756, 69.1),
    "resnet32_a": (470_004, 68.9),
    "resnet44": (667_188, 97.4),
    "resnet56": (861_620, 125.8),
    "resnet110": (1_736_564, 253.2),
    "resnet8x4": (1_233_540, 177.1),
    "resnet32x4": (7_433_860, 1083.0),
    "resnet18": (11_220_132, 555.5),
    "resnet50": (23_705_252, 1298.0),
}


@pytest.mark.parametrize(("name", "parameters", "multiply_adds"), [(name, *sizes) for name, sizes in SIZES.items()])
def test_sizes_are_the_published_ones(name, parameters, multiply_adds):
    model = build_model(name, num_classes=100)
    assert count_parameters(model) == parameters
    assert round(count_multiply_adds(model, (3, 32, 32)) / 1e6, 1) == multiply_adds


@pytest.mark.parametrize(
    ("name", "channels", "size", "widths", "sizes"),
    [
        ("resnet8", 1, 8, [16, 32, 64], [8, 4, 2]),
        ("resnet8", 3, 9, [16, 32, 64], [9, 5, 3]),
        ("resnet32_a", 1, 9, [16, 32, 64], [9, 5, 3]),
        ("resnet8x4", 3, 32, [64, 128, 256], [32, 16, 8]),
        ("resnet20", 3, 64, [16, 32, 64], [64, 32, 16]),
        ("resnet8", 3, 224, [16, 32, 64], [224, 112, 56]),
        ("resnet18", 1, 8, [64, 128, 256, 512], [8, 4, 2, 1]),
        ("resnet50", 3, 32, [256, 512, 1024, 2048], [32, 16, 8, 4]),
    ],
)
def test_stages_preactivations_and_embedding(name, channels, size, widths, sizes):
    model = build_model(name, 7, in_channels=channels).eval()
    output = model(torch.randn(2, channels, size, size), features=True)
    assert [tuple(stage.shape) for stage in output.stages] == [(2, w, s, s) for w, s in zip(widths, sizes, strict=True)]
    for stage, preactivation in zip(output.stages, output.preact_stages, strict=True):
        assert (preactivation < 0).any()
        assert torch.equal(preactivation.relu(), stage)
    torch.testing.assert_close(output.embedding, output.stages[-1].mean(dim=(2, 3)))
    assert isinstance(model.classifier, nn.Linear)
    assert torch.equal(model.classifier(output.embedding), output.logits)
    assert output.logits.shape == (2, 7)


def test_features_change_nothing_and_normalisation_sees_each_batch_once():
    model = build_model("resnet8", 5, in_channels=1).train()
    images = torch.randn(4, 1, 8, 8)
    plain = model(images)
    full = model(images, features=True)
    assert torch.equal(plain.logits, full.logits)
    assert plain.stages is None
    assert plain.preact_stages is None
    counts = {name: int(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert len(counts) == 9
    assert set(counts.values()) == {2}


def test_convolutions_start_kaiming_normal_by_fan_out():
    torch.manual_seed(0)
    weight = build_model("resnet8x4", 5).stages[2][0].conv1.weight  # 128 -> 256, stride 2: fan-in and fan-out differ
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_counting_leaves_the_model_as_it_was():
    model = build_model("resnet8", 5).train()
    model.stages[0].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_multiply_adds(model, (3, 16, 16))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_names_match_wildcards():
    assert set(list_models()) >= set(SIZES)
    assert list_models("resnet*x4") == ["resnet32x4", "resnet8x4"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("build", [model_factory, lambda name: build_model(name, 10)])
def test_unknown_name_is_guessed(build):
    with pytest.raises(UserError, match=r"model: unknown name 'resnet32x'.*did you mean 'resnet32.*timm/<name>"):
        build("resnet32x")


@pytest.mark.parametrize(
    ("arguments", "message"), [({"widht": 2}, "takes no argument widht"), ({"pretrained": True}, "pretrained weights")]
)
def test_own_networks_refuse_what_they_do_not_have(arguments, message):
    with pytest.raises(UserError, match=f"model resnet8: .*{message}"):
        build_model("resnet8", 10, **arguments)


def test_factory_signatures_can_be_bound():
    for name in SIZES:
        parameters = inspect.signature(model_factory(name)).parameters
        assert list(parameters) == ["num_classes", "in_channels"]
        assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}

"""What holds for every network of our own, whatever its family."""

import inspect

import pytest
import torch
from torch import nn

from ltkd.errors import UserError
from ltkd.models import build_model, count_multiply_adds, count_parameters, list_models, model_factory
from ltkd.models.shufflenet import shuffle

from .comparison import after_training

# parameters and millions of multiply-adds at 100 classes and 32x32, as published for the field's networks
SMALL_IMAGES = {
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
    "wrn_16_1": (180_916, 26.7),
    "wrn_16_2": (703_284, 101.1),
    "wrn_40_1": (569_780, 83.3),
    "wrn_40_2": (2_255_156, 327.6),
    "vgg8": (3_965_028, 96.2),
    "vgg11": (9_277_284, 209.4),
    "vgg13": (9_462_180, 284.9),
    "mobilenetv2": (812_836, 6.5),
    "shufflenetv1": (949_258, 38.7),
    "shufflenetv2": (1_355_528, 44.5),
}
# at 1000 classes and 224x224; torchvision's parameters and GFLOPS, and the MobileNet paper's 569 million
IMAGENET = {
    "imagenet_resnet18": (11_689_512, 1814),
    "imagenet_resnet34": (21_797_672, 3664),
    "imagenet_resnet50": (25_557_032, 4089),
    "mobilenetv1": (4_231_976, 569),
}

# one per family and block, for what does not depend on depth
FAMILIES = ["resnet8", "resnet32_a", "wrn_16_2", "vgg8", "vgg13", "mobilenetv2", "shufflenetv1", "shufflenetv2",
            "imagenet_resnet18", "mobilenetv1"]  # fmt: skip


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_tables_are_complete():
    assert {*SMALL_IMAGES, *IMAGENET} == {*list_models()}


@pytest.mark.parametrize(("name", "sizes"), SMALL_IMAGES.items())
def test_sizes_are_the_published_ones(name, sizes):
    model = build_model(name, num_classes=100)
    assert (count_parameters(model), round(count_multiply_adds(model, (3, 32, 32)) / 1e6, 1)) == sizes


@pytest.mark.parametrize(("name", "sizes"), IMAGENET.items())
def test_sizes_of_imagenet_networks_are_the_published_ones(name, sizes):
    model = build_model(name, num_classes=1000)
    assert (count_parameters(model), round(count_multiply_adds(model, (3, 224, 224)) / 1e6)) == sizes


STAGES = {
    "resnet8x4": ([64, 128, 256], [1, 2, 4]),
    "resnet18": ([64, 128, 256, 512], [1, 2, 4, 8]),
    "resnet50": ([256, 512, 1024, 2048], [1, 2, 4, 8]),
    "wrn_16_2": ([32, 64, 128], [1, 2, 4]),
    "mobilenetv2": ([72, 96, 288, 1280], [2, 4, 8, 16]),
    "shufflenetv1": ([240, 480, 960], [2, 4, 8]),
    "shufflenetv2": ([116, 232, 1024], [2, 4, 8]),
    "imagenet_resnet18": ([64, 128, 256, 512], [4, 8, 16, 32]),
    "imagenet_resnet50": ([256, 512, 1024, 2048], [4, 8, 16, 32]),
    "mobilenetv1": ([128, 256, 512, 1024], [4, 8, 16, 32]),
}


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 9), (3, 32), (2, 64)])
@pytest.mark.parametrize("name", STAGES)
def test_stages_halve_the_image(name, channels, side):
    widths, strides = STAGES[name]
    output = build_model(name, 7, in_channels=channels).eval()(torch.randn(2, channels, side, side), features=True)
    shapes = [(2, width, -(-side // stride), -(-side // stride)) for width, stride in zip(widths, strides, strict=True)]
    assert [tuple(stage.shape) for stage in output.stages] == shapes
    assert output.logits.shape == (2, 7)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("imagenet")])
def test_imagenet_sized_images_work(name):
    output = build_model(name, 3).eval()(torch.randn(1, 3, 224, 224), features=True)
    heights = [stage.shape[2] for stage in output.stages]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] > 1
    assert output.logits.shape == (1, 3)


@pytest.mark.parametrize("name", [*FAMILIES, "resnet50"])
def test_stages_preactivations_and_embedding(name):
    torch.manual_seed(0)
    model = after_training(build_model(name, 7))
    output = model(torch.randn(2, 3, 32, 32), features=True)
    assert len(output.stages) == len(output.preact_stages)
    for stage, preactivation in zip(output.stages, output.preact_stages, strict=True):
        assert (preactivation < 0).any()
        assert torch.equal(preactivation.relu(), stage)
    torch.testing.assert_close(output.embedding, output.stages[-1].mean(dim=(2, 3)))
    assert isinstance(model.classifier, nn.Linear)
    assert torch.equal(model.classifier(output.embedding), output.logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_preact_norms_make_the_preactivations(name):
    """Its output is the map, or, where a shortcut is added, shifts as the normalisation does."""
    torch.manual_seed(0)
    model = after_training(build_model(name, 5))
    with_shortcut = "resnet" in name or name == "shufflenetv1"
    images, seen = torch.randn(2, 3, 32, 32), {}
    before = model(images, features=True).preact_stages
    assert len(model.preact_norms) == len(before)
    if name != "shufflenetv2":  # half of the channels of its first two maps were normalised long before
        assert None not in model.preact_norms
    for index, norm in enumerate(model.preact_norms):
        if norm is None:
            continue
        assert norm.num_features == before[index].shape[1]
        handle = norm.register_forward_hook(lambda module, inputs, output: seen.update(map=output))
        model(images)
        handle.remove()
        if not with_shortcut:
            assert torch.equal(seen["map"], before[index])
            continue
        shift = norm.bias.detach().clone()
        with torch.no_grad():
            norm.bias.add_(1)
            after = model(images, features=True).preact_stages
            norm.bias.copy_(shift)
        torch.testing.assert_close(after[index], before[index] + 1)
        assert all(torch.equal(after[other], before[other]) for other in range(index))


@pytest.mark.parametrize("name", FAMILIES)
def test_features_change_nothing_and_normalisation_sees_each_batch_once(name):
    torch.manual_seed(0)
    model = build_model(name, 5).train()
    images = torch.randn(4, 3, 32, 32)
    plain = model(images)
    full = model(images, features=True)
    assert torch.equal(plain.logits, full.logits)
    assert torch.equal(plain.embedding, full.embedding)
    assert plain.stages is None
    assert plain.preact_stages is None
    assert {int(norm.num_batches_tracked) for norm in norms(model)} == {2}


@pytest.mark.parametrize("name", FAMILIES)
def test_small_grey_images_train_every_parameter(name):
    torch.manual_seed(0)
    model = build_model(name, 5, in_channels=1).train()
    output = model(torch.randn(8, 1, 8, 8), features=True)
    (output.logits.square().sum() + sum(stage.sum() for stage in output.stages)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", ["resnet8x4", "resnet50", "imagenet_resnet18", "wrn_16_2", "vgg13", "mobilenetv2"])
def test_convolutions_start_normal_by_fan_out(name):
    torch.manual_seed(0)
    for parameter_name, weight in build_model(name, 5).named_parameters():
        if weight.ndim == 4 and weight.numel() > 2000:
            expected = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.06), parameter_name


@pytest.mark.parametrize("name", ["mobilenetv1", "shufflenetv1", "shufflenetv2"])
def test_convolutions_start_as_torch_starts_them(name):
    torch.manual_seed(0)
    for parameter_name, weight in build_model(name, 5).named_parameters():
        if weight.ndim == 4 and weight.numel() > 2000:
            bound = weight[0].numel() ** -0.5  # by fan-in
            assert weight.abs().max().item() == pytest.approx(bound, rel=0.01), parameter_name
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.06), parameter_name


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenetv2", "mobilenetv1"])
def test_classifiers_start_as_in_the_code_of_their_family(name):
    torch.manual_seed(0)
    classifier = build_model(name, 100).classifier
    small = name in {"vgg8", "mobilenetv2"}
    expected = 0.01 if small else (3 * classifier.in_features) ** -0.5
    assert classifier.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert bool((classifier.bias == 0).all()) == (small or name == "wrn_16_2")


def test_counting_leaves_the_model_as_it_was():
    model = build_model("resnet8", 5).train()
    model.stages[0].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_multiply_adds(model, (3, 16, 16))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_names_match_wildcards():
    assert list_models("resnet*x4") == ["resnet32x4", "resnet8x4"]
    assert list_models("wrn_40*") == ["wrn_40_1", "wrn_40_2"]
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
    for name in list_models():
        parameters = inspect.signature(model_factory(name)).parameters
        assert list(parameters) == ["num_classes", "in_channels"]
        assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_shuffle_moves_whole_maps_and_keeps_them_channels_last():
    maps = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    shuffled = shuffle(maps, 2)
    assert shuffled[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(shuffled, maps[:, [0, 3, 1, 4, 2, 5]])
    assert shuffled.is_contiguous(memory_format=torch.channels_last)

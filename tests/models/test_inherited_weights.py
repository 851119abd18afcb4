"""Starting a student from its teacher's weights: which tensors come from there, and what is refused."""

import pytest
import torch

from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.models import build_model
from ltkd.models.classifier import give_classifier
from ltkd.models.inherited_weights import inherit_weights
from ltkd.runs.load import load_run
from ltkd.runs.run import run_experiment


def network(name, *, seed=0):
    torch.manual_seed(seed)
    model = build_model(name, num_classes=5)
    for buffer in model.buffers():  # statistics that a training leaves
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer))
    return model


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("student", "teacher"),
    [("resnet8", "resnet20"), ("resnet8x4", "resnet32x4"), ("wrn_16_2", "wrn_40_2"), ("vgg8", "vgg13")],
)
def test_a_shallower_network_starts_as_the_blocks_that_it_shares(student, teacher):
    small, large = network(student, seed=1), network(teacher)
    assert inherit_weights(small, large) == 1
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, large.state_dict()[name]), name


def test_the_same_network_gives_the_same_outputs():
    small, large = network("resnet8", seed=1), network("resnet8")
    inherit_weights(small, large)
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(small.eval()(images).logits, large.eval()(images).logits)


def test_a_narrower_network_gets_evenly_spaced_channels():
    small, large = network("wrn_40_1", seed=1), network("wrn_40_2")
    assert inherit_weights(small, large) == 1
    for name, tensor in small.state_dict().items():
        given = large.state_dict()[name]
        steps = [wide // narrow for wide, narrow in zip(given.shape[:2], tensor.shape[:2], strict=True)]
        for i in range(tensor.shape[0] if tensor.ndim else 0):
            if tensor.ndim == 1:
                assert tensor[i] == given[steps[0] * i], name
            else:
                for j in range(tensor.shape[1]):
                    assert torch.equal(tensor[i, j], given[steps[0] * i, steps[1] * j]), name


def test_widths_that_do_not_divide_are_spaced_by_the_floor():
    small, large = torch.nn.Linear(5, 3), torch.nn.Linear(8, 5)
    inherit_weights(torch.nn.Sequential(small), torch.nn.Sequential(large))
    assert torch.equal(small.weight, large.weight[[0, 1, 3]][:, [0, 1, 3, 4, 6]])
    assert torch.equal(small.bias, large.bias[[0, 1, 3]])


def test_more_than_half_of_the_parameters_is_enough_and_other_kernels_have_no_counterpart():
    def layers(kernel):
        return torch.nn.Sequential(torch.nn.Conv2d(4, 4, kernel, bias=False), torch.nn.Linear(5, 4, bias=False))

    small, large = layers(1), layers(3)
    before = small[0].weight.clone()
    assert inherit_weights(small, large) == 20 / 36
    assert torch.equal(small[0].weight, before)
    assert torch.equal(small[1].weight, large[1].weight)


def test_a_classifier_of_another_kind_starts_at_random():
    small, large = network("resnet8", seed=1), network("resnet20")
    give_classifier(large, "cosine")
    before = tensors(small)
    share = inherit_weights(small, large)
    own = [name for name, tensor in before.items() if name.startswith("classifier.")]
    assert own
    assert all(torch.equal(small.state_dict()[name], before[name]) for name in own)
    parameters = sum(parameter.numel() for parameter in small.parameters())
    assert share == 1 - sum(before[name].numel() for name in own) / parameters
    assert torch.equal(small.state_dict()["stem.weight"], large.state_dict()["stem.weight"])


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("mobilenetv2", "resnet50"),
        ("imagenet_resnet18", "imagenet_resnet50"),  # blocks of another kind with layers of the same names
        ("resnet56", "resnet20"),  # deeper than its teacher
    ],
)
def test_networks_with_little_in_common_are_refused_and_stay_as_they_are(student, teacher):
    small, large = network(student, seed=1), network(teacher)
    before = tensors(small)
    with pytest.raises(UserError, match=r"only \d+% of its parameters have a counterpart"):
        inherit_weights(small, large)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_a_run_begins_with_the_weights_of_the_trained_teacher(make_config):
    settings = "teacher.name=resnet14", "student.name=resnet8", "++student.recipe.epochs=0"
    config = make_config("method=kd", "student.start=teacher", *settings)
    run_experiment(config)
    student, teacher = (load_run(run.directory).model for run in (student_run(config), teacher_run(config)))
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, teacher.state_dict()[name]), name


def test_the_start_is_part_of_the_student_alone_and_only_where_it_is_not_random(make_config):
    plain, named, started = (
        make_config("method=kd", *setting) for setting in ([], ["student.start=random"], ["student.start=teacher"])
    )
    assert student_run(plain).identity == student_run(named).identity
    assert "start" not in student_run(plain).identity
    assert student_run(started).identity["start"] == "teacher"
    assert teacher_run(started).identity == teacher_run(plain).identity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("student.start=techer", "student.start: "),
        ("student.start=teacher method=ce", "student.start: method ce has no teacher"),
        (
            "student.start=teacher student=timm student.pretrained=true",
            "student.start: the teacher's weights would replace",
        ),
        ("teacher.start=teacher", "teacher.start"),
    ],
)
def test_what_it_does_not_go_with_is_said(make_config, settings, message):
    with pytest.raises(UserError, match=message):
        make_config(*settings.split(" "))


def test_a_teacher_of_other_images_is_warned_of(make_config, caplog):
    make_config("method=kd", "student.start=teacher")
    assert "student.start" not in caplog.text
    make_config("method=kd", "student.start=teacher", "teacher.mean=[0.5]")
    assert "student.start: the teacher's weights expect images of its own mean, std or size" in caplog.text


def test_a_pair_that_does_not_fit_is_refused_before_its_teacher_is_trained(make_config):
    config = make_config("method=kd", "student.start=teacher", "student.name=mobilenetv2", "teacher.name=resnet20")
    with pytest.raises(UserError, match=r"student\.start: mobilenetv2 cannot start from teacher resnet20: only"):
        run_experiment(config)
    assert not teacher_run(config).files.weights.exists()

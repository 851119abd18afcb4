"""Accuracy under attack: closed forms on linear networks, the ball, the range of pixels, and when it is computed."""

import json
import re

import pytest
import torch
from torch import nn

from ltkd.config.identity import student_run
from ltkd.methods import method_class
from ltkd.methods.base import MethodContext
from ltkd.models import build_model
from ltkd.models.output import ModelOutput
from ltkd.results.read import run_table
from ltkd.runs import robustness
from ltkd.runs.robustness import RADIUS, STEP, STEPS, PixelSpace, accuracy_under_attack, attack, balanced_rows
from ltkd.runs.run import run_experiment
from ltkd.setup import prepare
from ltkd.task_losses import build_task_loss

SHORT = ["recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=100"]
# three channels of different scale; grey in the middle, so that no pixel can leave its range
SPACE = PixelSpace(*(torch.tensor(v).view(1, 3, 1, 1) for v in ([-2.0, -1, -3], [2.0, 4, 3], [4.0, 5, 6])))


class Linear(nn.Module):
    def __init__(self, seed=0, num_classes=2):
        super().__init__()
        torch.manual_seed(seed)
        self.classifier = nn.Linear(48, num_classes)

    def forward(self, images, *, features=False):
        return ModelOutput(self.classifier(images.flatten(1)))


@pytest.fixture
def images():
    return torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(1)) - 0.5


def attacked(model, images, labels, kind, seed=2):
    unit = SPACE.unit.expand_as(images[:1])
    start = (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) - 1) * RADIUS * unit
    steps = {"fgsm": (0 * start, 1, RADIUS), "pgd": (start, STEPS, STEP)}[kind]
    return attack(model, images, labels, SPACE, start=steps[0], steps=steps[1], step=steps[2])


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_a_linear_network_loses_the_l1_norm_of_its_weights_times_the_radius(images, kind):
    """Of two classes the margin is linear: the worst point of the ball is a corner, and both attacks reach it."""
    model = Linear()
    labels = torch.arange(64) % 2
    weight = (model.classifier.weight[0] - model.classifier.weight[1]).view(1, 3, 4, 4)

    def margin(x):
        logits = model(x).logits
        return (logits[:, 0] - logits[:, 1]) * (1 - 2 * labels)

    lost = RADIUS * (weight.abs() * SPACE.unit).sum()  # of each pixel, whose unit depends on its channel
    found = attacked(model, images, labels, kind)
    torch.testing.assert_close(margin(found), margin(images) - lost, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_an_attack_stays_in_the_ball_and_in_the_range_of_pixels(images, kind):
    labels = torch.zeros(64, dtype=torch.int64)
    near_the_edge = (images * 20).clamp(SPACE.lowest, SPACE.highest)
    result = attacked(Linear(), near_the_edge, labels, kind)
    assert ((result - near_the_edge).abs() <= RADIUS * SPACE.unit * (1 + 1e-5)).all()
    assert ((result >= SPACE.lowest) & (result <= SPACE.highest)).all()
    assert (result != near_the_edge).any(dim=(1, 2, 3)).all()
    assert not result.requires_grad


def test_pgd_finds_at_least_as_much_loss_as_fgsm_on_a_curved_network(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.Tanh(), nn.Linear(30, 5))

    def model(x):
        return ModelOutput(3 * network(2 * x))

    labels = torch.arange(64) % 5
    losses = {}
    with torch.no_grad():
        clean = nn.functional.cross_entropy(model(images).logits, labels)
    for kind in ("fgsm", "pgd"):
        x = attacked(model, images, labels, kind)
        losses[kind] = nn.functional.cross_entropy(model(x).logits, labels)
    assert clean < losses["fgsm"] < losses["pgd"]


def test_pixel_space_is_that_of_the_data_set(make_config):
    dataset = make_config().dataset
    space = PixelSpace.of(dataset, torch.device("cpu"))
    black_white_unit = [(value - dataset.mean[0]) / dataset.std[0] for value in (0, 1)] + [1 / dataset.std[0]]
    measured = [tensor.item() for tensor in (space.lowest, space.highest, space.unit)]
    assert measured == pytest.approx(black_white_unit, rel=1e-6)
    setup = prepare(make_config())
    images = torch.cat([batch.images for batch in setup.test.evaluation_batches(500)])
    assert images.min().item() == pytest.approx(measured[0], rel=1e-6)  # a black pixel and a white one are there
    assert images.max().item() == pytest.approx(measured[1], rel=1e-6)


def test_rows_are_the_first_of_each_class_alike():
    labels = torch.tensor([2, 0, 0, 1, 0, 2, 1, 2, 2, 0])
    assert balanced_rows(labels, 3).tolist() == [0, 1, 3]
    assert balanced_rows(labels, 6).tolist() == [0, 1, 2, 3, 5, 6]
    assert balanced_rows(labels, 8).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]  # only two of class 1
    assert balanced_rows(labels, None).tolist() == list(range(10))
    assert balanced_rows(labels, 99).tolist() == list(range(10))


def figures_of(config, model, method="kdiga"):
    setup = prepare(config)
    context = MethodContext(10, torch.ones(10), torch.zeros(10, dtype=torch.int64), ["all"], 1, 1)
    watched = method_class("ce")(context, build_task_loss("ce", context.class_counts))
    watched.reports_robustness = method == "kdiga"
    return accuracy_under_attack(setup, watched, model, None)


def test_figures_can_be_repeated_and_leave_the_network_alone(make_config, monkeypatch):
    monkeypatch.setattr(robustness, "BATCH_SIZE", 64)
    config = make_config("evaluation.robustness_images=100")
    torch.manual_seed(0)
    model = build_model("resnet8", num_classes=10, in_channels=1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    first = figures_of(config, model)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert first == figures_of(config, model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert (first["images"], first["teacher"]) == (100, None)


@pytest.mark.parametrize(
    ("method", "setting", "computed"),
    [("kdiga", "auto", True), ("kd", "auto", False), ("kd", "true", True), ("kdiga", "false", False)],
)
def test_who_asks_gets_it(make_config, method, setting, computed):
    config = make_config(f"evaluation.robustness={setting}", "evaluation.robustness_images=20")
    model = build_model("resnet8", num_classes=10, in_channels=1)
    assert (figures_of(config, model, method) is not None) == computed


def test_the_result_has_student_and_teacher_in_all_and_by_group(make_config):
    config = make_config(
        "method=kdiga", "evaluation.robustness_images=200", "recipe.epochs=20", "recipe.batch_size=100"
    )
    result = run_experiment(config)
    stored = json.loads((student_run(config).directory / "result.json").read_text())["robustness"]
    assert stored == result["robustness"]
    assert (stored["radius"], stored["step"], stored["steps"], stored["images"]) == (8 / 255, 2 / 255, 10, 200)
    for role in ("student", "teacher"):
        accuracy = {kind: stored[role][kind]["all"] for kind in ("clean", "fgsm", "pgd")}
        assert accuracy["pgd"] <= accuracy["fgsm"] < accuracy["clean"] <= 100
        assert set(stored[role]["pgd"]["per_group"]) == {"head", "medium", "tail"}
    table = run_table(result)
    assert re.search(r"student resnet8, under PGD +\| kdiga", table)
    assert table.count("under FGSM") == 2


def test_a_finished_run_without_it_says_how_to_get_it(make_config, caplog):
    run_experiment(make_config("method=ce", *SHORT))
    with caplog.at_level("WARNING"):
        assert run_experiment(make_config("method=ce", *SHORT, "evaluation.robustness=true"))["robustness"] is None
    assert "no accuracy under attack" in caplog.text

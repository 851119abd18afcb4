"""What a method may ask of the engine beside losses: figures of each image, the network after each epoch."""

import json

import pytest
import torch

from ltkd.config.identity import student_run, teacher_run
from ltkd.data import load_data
from ltkd.methods import base, method_class
from ltkd.runs.load import load_run
from ltkd.runs.run import run_experiment


@pytest.mark.parametrize("setting", ["recipe.sampling", "student.recipe.sampling"])
def test_a_method_knows_the_classes_that_its_epochs_draw(make_config, monkeypatch, setting):
    seen = []

    class Asking(method_class("ce")):
        def build(self, context):
            seen.append(context.drawn and torch.stack([context.drawn(epoch) for epoch in (1, 3)]))

    monkeypatch.setitem(base._METHODS, "ce", Asking)
    for choice in ("instance", "square_root", "progressive"):
        run_experiment(config := make_config("method=ce", f"++{setting}={choice}"))
    labels = torch.as_tensor(load_data(config.dataset, config.data_root).train_labels)
    by_image = labels.bincount().double() / len(labels)
    square_root = by_image.sqrt() / by_image.sqrt().sum()
    plain, square_rooted, progressive = seen
    assert plain is None
    torch.testing.assert_close(square_rooted, square_root.expand(2, -1))
    torch.testing.assert_close(progressive, torch.stack((by_image * 2 / 3 + 0.1 / 3, torch.full_like(by_image, 0.1))))


def test_a_method_is_built_of_a_student_that_has_its_start(make_config, monkeypatch):
    stems = []

    class Remembering(method_class("kd")):
        def build(self, context):
            stems.append(context.networks.student_parameters["stem.weight"].detach().clone())

    monkeypatch.setitem(base._METHODS, "kd", Remembering)
    config = make_config("method=kd", "teacher.name=resnet14", "student.name=resnet8", "student.start=teacher")
    run_experiment(config)
    teacher = load_run(teacher_run(config).directory).model
    assert torch.equal(stems[-1], teacher.stem.weight)


@pytest.fixture
def watched(monkeypatch):
    """The method `ce` that records a figure of its own: the row of each image in the data set."""
    epochs = []

    class Watched(method_class("ce")):
        def forward(self, student, teacher, batch):
            self.record("row", batch.index, batch.labels)
            return super().forward(student, teacher, batch)

        def end_epoch(self, model):
            epochs.append(model.classifier.weight.detach().clone())

    monkeypatch.setitem(base._METHODS, "ce", Watched)
    return epochs


def test_a_figure_is_the_mean_over_the_epochs_images_in_all_and_by_group(make_config, watched):
    # the last of an epoch's batches is shorter, and a batch may lack a group
    config = make_config("method=ce", "recipe.epochs=2", "recipe.batch_size=100")
    run_experiment(config)
    data = load_data(config.dataset, config.data_root)
    rows = torch.arange(len(data.train_labels)).double()
    group = torch.as_tensor(data.split.groups)[torch.as_tensor(data.train_labels)]
    for line in (student_run(config).directory / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        assert metrics["train/row"] == pytest.approx(rows.mean().item(), rel=1e-5)
        for index, name in enumerate(data.split.group_names):
            assert metrics[f"train/row/{name}"] == pytest.approx(rows[group == index].mean().item(), rel=1e-5)


def test_the_end_of_an_epoch_comes_with_the_trained_network(make_config, watched):
    config = make_config("method=ce")
    result = run_experiment(config)
    assert len(watched) == 3 == result["accuracy"]["last"]["epoch"]
    assert not torch.equal(watched[0], watched[1])


def test_a_group_without_an_image_in_the_epoch_has_no_figure(make_config, watched, monkeypatch):
    method = base.method_class("ce")
    forward = method.forward

    def head_only(self, student, teacher, batch):
        terms = forward(self, student, teacher, batch)
        self.figures["row"][1:] = 0  # as if no image of the other groups had been seen
        return terms

    monkeypatch.setattr(method, "forward", head_only)
    config = make_config("method=ce", "recipe.epochs=1", "recipe.warmup_epochs=0")
    run_experiment(config)
    metrics = json.loads((student_run(config).directory / "metrics.jsonl").read_text())
    assert metrics["train/row"] == metrics["train/row/head"]
    assert not {"train/row/medium", "train/row/tail"} & metrics.keys()

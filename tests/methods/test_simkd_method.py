"""SimKD's deployed network: what it is made of, and through a whole run, a resumed one, and from its file."""

import json
import os
import signal

import pytest
import torch

from ltkd.config.identity import student_run
from ltkd.errors import UserError
from ltkd.loop.interrupt import Interrupted
from ltkd.methods.simkd import SimKD
from ltkd.models import build_model, count_parameters, load_weights
from ltkd.runs.build import new_method, new_model
from ltkd.runs.run import run_experiment
from ltkd.runs.teacher_store import find_or_train_teacher
from ltkd.setup import prepare

from .real_pair import Pair


def test_the_prediction_is_the_teachers_classifier_on_the_projected_map():
    pair = Pair("simkd", "resnet14", "resnet8")
    student = pair.student.eval()
    output = student(pair.batch.images, features=True)
    assert [one.shape[1:] for one in output.stages] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert (output.stages[-1] >= 0).all()
    torch.testing.assert_close(output.embedding, output.stages[-1].mean(dim=(2, 3)))
    torch.testing.assert_close(output.logits, pair.teacher.classifier(output.embedding))
    plain = student(pair.batch.images)
    assert plain.stages is None
    assert torch.equal(plain.logits, output.logits)

    own = {id(parameter) for parameter in student.parameters()}
    assert not own & {id(parameter) for parameter in pair.teacher.parameters()}
    assert not any(parameter.requires_grad for parameter in student.classifier.parameters())
    assert not list(pair.method.parameters())


def test_a_map_equal_to_the_teachers_costs_nothing():
    pair = Pair("simkd", "resnet14", "resnet8")
    student, teacher = pair.outputs()
    student.stages[-1] = teacher.stages[-1].clone()
    assert pair.method(student, teacher, pair.batch)["projection"] == 0


@pytest.mark.parametrize(
    ("teacher", "student", "projected"), [("vgg8", "resnet8", 4), ("resnet8", "vgg8", 4), ("resnet8", "resnet8", 8)]
)
def test_the_larger_map_is_pooled(teacher, student, projected):
    pair = Pair("simkd", teacher, student)
    assert pair.student(pair.batch.images, features=True).stages[-1].shape[2] == projected
    assert pair.terms()["projection"].isfinite()


@pytest.mark.parametrize("student", ["resnet8", "timm/resnet10t"])
def test_the_students_own_classifier_is_gone_and_the_teachers_copy_carries_no_hook(student):
    pair = Pair("simkd", "timm/resnet18", student)
    names = [name for name, _ in pair.student.named_parameters()]
    assert [name for name in names if name.startswith("classifier.")] == ["classifier.weight", "classifier.bias"]
    assert not any(".fc." in name or "backbone.classifier" in name for name in names)
    assert pair.student.classifier._forward_pre_hooks == {}
    # what training reaches: the trunk and the projector
    pair.terms()["projection"].backward()
    assert all(p.grad is not None for p in pair.student.parameters() if p.requires_grad)


def test_a_projector_without_channels_is_refused():
    with pytest.raises(UserError, match=r"method.reduction: .*\(64\), got 100"):
        Pair("simkd", "resnet14", "resnet8", reduction=100)


def deployed(config):
    """The network that a run of `config` trains, as it is before training."""
    setup, run = prepare(config), student_run(config)
    model = new_model(setup, run.network, run.seed)
    return new_method(setup, model, find_or_train_teacher(setup)).adapt_student(model), setup


def test_a_run_reports_and_saves_what_is_deployed(make_config):
    config = make_config("method=simkd", "teacher=resnet14")
    result = run_experiment(config)
    directory = student_run(config).directory
    model, setup = deployed(config)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, directory / "weights.safetensors")

    trunk = count_parameters(build_model("resnet8", 10, in_channels=1)) - 650
    projector = 64 * 32 + 9 * 32 * 32 + 32 * 64 + 2 * (32 + 32 + 64)  # 64 -> 32 -> 32 -> 64 channels
    assert result["parameters"] == count_parameters(model) == trunk + projector + 650
    teacher = find_or_train_teacher(setup).model
    assert torch.equal(model.classifier.weight, teacher.classifier.weight)
    assert not torch.equal(model.projector[0].weight, start["projector.0.weight"])
    model.eval()
    batches = list(setup.test.evaluation_batches(500))
    with torch.no_grad():
        correct = sum((model(batch.images).logits.argmax(1) == batch.labels).sum().item() for batch in batches)
    assert result["accuracy"]["last"]["all"] == pytest.approx(100 * correct / len(setup.test))
    assert result["multiply_adds"] > 0
    assert json.loads((directory / "result.json").read_text())["parameters"] == result["parameters"]


def test_a_run_interrupted_within_an_epoch_ends_with_the_same_weights(make_config, monkeypatch):
    whole, cut = make_config("method=simkd"), make_config("method=simkd", "study=cut")
    run_experiment(whole)
    distill, calls = SimKD.distill, []

    def stop_at_the_eighth(self, *outputs):
        calls.append(None)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return distill(self, *outputs)

    monkeypatch.setattr(SimKD, "distill", stop_at_the_eighth)
    with pytest.raises(Interrupted):
        run_experiment(cut)
    assert student_run(cut).files.checkpoint.exists()
    monkeypatch.undo()
    run_experiment(cut)
    weights = [(student_run(config).directory / "weights.safetensors").read_bytes() for config in (whole, cut)]
    assert weights[0] == weights[1]

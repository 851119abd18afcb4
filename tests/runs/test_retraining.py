"""Two-stage training: only the classifier changes, whatever interrupts it, and what comes out fits the same network."""

import json
import os
import signal

import pytest
import torch

from ltkd.config.identity import student_run, teacher_run
from ltkd.config.retraining import build_retraining
from ltkd.errors import UserError
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.trainer import Trainer
from ltkd.models import load_weights
from ltkd.runs.build import new_model
from ltkd.runs.retrain import ScaledClassifier
from ltkd.runs.run import run_experiment
from ltkd.setup import predict, prepare

CRT = "student.retraining={name: crt, epochs: 3}"
LWS = "student.retraining={name: lws, epochs: 3}"


def weights_of(config, run=student_run):
    setup, one = prepare(config), run(config)
    model = new_model(setup, one.network, one.seed)
    load_weights(model, one.directory / "weights.safetensors")
    return model.state_dict()


def lines_of(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def numbers(result):
    return {key: result[key] for key in ("accuracy", "before_retraining", "post_hoc", "weights_sha256", "hash")}


@pytest.mark.parametrize("stage", [CRT, LWS], ids=["crt", "lws"])
@pytest.mark.parametrize("network", ["resnet8", "timm/mobilenetv3_small_050"])
def test_nothing_but_the_classifier_changes(make_config, stage, network):
    settings = ("method=ce", f"student.name={network}", "recipe.epochs=2")
    first, config = make_config(*settings), make_config(*settings, stage)
    plain, result = run_experiment(first), run_experiment(config)
    before, after = weights_of(first), weights_of(config)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in after if name.rpartition("classifier")[1]}
    assert result["before_retraining"] == plain["accuracy"]
    assert result["accuracy"]["last"]["epoch"] == 3
    assert result["parameters"] == plain["parameters"]
    assert "before_retraining" not in plain
    assert not list(student_run(config).directory.rglob("*.ckpt"))


def test_factors_are_folded_into_weights_and_biases(make_config):
    settings = ("method=ce", "recipe.epochs=2")
    run_experiment(make_config(*settings))
    run_experiment(make_config(*settings, LWS))
    before, after = weights_of(make_config(*settings)), weights_of(make_config(*settings, LWS))
    factors = after["classifier.weight"] / before["classifier.weight"]
    assert (factors - factors[:, :1]).abs().max() < 1e-4
    torch.testing.assert_close(
        after["classifier.bias"], before["classifier.bias"] * factors[:, 0], rtol=1e-4, atol=1e-6
    )
    assert (factors[:, 0] - 1).abs().min() > 0

    linear = torch.nn.Linear(4, 3)
    scaled = ScaledClassifier(linear)
    x = torch.randn(5, 4)
    torch.testing.assert_close(scaled(x), linear(x))
    assert [name for name, _ in scaled.named_parameters()] == ["scale"]
    with torch.no_grad():
        scaled.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(scaled(x), linear(x) * torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(scaled.folded()(x), scaled(x))


def test_the_second_stage_is_logged_in_its_folder(make_config):
    config = make_config("method=ce", CRT, "recipe.batch_size=100")
    result = run_experiment(config)
    directory = student_run(config).directory
    assert len(lines_of(directory / "metrics.jsonl")) == 3
    lines = lines_of(directory / "retraining" / "metrics.jsonl")
    rate = 0.2 * 100 / 512
    assert [line["learning_rate"] for line in lines] == pytest.approx([rate, 0.75 * rate, 0.25 * rate])
    assert lines[-1]["test/accuracy"] == result["accuracy"]["last"]["all"]
    assert all(line["train/repeats/tail"] > 1 > line["train/repeats/head"] for line in lines)


def test_its_recipe_comes_from_the_first_stages(make_config):
    first = make_config("recipe=mdistiller").recipe
    for choice, epochs in (("crt", 10), ("lws", 5)):
        recipe = build_retraining(choice).recipe(first)
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (epochs, 64, 0.025)
        assert (recipe.schedule, recipe.milestones, recipe.warmup_epochs) == ("cosine", [], 0)
        assert (recipe.sampling, recipe.weight_decay) == ("class_balanced", 5e-4)
    as_in_the_paper = build_retraining({"name": "crt", "batch_size": 512}).recipe(first)
    assert (as_in_the_paper.batch_size, as_in_the_paper.learning_rate) == (512, 0.2)
    mine = build_retraining({"name": "crt", "learning_rate": 0.01, "sampling": "instance"}).recipe(first)
    assert (mine.learning_rate, mine.sampling) == (0.01, "instance")


STOPS = {
    "in the first stage": 10,
    "at the start of the second": 22,
    "in the middle of the second": 27,
}  # 7 steps an epoch, 3 and 3


@pytest.mark.parametrize("stage", [CRT, LWS], ids=["crt", "lws"])
@pytest.mark.parametrize("step", STOPS.values(), ids=STOPS)
def test_resumed_equals_uninterrupted_bit_for_bit(make_config, monkeypatch, stage, step):
    from ltkd.methods import method_class

    expected = run_experiment(make_config("method=ce", stage, "study=whole"))
    method, calls = method_class("ce"), []
    forward = method.forward

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *arguments)

    monkeypatch.setattr(method, "forward", stop)
    config = make_config("method=ce", stage, "study=halved")
    with pytest.raises(Interrupted):
        run_experiment(config)
    monkeypatch.undo()
    directory, whole = (
        student_run(config).directory,
        student_run(make_config("method=ce", stage, "study=whole")).directory,
    )
    assert not (directory / "result.json").exists()
    assert (directory / "retraining").exists() == (step > 21)
    assert numbers(run_experiment(config)) == numbers(expected)
    for part in (".", "retraining"):
        assert lines_of(directory / part / "metrics.jsonl") == lines_of(whole / part / "metrics.jsonl")


def test_killed_after_the_second_stage_and_before_the_result(make_config, monkeypatch):
    from ltkd.runs import train

    expected = run_experiment(make_config("method=ce", LWS, "study=whole"))
    config = make_config("method=ce", LWS, "study=halved")
    monkeypatch.setattr(train, "write_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config)
    monkeypatch.undo()
    monkeypatch.setattr(Trainer, "train_epoch", lambda *_: pytest.fail("an epoch was trained again"))
    assert numbers(run_experiment(config)) == numbers(expected)


def test_a_retrained_teacher_is_stored_and_teaches_as_it_is(make_config):
    config = make_config("method=kd", "teacher.retraining={name: lws, epochs: 2}")
    result = run_experiment(config)
    stored = json.loads((teacher_run(config).directory / "result.json").read_text())
    assert result["teacher_result"]["accuracy"] == stored["accuracy"]
    assert stored["before_retraining"]["last"]["epoch"] == 3
    assert teacher_run(config).identity["retraining"] == {"name": "lws", "epochs": 2}
    assert teacher_run(make_config("method=kd")).identity.get("retraining") is None
    again = run_experiment(make_config("method=kd", "teacher.retraining={name: lws, epochs: 2}", "study=again"))
    assert again["weights_sha256"] == result["weights_sha256"]


@pytest.mark.parametrize("method", ["kd", "ltkd", "catkd"])
def test_a_distilled_student_is_retrained_without_its_teacher(make_config, method):
    config = make_config(f"method={method}", CRT)
    result = run_experiment(config)
    lines = lines_of(student_run(config).directory / "retraining" / "metrics.jsonl")
    assert {name for line in lines for name in line if name.startswith("train/loss/")} == {"train/loss/task"}
    assert not any("teacher" in name for line in lines for name in line)
    assert result["accuracy"] != result["before_retraining"]


def test_a_cosine_classifier_starts_anew_too(make_config):
    settings = ("method=ce", "student.task_loss=ldam")
    run_experiment(make_config(*settings))
    run_experiment(make_config(*settings, CRT))
    before, after = weights_of(make_config(*settings)), weights_of(make_config(*settings, CRT))
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"classifier.weight"}


@pytest.mark.parametrize("stage", [CRT, LWS], ids=["crt", "lws"])
def test_validation_selects_within_the_second_stage(make_config, stage):
    config = make_config("method=ce", stage, "dataset.validation_per_class=3")
    result = run_experiment(config)
    setup, run = prepare(config), student_run(config)
    model = new_model(setup, run.network, run.seed)
    load_weights(model, run.directory / "selected.safetensors")
    batches = list(setup.validation.evaluation_batches())
    logits = torch.cat([predict(setup, model, batch.images).logits for batch in batches])
    correct = (logits.argmax(1) == torch.cat([batch.labels for batch in batches])).float().mean().item()
    assert 100 * correct == pytest.approx(result["accuracy"]["selected"]["validation"]["all"])
    lines = lines_of(student_run(config).directory / "retraining" / "metrics.jsonl")
    assert result["accuracy"]["selected"]["validation"]["all"] == max(line["validation/accuracy"] for line in lines)
    assert result["before_retraining"]["selected"] is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=simkd", "student.retraining=crt"], "student.retraining: method simkd deploys .*teacher.retraining"),
        (
            ["method=simkd", "student.task_loss=ldam"],
            "student.task_loss: method simkd deploys .* use teacher.task_loss",
        ),
        (["student.task_loss=ldam", "student.retraining=lws"], "student.retraining: lws scales .*; use crt"),
        (["teacher.task_loss=ldam", "teacher.retraining=lws"], "teacher.retraining: lws scales"),
        (["teacher.retraining=crt", "teacher.checkpoint=pyproject.toml"], "teacher.retraining: weights from"),
        (["student.retraining=ctr"], "student.retraining: unknown name 'ctr' .did you mean 'crt'"),
        (["student.retraining={name: crt, epochs: 0}"], "student.retraining.epochs: should be greater than"),
        (["student.retraining={name: crt, sampling: even}"], "student.retraining.sampling: should be"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_one_error(make_config, monkeypatch, overrides, message):
    monkeypatch.chdir(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    with pytest.raises(UserError, match=f"^{message}"):
        make_config(*overrides)


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("timm/deit_tiny_distilled_patch16_224", "crt", "retraining=crt needs a network with one layer"),
        ("timm/deit_tiny_distilled_patch16_224", "lws", "retraining=lws needs a network .* one linear layer"),
    ],
)
def test_a_network_without_a_classifier_is_known_before_a_teacher_is_trained(make_config, name, stage, message):
    config = make_config(f"student.name={name}", f"student.retraining={stage}")
    with pytest.raises(UserError, match=message):
        run_experiment(config)
    assert not teacher_run(config).directory.exists()


def test_only_a_run_that_is_retrained_is_another_run(make_config):
    plain, stated = make_config(), make_config("student.retraining=null")
    assert student_run(plain).identity == student_run(stated).identity
    assert "retraining" not in student_run(plain).identity
    by_default = make_config("student.retraining={name: crt, epochs: 10}")
    assert student_run(by_default).identity == student_run(make_config("student.retraining=crt")).identity
    assert student_run(by_default).hash != student_run(plain).hash

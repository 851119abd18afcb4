"""Whole tiny runs: what a step may touch, and that an interruption changes no number."""

import dataclasses
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from ltkd.config.identity import student_run, teacher_run
from ltkd.data import load_data, write_pack
from ltkd.errors import UserError
from ltkd.loop import state as state_module
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.step import Step, StepInput
from ltkd.methods import method_class
from ltkd.runs import run as run_module
from ltkd.runs.build import new_method, new_model
from ltkd.runs.run import run_experiment
from ltkd.runs.teacher_store import find_or_train_teacher
from ltkd.runs.train import make_training
from ltkd.setup import prepare

from .killing import Kill

METHODS = ["kd", "dkd", "ltkd"]


def training_of(config):
    """The student's Training as run_experiment would make it."""
    setup = prepare(config)
    teacher = find_or_train_teacher(setup) if config.needs_teacher else None
    run = student_run(config)
    model = new_model(setup, run.network, run.seed)
    return make_training(setup, run, model, new_method(setup, model, teacher), teacher)


def first_batch(training):
    """The input of a step on the first 64 images of an epoch; the teacher is live."""
    return StepInput(training.train.draw_epoch(torch.Generator().manual_seed(0)).take(slice(0, 64)))


def steps(training, num_steps):
    """The mean objective of each of `num_steps` steps on one batch."""
    train_step = Step(training, torch.optim.SGD(training.model.parameters(), lr=0.05, momentum=0.9))
    training.model.train()
    training.method.train()
    training.method.start_epoch(1)
    objectives = []
    for _ in range(num_steps):
        metrics = train_step.update(first_batch(training))
        objectives.append(sum(v.item() for k, v in metrics.items() if k.startswith("loss/")))
    return objectives


@pytest.mark.parametrize("method", ["ce", *METHODS])
def test_one_batch_is_overfitted(make_config, method):
    training = training_of(make_config(f"method={method}"))
    objectives = steps(training, 60)
    batch = first_batch(training).batch(training.train)
    assert objectives[-1] < 0.2 * objectives[0]
    predicted = training.model(batch.images).logits.argmax(1)
    wanted = predicted == batch.labels
    if training.teacher is not None:  # where an untrained teacher errs, the student is asked to err with it
        wanted |= predicted == training.teacher(batch.images).logits.argmax(1)
    assert wanted.float().mean() > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_a_step_leaves_the_teacher_untouched(make_config, method):
    training = training_of(make_config(f"method={method}"))
    before = {name: tensor.clone() for name, tensor in training.teacher.state_dict().items()}
    steps(training, 3)
    assert not training.teacher.training
    for name, tensor in training.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in training.teacher.parameters())


def test_initial_weights_depend_on_the_seed_alone(make_config):
    ce, ltkd, other = (training_of(make_config(*o)) for o in (["method=ce"], ["method=ltkd"], ["method=ce", "seed=1"]))
    state = ce.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ltkd.model.state_dict().items())
    assert not torch.equal(other.model.classifier.weight, ce.model.classifier.weight)


@pytest.fixture
def at_call(monkeypatch):
    """Do something at the n-th objective of a method: at_call("ltkd", 10, action)."""

    def install(name, number, action):
        method, calls = method_class(name), []
        forward = method.forward

        def counting(self, *arguments):
            calls.append(1)
            if len(calls) == number:
                action()
            return forward(self, *arguments)

        monkeypatch.setattr(method, "forward", counting)
        return lambda: monkeypatch.setattr(method, "forward", forward)

    return install


def raise_kill():
    raise Kill


def raise_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


def numbers(result):
    """What must not depend on how a run came about."""
    return {key: result[key] for key in ("accuracy", "weights_sha256", "parameters", "hash")}


def metrics_of(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.mark.parametrize("rebalancing", ["batch", "running", "dataset"])
@pytest.mark.parametrize(("stop", "raised"), [(raise_kill, Kill), (raise_sigterm, Interrupted)])
def test_resumed_equals_uninterrupted_bit_for_bit(make_config, at_call, stop, raised, rebalancing):
    choice = f"method.rebalancing={rebalancing}"
    whole = make_config(choice, "study=whole")
    expected = run_experiment(whole)

    halved = make_config(choice, "study=halved")
    restore = at_call("ltkd", 10, stop)  # 7 steps an epoch: in the second of three
    with pytest.raises(raised):
        run_experiment(halved)
    restore()
    files = student_run(halved).files
    assert files.checkpoint.exists()
    assert not files.result.exists()

    assert numbers(run_experiment(halved)) == numbers(expected)
    assert metrics_of(files.folder) == metrics_of(student_run(whole).directory)
    assert len(metrics_of(files.folder)) == 3


def test_an_interrupted_teacher_is_resumed_too(make_config, at_call, tmp_path):
    expected = run_experiment(make_config(f"output_root={tmp_path}/other"))
    config = make_config()
    restore = at_call("ce", 12, raise_kill)
    with pytest.raises(Kill):
        run_experiment(config)
    restore()
    assert numbers(run_experiment(config)) == numbers(expected)
    teacher = json.loads((teacher_run(config).directory / "result.json").read_text())
    assert teacher["accuracy"] == expected["teacher_result"]["accuracy"]


def test_status_tells_how_a_run_ended(make_config, at_call):
    config = make_config("method=ce")
    status = student_run(config).directory / "status.json"
    restore = at_call("ce", 10, raise_sigterm)
    with pytest.raises(Interrupted) as stopped:
        run_experiment(config)
    restore()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert json.loads(status.read_text())["status"] == "interrupted"
    run_experiment(config)
    assert json.loads(status.read_text())["status"] == "finished"


def test_a_request_to_stop_holds_on_a_full_disk(make_config, at_call, monkeypatch):
    config = make_config("method=ce")

    def stop_on_a_full_disk():
        monkeypatch.setattr(state_module, "save_checkpoint", refuse)
        raise_sigterm()

    def refuse(path, state):
        raise UserError(f"{path}: cannot be written (No space left on device)")

    at_call("ce", 10, stop_on_a_full_disk)
    with pytest.raises(Interrupted):
        run_experiment(config)
    monkeypatch.undo()
    assert run_experiment(config)["accuracy"]["last"]["epoch"] == 3


def test_a_loss_that_is_not_finite_stops_with_epoch_and_term(make_config, monkeypatch):
    from ltkd.losses import ltkd_terms
    from ltkd.methods import ltkd

    calls = []

    def poisoned(*arguments, **keywords):
        calls.append(1)
        cross, within = ltkd_terms(*arguments, **keywords)
        return cross, within * (float("nan") if len(calls) == 9 else 1)

    monkeypatch.setattr(ltkd, "ltkd_terms", poisoned)
    config = make_config()
    with pytest.raises(UserError, match=r"loss term 'within' became nan at step 2 in epoch 2 .*checkpoint is kept"):
        run_experiment(config)
    status = json.loads((student_run(config).directory / "status.json").read_text())
    assert status["status"] == "failed"
    assert "'within'" in status["error"]
    monkeypatch.undo()
    assert len(metrics_of(student_run(config).directory)) == 1
    assert run_experiment(config)["accuracy"]["last"]["epoch"] == 3  # and it goes on from epoch 1


def test_a_finished_run_is_skipped_and_a_teacher_reused(make_config, monkeypatch):
    first = run_experiment(make_config())
    weights = teacher_run(make_config()).directory / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    run_experiment(make_config("method=kd"))
    assert weights.stat().st_mtime_ns == written
    monkeypatch.setattr(run_module, "prepare", lambda config: pytest.fail("the data was loaded"))
    assert run_experiment(make_config()) == first


def test_a_packed_split_gives_the_same_numbers(make_config, tmp_path):
    config = make_config("method=ce", "dataset.split_seed=3", "study=files")
    write_pack(tmp_path / "digits.ltpack", load_data(config.dataset, tmp_path))
    packed = make_config("method=ce", "dataset=pack", f"dataset.path={tmp_path}/digits.ltpack", "study=pack")
    assert run_experiment(packed)["accuracy"] == run_experiment(config)["accuracy"]
    weights = [load_file(student_run(one).directory / "weights.safetensors") for one in (packed, config)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_packs_of_equal_settings_are_data_sets_of_their_own(make_config, tmp_path):
    """Other pixels, or other names of the classes: another student, another teacher, another row of a table."""
    data = load_data(make_config().dataset, tmp_path)
    renamed = dataclasses.replace(data, class_names=data.class_names[::-1])
    packs = {"one": data, "other": dataclasses.replace(data, test_images=255 - data.test_images), "renamed": renamed}
    runs = []
    for name, content in packs.items():
        write_pack(tmp_path / f"{name}.ltpack", content)
        config = make_config("method=kd", "dataset=pack", f"dataset.path={tmp_path}/{name}.ltpack")
        runs += [student_run(config), teacher_run(config)]
    assert len({run.hash for run in runs}) == len({run.cell for run in runs}) == 6
    again = make_config("method=kd", "dataset=pack", f"dataset.path={tmp_path}/one.ltpack")
    assert student_run(again).hash == runs[0].hash


def test_an_interrupted_run_is_not_resumed_with_another_rhythm_of_evaluation(make_config, at_call):
    config = make_config("method=ce", "run.evaluate_every=2")
    at_call("ce", 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        run_experiment(config)
    with pytest.raises(UserError, match=r"run\.evaluate_every: .*last\.ckpt was begun with 2, not 1"):
        run_experiment(make_config("method=ce", "run.evaluate_every=1"))
    assert run_experiment(config)["evaluate_every"] == 2


def test_a_method_that_refuses_is_known_before_a_further_teacher_is_trained(make_config, monkeypatch):
    config = make_config("method=exopd", "method.reference=resnet14")
    run_experiment(make_config("method=kd"))  # the main teacher is there

    def refuse(self, *args, **kwargs):
        raise UserError("not with these")

    monkeypatch.setattr(method_class("exopd"), "__init__", refuse)
    with pytest.raises(UserError, match="not with these"):
        run_experiment(config)
    assert not teacher_run(config, config.extra_teachers[0]).directory.exists()


def test_a_student_that_cannot_be_built_is_known_before_a_teacher_is_trained(make_config):
    config = make_config("student.name=timm/mobilenetv3_small_050", "+student.arguments.no_such_argument=1")
    with pytest.raises(UserError, match="no_such_argument"):
        run_experiment(config)
    assert not teacher_run(config).directory.exists()


def test_a_method_that_refuses_the_networks_does_so_before_a_teacher_is_trained(make_config, monkeypatch):
    config = make_config("method=kd")

    def refuse(self, context, *args, **kwargs):
        assert (context.student_name, context.teacher_name) == ("resnet8", "resnet8")
        raise UserError(f"method {self.name}: not with {context.teacher_name}")

    monkeypatch.setattr(method_class("kd"), "__init__", refuse)
    with pytest.raises(UserError, match="method kd: not with resnet8"):
        run_experiment(config)
    assert not (teacher_run(config).directory / "status.json").exists()  # not even begun

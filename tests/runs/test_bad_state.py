"""Damaged files, other people's files, full disks, two processes: one clear error, nothing lost."""

import dataclasses
import errno
import json
import os
import threading

import pytest
import torch
from safetensors.torch import load_file

from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.files import write_json
from ltkd.loop import checkpoint, trainer
from ltkd.loop.checkpoint import load_checkpoint, save_checkpoint
from ltkd.loop.evaluate import evaluate
from ltkd.models import build_model, save_weights
from ltkd.results.files import RunFiles
from ltkd.results.read import SCHEMA_VERSION
from ltkd.runs.directory import RunDirectory, RunLocked, locked
from ltkd.runs.run import run_experiment

from .killing import Kill


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"tensor": torch.arange(3.0), "nested": {"list": [1, None, "x"]}}
    save_checkpoint(tmp_path / "c", state)
    loaded = load_checkpoint(tmp_path / "c")
    assert torch.equal(loaded["tensor"], state["tensor"])
    assert loaded["nested"] == state["nested"]


DAMAGES = [lambda b: b[:-100], lambda b: b[:10], lambda b: b"", lambda b: b[:-9] + b"12345" + b[-4:]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"tensor": torch.zeros(100)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"last\.ckpt: damaged .* delete it to start"):
        load_checkpoint(path)


def test_a_truncated_checkpoint_stops_the_run_and_stays(make_config):
    config = make_config("method=ce")
    path = student_run(config).files.checkpoint
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of a checkp")
    with pytest.raises(UserError, match=r"last\.ckpt: damaged"):
        run_experiment(config)
    assert path.read_bytes() == b"half of a checkp"


def test_a_checkpoint_of_another_configuration_is_refused(make_config):
    config = make_config("method=ce")
    save_checkpoint(student_run(config).files.checkpoint, {"identity": "00000000"})
    with pytest.raises(UserError, match=r"last\.ckpt: belongs to another configuration"):
        run_experiment(config)


def test_changed_teacher_weights_are_not_used(make_config):
    run_experiment(make_config())
    weights = teacher_run(make_config()).directory / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors: not the weights"):
        run_experiment(make_config("seed=1"))


def test_a_manifest_of_other_data_stops_the_run(make_config):
    run_experiment(make_config())
    path = teacher_run(make_config()).directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["train_data_sha256"] = "0" * 64
    write_json(path, manifest)
    with pytest.raises(UserError, match=r"manifest\.json: .*train_data_sha256"):
        run_experiment(make_config("seed=1"))


def test_a_damaged_result_is_named(make_config):
    run_experiment(make_config("method=ce"))
    path = student_run(make_config("method=ce")).directory / "result.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match=r"result\.json: damaged"):
        run_experiment(make_config("method=ce"))


def test_output_that_cannot_be_written_is_named(make_config, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file/main.*: cannot be written"):
        run_experiment(make_config("method=ce", f"output_root={tmp_path}/file"))


def test_a_full_disk_keeps_the_last_checkpoint(make_config, monkeypatch):
    config = make_config("method=ce")
    path = student_run(config).files.checkpoint
    monkeypatch.setattr(checkpoint, "SHARE_OF_THE_TIME", 1.0)  # every epoch is saved
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if path.exists() and len(calls) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        run_experiment(config)
    monkeypatch.undo()
    saved = load_checkpoint(path)
    assert 0 < saved["state"]["epoch"] < 3
    assert not [name for name in os.listdir(path.parent) if name.startswith(".")]  # no half-written file stays
    again, undisturbed = run_experiment(config), run_experiment(make_config("method=ce", "study=undisturbed"))
    assert again["accuracy"] == undisturbed["accuracy"]
    assert again["weights_sha256"] == undisturbed["weights_sha256"]


def test_the_second_process_leaves_a_student_and_waits_for_a_teacher(tmp_path):
    events = []
    with locked(RunFiles(tmp_path), wait=False):
        # another lock object, as another process would have
        with pytest.raises(RunLocked), locked(RunFiles(tmp_path), wait=False):
            pass

        def wait():
            with locked(RunFiles(tmp_path), wait=True):
                events.append("second")

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.3)
        events.append("first")
    waiting.join(10)
    assert events == ["first", "second"]


def test_a_run_under_way_elsewhere_is_left_alone(make_config, caplog):
    config = make_config("method=ce")
    with locked(student_run(config).files, wait=False):
        assert run_experiment(config) is None
    assert "another process works on" in caplog.text


def test_an_open_directory_keeps_its_status_unless_its_run_is_finished(make_config):
    run = student_run(make_config("method=ce"))
    with RunDirectory(run).open(wait=False) as directory:
        assert directory.finished is None
        assert json.loads(directory.status.read_text())["status"] == "running"
    with pytest.raises(UserError), RunDirectory(run).open(wait=False):
        raise UserError("nothing works")
    status = json.loads(run.files.status.read_text())
    assert (status["status"], status["error"]) == ("failed", "UserError: nothing works")
    write_json(run.files.result, {"schema_version": SCHEMA_VERSION, "identity": run.identity})
    with RunDirectory(run).open(wait=False) as directory:
        assert directory.finished["identity"] == json.loads(json.dumps(run.identity))
    assert json.loads(run.files.status.read_text()) == status
    write_json(run.files.result, {"schema_version": SCHEMA_VERSION, "identity": {}})
    with pytest.raises(UserError, match=r"result\.json: belongs to another configuration"):
        RunDirectory(run).finished_result()


def test_what_comes_after_the_result_is_done_by_the_next_process_where_a_kill_came_between(make_config, monkeypatch):
    config = make_config("method=ce", "student.retraining={name: crt, epochs: 1}")
    files = student_run(config).files

    def kill(directory):
        raise Kill

    with monkeypatch.context() as killed:
        killed.setattr(RunDirectory, "remove_state", kill)
        with pytest.raises(Kill):
            run_experiment(config)
    # as a kill leaves it, after which nothing is noted
    write_json(files.status, {"status": "running", "error": None})
    left = [files.checkpoint, files.retraining.checkpoint, files.sessions]
    assert all(path.exists() for path in left)
    run_experiment(config)
    assert not any(path.exists() for path in left)
    assert json.loads(files.status.read_text())["status"] == "finished"


def test_what_killed_writers_left_goes_from_both_stages(tmp_path):
    left = [tmp_path / ".last.ckpt.0123.partial", tmp_path / "retraining" / ".last.ckpt.0123.partial"]
    left[1].parent.mkdir()
    for path in left:
        path.write_bytes(b"half")
    with locked(RunFiles(tmp_path), wait=False):
        assert not any(path.exists() for path in left)


def test_a_log_that_cannot_be_opened_leaves_no_run_that_runs(make_config):
    directory = student_run(make_config("method=ce")).directory
    (directory / "log.txt").mkdir(parents=True)
    with pytest.raises(UserError, match=r"log\.txt: cannot be written"):
        run_experiment(make_config("method=ce"))
    assert not (directory / "status.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_log_on_a_full_disk_is_given_up_and_the_run_goes_on(make_config, capsys, caplog):
    caplog.set_level("INFO")
    config = make_config("method=ce", "recipe.epochs=1")
    files = student_run(config).files
    files.folder.mkdir(parents=True)
    files.log.symlink_to("/dev/full")
    assert run_experiment(config)["accuracy"]["last"]["epoch"] == 1
    assert "Traceback" not in capsys.readouterr().err
    assert json.loads(files.status.read_text())["status"] == "finished"


def test_weights_from_a_file_are_a_teacher_as_they_are(make_config):
    run_experiment(make_config())
    weights = teacher_run(make_config()).directory / "weights.safetensors"
    mine = run_experiment(make_config(f"teacher.checkpoint={weights}", "dataset.validation_per_class=5"))
    accuracy = mine["teacher_result"]["accuracy"]
    assert accuracy["last"]["all"] > 10
    assert accuracy["last"]["epoch"] == 0
    assert accuracy["last"] == accuracy["best"] == accuracy["selected"]
    assert accuracy["selected"]["validation"]["all"] > 10


def test_what_has_no_effect_on_weights_from_a_file_is_said(make_config, tmp_path, caplog):
    weights = tmp_path / "weights.safetensors"
    save_weights(build_model("resnet8", num_classes=10, in_channels=1), weights)
    given = [f"teacher.checkpoint={weights}", "teacher=resnet8"]
    assert make_config(*given)
    posterior = ["method=bayesian", "method.posterior=swag"]
    assert make_config(*posterior, "+teacher.recipe.epochs=3", *given)  # is trained with it
    assert make_config("method=ce", "+teacher.recipe.epochs=3", *given)  # no teacher is no news
    assert "no effect" not in caplog.text
    make_config("+teacher.recipe.epochs=3", "teacher.seed=1", *given)
    assert "no effect: teacher.recipe, teacher.seed (weights from teacher.checkpoint" in caplog.text


def test_a_device_that_is_full_is_not_the_networks_fault(make_config, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ltkd.runs.build.predict", full)
    with pytest.raises(torch.OutOfMemoryError):
        run_experiment(make_config("method=ce"))


def test_weights_for_other_classes_are_refused(make_config, tmp_path):
    save_weights(build_model("resnet8", num_classes=7, in_channels=1), tmp_path / "seven.safetensors")
    with pytest.raises(UserError, match=r"seven\.safetensors: .*7.*10"):
        run_experiment(make_config(f"teacher.checkpoint={tmp_path}/seven.safetensors"))


def test_more_classes_than_labels(make_config):
    with pytest.raises(UserError, match=r"dataset\.num_classes: 12 classes are asked for, but the data has 10"):
        run_experiment(make_config("method=ce", "dataset.num_classes=12"))


def test_validation_selects_its_own_epoch(make_config, monkeypatch):
    accuracies = {500: iter((10.0, 30.0, 20.0, 25.0)), 50: iter((40.0, 10.0, 60.0, 20.0))}  # of test and validation

    def scripted(model, part, *rest):
        return dataclasses.replace(evaluate(model, part, *rest), all=next(accuracies[len(part)]))

    monkeypatch.setattr(trainer, "evaluate", scripted)
    config = make_config("method=ce", "dataset.validation_per_class=5", "recipe.epochs=4")
    accuracy = run_experiment(config)["accuracy"]
    assert (accuracy["best"]["epoch"], accuracy["best"]["all"]) == (2, 30.0)
    selected = accuracy["selected"]
    assert (selected["epoch"], selected["all"], selected["validation"]["all"]) == (3, 20.0, 60.0)
    assert (accuracy["last"]["epoch"], accuracy["last"]["all"]) == (4, 25.0)
    files = student_run(config).files
    kept, last = load_file(files.selected), load_file(files.weights)
    assert any(not torch.equal(kept[name], last[name]) for name in last)
    monkeypatch.undo()
    assert run_experiment(make_config("method=ce"))["accuracy"]["selected"] is None

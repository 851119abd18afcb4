"""The commands that a user types, as processes of their own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .conftest import PROJECT

TINY = ["student=resnet8", "recipe.warmup_epochs=0"]


def execute(command, **options):
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=280, **options)


def results_under(folder: Path):
    return {path.parent: json.loads(path.read_text()) for path in sorted(folder.rglob("result.json"))}


def test_from_data_to_table_with_tracking_offline(train_command, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}  # no login is found there
    command = [*train_command, *TINY, "recipe.epochs=3", "wandb.tags=[mine]"]
    first = execute(command, env=environment, stdin=subprocess.DEVNULL)
    assert first.returncode == 0, first.stdout + first.stderr
    table = [line for line in first.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in table[0].split("|")[3:-1]] == ["all", "head", "medium", "tail"]
    assert table[2].startswith("| teacher resnet8")
    [student] = [line for line in table if line.startswith("| student resnet8")]  # a second of the teacher comes before
    assert "W&B: no login, so offline" in first.stdout

    [(directory, result)] = results_under(tmp_path / "outputs" / "main").items()
    assert f"{result['accuracy']['last']['all']:.2f}" in student
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "manifest.json", "metrics.jsonl", "status.json", "log.txt", "weights.safetensors"} <= names
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    wanted = {
        "train/loss/task",
        "train/loss/cross",
        "train/loss/within",
        "test/accuracy/tail",
        "train/group_mass/teacher/tail",
    }
    assert wanted <= metrics[-1].keys()
    for mass in ("train/group_mass/teacher", "train/group_mass/student", "test/group_mass"):
        total = sum(value for key, value in metrics[-1].items() if key.startswith(mass + "/"))
        assert abs(total - 100) < 0.01

    # what W&B will be sent is on disk with the group metrics, settings and tags in it: one run for each network
    for folder in (directory, Path(result["teacher_result"]["directory"])):
        [record] = folder.glob("wandb/offline-run-*/run-*.wandb")
        content = record.read_bytes()
        for text in (b"test/accuracy/tail", b"digits_lt-if20", b"mine", b"imbalance_factor"):
            assert text in content, text

    again = execute(command, env=environment)
    assert again.returncode == 0
    assert "finished before, skipped" in again.stdout
    assert [line for line in again.stdout.splitlines() if line.startswith("|")] == table


def test_kill_in_the_middle_and_the_same_command_gives_the_same_numbers(train_command, tmp_path):
    command = [*train_command, *TINY, "wandb.mode=disabled", "recipe.epochs=25", "run.evaluate_every=5"]
    assert execute([*command, "study=whole"]).returncode == 0
    process = subprocess.Popen([*command, "study=killed"], stdout=subprocess.DEVNULL, cwd=PROJECT)
    deadline, directory = time.monotonic() + 600, tmp_path / "outputs" / "killed"
    while time.monotonic() < deadline and not any(
        len(path.read_text().splitlines()) >= 3 for path in directory.rglob("metrics.jsonl")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not results_under(directory)
    resumed = execute([*command, "study=killed"])
    assert resumed.returncode == 0
    assert "resumed after epoch" in resumed.stdout
    [killed] = results_under(directory).values()
    [whole] = results_under(tmp_path / "outputs" / "whole").values()
    for key in ("accuracy", "weights_sha256"):
        assert killed[key] == whole[key]


def test_multirun_with_one_failing_job_and_the_table_of_it(train_command, tmp_path):
    command = [
        *train_command[:2],
        "-m",
        *train_command[2:],
        *TINY,
        "wandb.mode=disabled",
        "recipe.epochs=2",
        "seed=0,1",
    ]
    # at that learning rate the loss is infinite: two of four jobs fail
    broken = execute([*command, "method=kd", "+student.recipe.learning_rate=1e30,0.05"])
    assert broken.returncode != 0
    assert broken.stderr.count("error: student resnet8: loss term") == 2
    study = tmp_path / "outputs" / "main"
    assert len(results_under(study)) == 2
    failed = [path for path in study.rglob("status.json") if json.loads(path.read_text())["status"] == "failed"]
    assert len(failed) == 2

    assert execute([*command, "method=ce"]).returncode == 0
    table = tmp_path / "table.csv"
    collected = execute([sys.executable, "scripts/results.py", str(study), "--csv", str(table)])
    assert collected.returncode == 1
    assert collected.stdout.count("failed: digits_lt-if20-resnet8-resnet8-kd seed") == 2
    rows = list(csv.DictReader(table.open()))
    assert {(row["method"], row["n"]) for row in rows} == {("teacher", "1"), ("ce", "2"), ("kd", "2")}
    runs = [r for r in results_under(study).values() if r["method"] == "kd"]
    mean = sum(r["accuracy"]["last"]["all"] for r in runs) / 2
    assert abs(float(next(row["all"] for row in rows if row["method"] == "kd")) - mean) < 1e-9


def test_bad_input_is_one_message_without_a_traceback(train_command):
    for override, message in {
        "method.temperature=0": "method.temperature: should be greater than 0",
        "data_root=/nowhere dataset=cifar100_lt dataset.download=false": "/nowhere/cifar-100-python",
    }.items():
        failed = execute([*train_command, *override.split()])
        assert failed.returncode == 2
        assert failed.stdout == ""
        assert failed.stderr.startswith("error: ")
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1


def test_a_multirun_that_cannot_write_is_one_message_too(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "src/train.py", "-m", "seed=0,1", f"output_root={tmp_path / 'file'}"]
    failed = execute(command)
    assert failed.returncode == 2
    assert failed.stderr == f"error: {tmp_path}/file/multirun: Not a directory; choose another output_root\n"


def test_help_names_every_choice_and_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    shown = execute([sys.executable, "src/train.py", "--help"], env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert shown.returncode == 0
    for group in ("dataset", "teacher", "student", "method", "recipe", "experiment"):
        assert f"{group}: " in shown.stdout
        for path in (PROJECT / "conf" / group).glob("*.yaml"):
            assert path.stem in shown.stdout


def test_real_cifar100_lt(train_command, cifar100_root, tmp_path):
    command = [
        *train_command,
        "dataset=cifar100_lt",
        "student=resnet8",
        "recipe=mdistiller",
        "recipe.epochs=1",
        "method=ce",
    ]
    command += [f"data_root={cifar100_root}", "wandb.mode=disabled", "dataset.imbalance_factor=100"]
    command += ["student.task_loss=balanced_softmax"]
    done = execute(command)
    assert done.returncode == 0, done.stdout + done.stderr
    [result] = results_under(tmp_path / "outputs").values()
    assert sum(result["class_counts"]) == 10847
    assert result["split_sha256"] == "e0d58a4d2700c46062da852554e5d185bbee74d3c612b052ea2a839bdadf939e"
    assert [result["groups"].count(group) for group in range(3)] == [33, 34, 33]
    assert result["parameters"] == 83_892
    assert result["accuracy"]["last"]["all"] > 2.5  # of 100 classes, after one epoch

"""A script's own arguments: the same in every way of writing them, and nothing is taken for what it is not."""

import subprocess
import sys

import pytest

from ltkd.commands.arguments import split_arguments, worker_options
from ltkd.errors import UserError

from ..conftest import PROJECT

OWN, FLAGS = ("jobs", "devices", "output"), ("--dry-run", "-m")


@pytest.mark.parametrize("jobs", [["jobs=2"], ["--jobs=2"], ["--jobs", "2"]])
def test_an_own_key_is_written_in_three_ways(jobs):
    own, overrides = split_arguments(["seed=0,1", *jobs, "--dry-run", "+student.recipe.momentum=0.8"], OWN, FLAGS)
    assert own == {"jobs": "2", "--dry-run": ""}
    assert overrides == ["seed=0,1", "+student.recipe.momentum=0.8"]
    assert worker_options(own) == {"num_workers": 2, "devices": None}


@pytest.mark.parametrize("arguments", [["output"], ["output="], ["--output"], ["--output", "--dry-run"]])
def test_an_own_key_without_a_value_is_refused(arguments):
    with pytest.raises(UserError, match="output: has no value; write output=VALUE"):
        split_arguments(arguments, OWN, FLAGS)


def test_an_unknown_option_is_told_with_the_choices():
    with pytest.raises(UserError, match=r"unknown name '--job' \(did you mean '--jobs'\?\); choose one of: .*--output"):
        split_arguments(["--job", "2"], OWN, FLAGS)


def test_numbers_are_numbers():
    for own, message in {
        ("jobs", "0"): "from 1 on",
        ("jobs", "two"): "a whole number",
        ("devices", "a"): "like 0,1",
    }.items():
        with pytest.raises(UserError, match=message):
            worker_options(dict([own]))


@pytest.mark.parametrize("jobs", [["jobs=2"], ["--jobs", "2"]])
@pytest.mark.parametrize(
    "command",
    [
        ["sweep", "method=ce,kd"],
        ["reproduce", "table=component_ablation_cpu"],
        ["tune", "method=kd", "method.weight=1,4", "dataset.validation_per_class=10"],
    ],
    ids=lambda command: command[0],
)
def test_the_scripts_take_both_forms(command, jobs, tmp_path):
    script, *settings = command
    arguments = [f"scripts/{script}.py", *jobs, *settings, f"output_root={tmp_path}", "--dry-run"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=PROJECT, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")

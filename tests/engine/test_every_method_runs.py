"""Every method of the registry through whole tiny runs on the digits: whatever is registered is tested here."""

import json

import pytest
import torch

from ltkd.engine import trainer
from ltkd.engine.run import run_experiment
from ltkd.engine.trainer import CHECKPOINT
from ltkd.identity import student_run
from ltkd.methods import list_methods

from .test_fit import metrics_of, numbers

ALL = list_methods()


class Kill(BaseException):
    """As kill -9: nothing of the program's own runs after it, as far as a test can have that."""


@pytest.fixture(scope="session")
def teachers(tmp_path_factory):
    """One place for the teachers of all these tests: each is trained once."""
    return tmp_path_factory.mktemp("every_method")


@pytest.mark.parametrize("name", ALL)
def test_a_run_on_digits_ends_and_resumes_to_the_same_bit(make_config, teachers, monkeypatch, name):
    def config(study):
        return make_config(f"method={name}", f"study={study}", f"output_root={teachers}", "recipe.batch_size=100")

    result = run_experiment(config("whole"))
    lines = metrics_of(student_run(config("whole")).directory)
    assert len(lines) == 3
    assert all(value == value for line in lines for value in line.values())  # no NaN
    terms = [key for key in lines[-1] if key.startswith("train/loss/")]
    assert len(terms) > 1 or not config("whole").needs_teacher
    assert result["parameters"] > 0

    finish, calls = trainer._finish_epoch, []

    def finish_and_die(*arguments):
        finish(*arguments)
        calls.append(1)
        if len(calls) == 2:
            raise Kill

    monkeypatch.setattr(trainer, "_finish_epoch", finish_and_die)
    with pytest.raises(Kill):
        run_experiment(config("halved"))
    monkeypatch.setattr(trainer, "_finish_epoch", finish)
    directory = student_run(config("halved")).directory
    assert (directory / CHECKPOINT).exists()
    torch.manual_seed(98765)  # whatever happened in between
    resumed = run_experiment(config("halved"))
    assert numbers(resumed) == numbers(result)
    assert metrics_of(directory) == lines
    assert json.loads((directory / "status.json").read_text())["status"] == "finished"

"""What a result says of the code that made it."""

from types import SimpleNamespace

import pytest

from ltkd import machine
from ltkd.config.identity import student_run
from ltkd.runs.run import run_experiment


@pytest.fixture
def uncached():
    """git_state() knows no answer, before the test and after it."""
    machine.git_state.cache_clear()
    yield
    machine.git_state.cache_clear()


def test_the_commit_is_that_of_the_start_whatever_is_committed_meanwhile(make_config, monkeypatch, uncached):
    config = make_config("method=ce", "recipe.epochs=2")
    trained = student_run(config).directory / "metrics.jsonl"

    def git(command, **options):
        after = trained.exists()
        answers = {"ls-files": "x", "rev-parse": "after" if after else "before", "status": " M x" if after else ""}
        return SimpleNamespace(stdout=answers[command[3]])

    monkeypatch.setattr(machine.subprocess, "run", git)
    assert run_experiment(config)["git"] == {"commit": "before", "modified": False}


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ("abc123", {"commit": "abc123", "modified": False}),
        ("abc123-dirty", {"commit": "abc123", "modified": True}),
        ("", None),
    ],
)
def test_outside_a_checkout_the_environment_names_the_commit(monkeypatch, uncached, given, state):
    def no_checkout(*arguments, **options):
        raise machine.subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(machine.subprocess, "run", no_checkout)
    monkeypatch.setenv("LTKD_COMMIT", given)
    assert machine.git_state() == state

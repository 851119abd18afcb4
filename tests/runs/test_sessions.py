"""A training that is resumed elsewhere: the same threads, and a record of what was not the same."""

import pytest
import torch

from ltkd import machine
from ltkd.config.identity import student_run
from ltkd.loop.tracking import Tracker
from ltkd.results.code import commit_label
from ltkd.runs.run import run_experiment


@pytest.fixture
def killed(monkeypatch):
    """Trains until the metrics of the first epoch would be written: after its checkpoint."""

    def run(config):
        def stop(self, metrics):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Tracker, "log", stop)
            with pytest.raises(KeyboardInterrupt):
                run_experiment(config)
        return student_run(config).files

    return run


def test_a_resumed_run_keeps_its_threads(make_config, killed, caplog):
    """The weights are those of the uninterrupted run, whatever number of threads is set when it is resumed."""
    caplog.set_level("INFO")
    whole = run_experiment(make_config("method=ce", "study=whole"))
    files = killed(make_config("method=ce"))
    resumed = run_experiment(make_config("method=ce", "run.threads=2"))
    assert "goes on with the number of threads that it was begun with, 1, not 2" in caplog.text
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert [one["threads"] for one in resumed["sessions"]] == [1]
    assert not files.sessions.exists()
    torch.set_num_threads(1)


def test_other_code_and_unknown_threads_are_said(make_config, killed, monkeypatch, caplog):
    files = killed(make_config("method=ce"))
    state = {"commit": "f" * 40, "modified": True}
    monkeypatch.setattr("ltkd.runs.sessions.git_state", lambda: state)
    killed(make_config("method=ce"))
    assert "was begun elsewhere (git " in caplog.text
    assert "now ffffffffff, with changes)" in caplog.text
    files.sessions.unlink()  # as before they were noted
    result = run_experiment(make_config("method=ce"))
    assert "does not say with how many threads" in caplog.text
    assert [one["threads"] for one in result["sessions"]] == [None, 1]


def test_a_skipped_run_says_from_which_commit_it_is(make_config, monkeypatch, caplog):
    caplog.set_level("INFO")
    run_experiment(make_config("method=ce", "recipe.epochs=0"))
    monkeypatch.setattr("ltkd.runs.result.git_state", lambda: {"commit": "f" * 40, "modified": False})
    run_experiment(make_config("method=ce", "recipe.epochs=0"))
    made_by = commit_label(machine.git_state())
    assert f"finished before, skipped (commit {made_by}; here ffffffffff)" in caplog.text


def test_a_skipped_run_says_how_many_threads_it_had_where_others_are_asked_for(make_config, caplog):
    caplog.set_level("INFO")
    run_experiment(make_config("method=kd", "recipe.epochs=0"))
    run_experiment(make_config("method=kd", "recipe.epochs=0", "run.threads=2"))
    run_experiment(make_config("method=kd", "recipe.epochs=0", "run.threads=2", "seed=1"))
    commit = commit_label(machine.git_state())
    made_by = f"(commit {commit} with 1 thread; here {commit} with 2 threads)"
    assert f"finished before, skipped {made_by}" in caplog.text
    [reused] = [message for message in caplog.messages if "reused from" in message]
    assert reused.endswith(made_by)
    torch.set_num_threads(1)

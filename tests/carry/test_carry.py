"""Carrying runs to another machine: the same files arrive, nothing finished is lost, what does not fit is refused."""

import json
import logging
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from ltkd.carry import export_runs, import_runs
from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.files import file_sha256, write_json
from ltkd.loop.checkpoint import load_checkpoint, save_checkpoint
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.trainer import Trainer
from ltkd.models import save_weights
from ltkd.results.files import RunFiles
from ltkd.runs.directory import RunDirectory, locked
from ltkd.runs.run import run_experiment

from ..conftest import PROJECT
from ..runs.test_fit import numbers

KIB = 1024


def content(folder: Path) -> dict[str, bytes]:
    """The files of runs, without locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("here")


@pytest.fixture
def runs(make_config, here, monkeypatch):
    """Below `here`: a teacher, a finished student (seed 0) and one stopped in its second epoch (seed 1)."""
    finished, stopped = (make_config("method=kd", f"seed={seed}", f"output_root={here}") for seed in (0, 1))
    if not student_run(stopped).files.checkpoint.exists():
        run_experiment(finished)
        start = Trainer.train_epoch

        def stopping(self):
            if self.state.epoch == 1:
                self.stop.signal = 15
            start(self)

        monkeypatch.setattr(Trainer, "train_epoch", stopping)
        with pytest.raises(Interrupted):
            run_experiment(stopped)
        monkeypatch.undo()
    return finished, stopped


def test_runs_go_on_elsewhere_as_if_they_had_been_trained_there(runs, here, make_config, tmp_path, caplog):
    departures = export_runs(here, tmp_path / "parts", 20 * KIB)
    assert (len(departures.finished), len(departures.unfinished), departures.in_use) == (2, 1, [])
    sizes = [path.stat().st_size for path in sorted((tmp_path / "parts").glob("runs.0*"))]
    assert len(sizes) > 2
    assert all(size == 20 * KIB for size in sizes[:-1])
    assert sizes[-1] <= 20 * KIB

    there = tmp_path / "there"
    arrivals = import_runs(tmp_path / "parts", there)
    assert (len(arrivals.finished), len(arrivals.unfinished), arrivals.kept) == (2, 1, [])
    sent, arrived = content(here), content(there)
    assert arrived.items() <= sent.items()
    not_carried = {student_run(runs[0]).files.weights.relative_to(here).as_posix()}
    assert {name for name in sent.keys() - arrived.keys() if "/logits/" not in name} == not_carried

    again = import_runs(tmp_path / "parts", there)
    assert (len(again.finished), len(again.unfinished), len(again.kept)) == (0, 0, 3)
    assert content(there) == arrived

    elsewhere = make_config("method=kd", "seed=1", f"output_root={there}")
    with caplog.at_level(logging.INFO):
        resumed = run_experiment(elsewhere)
    assert "teacher resnet8: reused" in caplog.text
    assert "student resnet8: resumed after epoch 1 of 3" in caplog.text
    whole = run_experiment(make_config("method=kd", "seed=1", f"output_root={here}", "study=whole"))
    assert numbers(resumed) == numbers(whole)
    shutil.rmtree(here / "whole")


def test_the_command(runs, here, tmp_path, capsys):
    carry = runpy.run_path(str(PROJECT / "scripts" / "carry.py"))["main"]
    parts, there = tmp_path / "parts", tmp_path / "there"
    assert carry([f"output_root={here}", f"out={parts}", "max=100KB"]) == 0
    assert f"{parts}: 2 finished and 1 unfinished runs in " in capsys.readouterr().out
    assert max(path.stat().st_size for path in parts.iterdir()) == 100_000
    assert carry([f"in={parts}", f"output_root={there}"]) == 0
    assert "runs imported: 2 finished, 1 to be resumed, 0 were here" in capsys.readouterr().out
    for arguments, message in {
        (f"in={parts}", f"out={parts}"): "error: give either out=FOLDER or in=FOLDER",
        (f"out={parts}", "max=16"): "error: --max: should be a size like 16MiB",
        (f"in={there}",): f"error: {there}/runs.json: cannot be read",
    }.items():
        assert carry([*arguments]) == 2
        assert capsys.readouterr().err.startswith(message)


def test_a_finished_run_replaces_an_unfinished_one_and_never_the_other_way(runs, here, tmp_path):
    stopped = student_run(runs[1])
    export_runs(here, tmp_path / "unfinished", KIB**2)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(here, elsewhere)
    run = RunFiles(elsewhere / stopped.directory.relative_to(here))
    run.checkpoint.unlink()
    result = json.loads(student_run(runs[0]).files.result.read_text())
    write_json(run.result, result | {"identity": stopped.identity, "hash": stopped.hash, "seed": 1})

    before = content(elsewhere)
    assert run.folder in import_runs(tmp_path / "unfinished", elsewhere).kept
    assert content(elsewhere) == before

    export_runs(elsewhere, tmp_path / "finished", KIB**2)
    target = tmp_path / "target"
    import_runs(tmp_path / "unfinished", target)
    assert import_runs(tmp_path / "finished", target).finished == [target / stopped.directory.relative_to(here)]
    assert not RunFiles(target / stopped.directory.relative_to(here)).checkpoint.exists()


def test_of_two_unfinished_runs_the_one_that_is_further_stays(runs, here, tmp_path):
    stopped = student_run(runs[1]).directory.relative_to(here)
    export_runs(here, tmp_path / "further", KIB**2)
    there = tmp_path / "there"
    import_runs(tmp_path / "further", there)
    state = load_checkpoint(RunFiles(there / stopped).checkpoint)
    state["state"]["epoch"] = 0
    save_checkpoint(RunFiles(there / stopped).checkpoint, state)
    export_runs(there, tmp_path / "behind", KIB**2)
    assert import_runs(tmp_path / "further", there).unfinished == [there / stopped]
    assert there / stopped in import_runs(tmp_path / "behind", there).kept
    assert load_checkpoint(RunFiles(there / stopped).checkpoint)["state"]["epoch"] == 1


def test_a_part_that_is_missing_or_damaged_is_named_and_nothing_is_imported(runs, here, tmp_path):
    parts, there = tmp_path / "parts", tmp_path / "there"
    export_runs(here, parts, 20 * KIB)
    with pytest.raises(UserError, match="parts of an earlier export"):
        export_runs(here, parts, 20 * KIB)
    second = parts / "runs.002"
    whole = second.read_bytes()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        second.write_bytes(broken)
        with pytest.raises(UserError, match=r"runs\.002: damaged"):
            import_runs(parts, there)
    second.unlink()
    with pytest.raises(UserError, match=r"lacks runs\.002"):
        import_runs(parts, there)
    (parts / "runs.json").unlink()
    with pytest.raises(UserError, match=r"runs\.json: cannot be read"):
        import_runs(parts, there)
    assert content(there) == {}
    with pytest.raises(UserError, match="no run that is finished"):
        export_runs(there, tmp_path / "more", KIB)


def test_another_run_other_data_and_a_second_teacher_are_refused(runs, here, tmp_path):
    parts, stopped = tmp_path / "parts", student_run(runs[1]).directory.relative_to(here)
    export_runs(here, parts, KIB**2)

    there = tmp_path / "other_data"
    write_json(there / stopped / "manifest.json", {"train_data_sha256": "other"})
    with pytest.raises(UserError, match="made with other data"):
        import_runs(parts, there)

    there = tmp_path / "renamed"
    shutil.copytree(here / stopped, there / stopped.with_name("s1-00000000"))
    export_runs(there, tmp_path / "renamed_parts", KIB**2)
    with pytest.raises(UserError, match=f"another run, {student_run(runs[1]).hash}; nothing"):
        import_runs(tmp_path / "renamed_parts", tmp_path / "empty")

    there = tmp_path / "second"
    shutil.copytree(here, there)
    teacher = RunFiles(there / teacher_run(runs[0]).directory.relative_to(here))
    save_weights(torch.nn.Linear(1, 1), teacher.weights, {})
    result = json.loads(teacher.result.read_text())
    write_json(teacher.result, result | {"weights_sha256": file_sha256(teacher.weights)})
    before = content(there)
    with pytest.raises(UserError, match=f"teacher {teacher_run(runs[0]).hash} was trained several times"):
        import_runs(parts, there)
    assert content(there) == before

    teacher.weights.write_bytes(b"other")
    export_runs(there, tmp_path / "broken_parts", KIB**2)
    with pytest.raises(UserError, match="other weights than its result"):
        import_runs(tmp_path / "broken_parts", tmp_path / "empty")


def test_a_run_that_is_being_trained_is_left_out_and_not_touched(runs, here, tmp_path):
    stopped = RunDirectory(student_run(runs[1]))
    export_runs(here, tmp_path / "all", KIB**2)
    there = RunFiles(tmp_path / "there" / stopped.folder.relative_to(here))
    with locked(stopped, wait=False), locked(there, wait=False):
        departures = export_runs(here, tmp_path / "parts", KIB**2)
        assert (departures.unfinished, departures.in_use) == ([], [stopped.folder])
        with pytest.raises(UserError, match="another process works there"):
            import_runs(tmp_path / "all", tmp_path / "there")

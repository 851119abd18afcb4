"""The metrics file is the truth; W&B may fail in any way and no training notices."""

import importlib
import json
import os
import struct
import subprocess
import sys
import threading
import types

import pytest

from ltkd.config.schema import Wandb
from ltkd.loop.tracking import Tracker
from ltkd.loop.turns import Turns
from ltkd.results.files import RunFiles


class FakeRun:
    def __init__(self, fail=()):
        self.fail, self.calls, self.summary = fail, [], {}

    def _call(self, name, *details):
        if name in self.fail:
            raise RuntimeError(f"{name} broke")
        self.calls.append((name, *details))

    def define_metric(self, *arguments, **keywords):
        self._call("define_metric", *arguments)

    def log(self, metrics, **keywords):
        assert not keywords, "step= would fix an order of its own"
        self._call("log", metrics)

    def finish(self, exit_code):
        self._call("finish", exit_code)


@pytest.fixture
def wandb(monkeypatch):
    """A wandb module that records; `wandb.run` is what init() returns."""
    module = types.ModuleType("wandb")
    module.run, module.arguments, module.unreachable = FakeRun(), None, False

    def init(**arguments):
        module.arguments = arguments
        if "init" in module.run.fail or (module.unreachable and arguments["mode"] == "online"):
            raise RuntimeError("init broke")
        return module.run

    module.init, module.Settings = (
        init,
        lambda **values: types.SimpleNamespace(base_url="https://api.elsewhere.example", **values),
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def tracker(folder, mode="offline", job_type="student"):
    return Tracker(
        folder, Wandb(mode, "ltkd", None, ["mine"]), name="n", group="g", job_type=job_type, tags=["kd"],
        config={"a": 1}, run_id="0123abcd",
    )  # fmt: skip


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_wandb_is_told(tmp_path, wandb):
    with tracker(tmp_path) as track:
        track.restart([])
        track.log({"epoch": 1, "x": 2.0})
        track.summarize({"accuracy": 3})
    expected = {"group": "g", "job_type": "student", "tags": ["kd", "mine"], "config": {"a": 1}, "id": "0123abcd",
                "resume": "allow", "mode": "offline"}  # fmt: skip
    assert {key: wandb.arguments[key] for key in expected} == expected
    assert ("log", {"epoch": 1, "x": 2.0}) in wandb.run.calls
    assert wandb.run.calls[-1] == ("finish", 0)
    assert wandb.run.summary == {"accuracy": 3}


def test_a_failed_training_is_a_failed_run_there(tmp_path, wandb):
    with pytest.raises(ZeroDivisionError), tracker(tmp_path):
        raise ZeroDivisionError
    assert wandb.run.calls[-1] == ("finish", 1)


@pytest.mark.parametrize("broken", ["init", "define_metric", "log", "finish"])
def test_a_failure_of_wandb_is_said_once_and_loses_nothing(tmp_path, wandb, caplog, broken):
    wandb.run.fail = (broken,)
    with tracker(tmp_path) as track:
        track.restart([])
        track.log({"epoch": 1})
        track.log({"epoch": 2})
    assert logged(tmp_path) == [{"epoch": 1}, {"epoch": 2}]
    assert caplog.text.count(f"{broken} broke") == 1


def test_an_unreachable_server_means_offline(tmp_path, wandb, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "k")
    wandb.unreachable = True
    with tracker(tmp_path, "online") as track:
        track.restart([])
        track.log({"epoch": 1})
    assert wandb.arguments["mode"] == "offline"
    assert ("log", {"epoch": 1}) in wandb.run.calls
    assert caplog.text.count("cannot be reached") == 1


def test_a_failed_real_run_is_closed_so_that_the_next_has_its_own(tmp_path, monkeypatch):
    import wandb as real

    monkeypatch.setattr(real.Run, "log", lambda *arguments, **keywords: 1 / 0)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, run_id in zip(folders, ("aaaa1111", "bbbb2222"), strict=True):
        folder.mkdir()
        track = tracker(folder)
        track.arguments["id"] = run_id
        with track:
            track.restart([])
            track.log({"epoch": 1})
        assert len(list(folder.glob(f"wandb/offline-run-*{run_id}/*.wandb"))) == 1


def test_disabled_does_not_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    with tracker(tmp_path, "disabled") as track:
        track.restart([])
        track.log({"epoch": 1})
    assert logged(tmp_path) == [{"epoch": 1}]


@pytest.mark.parametrize("mode", ["auto", "online"])
@pytest.mark.parametrize("place", ["nothing", "environment", "netrc", "netrc of the server"])
def test_online_only_with_a_login(tmp_path, wandb, monkeypatch, place, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    host = {"netrc": "api.wandb.ai", "netrc of the server": "api.elsewhere.example"}.get(place)
    netrc.write_text(f"machine {host} login user password k\n" if host else "")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    if place == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "k")
    with tracker(tmp_path, mode):
        pass
    assert wandb.arguments["mode"] == ("offline" if place == "nothing" else "online")


def test_a_resumed_training_rewrites_the_file_to_its_checkpoint(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    with tracker(tmp_path, "disabled") as track:
        track.restart([{"epoch": 1}])
        track.log({"epoch": 2})
    assert logged(tmp_path) == [{"epoch": 1}, {"epoch": 2}]


def test_in_a_sweep_of_wandb_the_run_is_the_students(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")  # its agent gives one run to the process, which trains a teacher first
    with tracker(tmp_path, job_type="teacher") as teacher:
        teacher.log({"epoch": 1})
    assert wandb.arguments is None
    assert len(logged(tmp_path)) == 1
    with tracker(tmp_path):
        pass
    assert wandb.arguments["job_type"] == "student"


KILLED = """
import os, sys
from pathlib import Path
from ltkd.config.schema import Wandb
from ltkd.loop.tracking import Tracker
track = Tracker(Path(sys.argv[1]), Wandb("offline", "ltkd", None, []), name="n", group="g", job_type="student",
                tags=[], config={}, run_id="0123abcd")
with track:
    track.restart([])
    for epoch in (1, 2, 3):
        track.log({"epoch": epoch, "x": epoch / 2})
    os.kill(os.getpid(), 9)
"""


def records(path):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # full, last
            yield Record.FromString(whole)
            whole = b""


def rows_sent(folder):
    """What `wandb sync FOLDER/wandb` sends of a run, which is a file once that is also below the link latest-run."""
    [sent] = {path.resolve() for path in folder.glob("wandb/*/*.wandb")}
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(sent)
        if record.WhichOneof("record_type") == "history"
    ]


def test_trainings_that_take_turns_are_runs_of_their_own(tmp_path):
    there = Turns(places=2)

    def train(name, losses):
        (tmp_path / name).mkdir()
        track = tracker(tmp_path / name)
        track.arguments["id"] = name
        with there.seat(), track:
            track.restart([])
            for epoch, loss in enumerate(losses, 1):
                track.log({"epoch": epoch, "loss": loss})
                there.pass_on()

    trainings = {"aaaa1111": [0.5, 0.25, 0.125], "bbbb2222": [4.0, 3.0]}
    threads = [threading.Thread(target=train, args=training) for training in trainings.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    importlib.import_module("wandb").teardown()
    for name, losses in trainings.items():
        rows = rows_sent(tmp_path / name)
        assert [(row["epoch"], row["loss"]) for row in rows] == list(enumerate(losses, 1))


def test_what_is_sent_of_a_killed_and_resumed_offline_run_has_every_epoch_once(tmp_path):
    own_service = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # not that of tests
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=own_service, check=False).returncode == -9
    history = [{"epoch": epoch, "x": epoch / 2} for epoch in (1, 2)]  # a checkpoint of before epoch 3
    with tracker(tmp_path) as track:
        track.restart(history)
        track.log({"epoch": 3, "x": 1.5})
        stage = track.stage(RunFiles(tmp_path / "retraining"))
        stage.path.parent.mkdir()
        stage.restart([{"epoch": 1}])
        stage.log({"epoch": 2})
        track.show(
            {"classes": [["class", "accuracy"], ["a", 50.0], ["b", None]]}, {"bias": [["g", "p"], ["head", 9.0]]}
        )
    importlib.import_module("wandb").teardown()  # waits until its service has written the file
    rows = rows_sent(tmp_path)
    assert len(list(tmp_path.glob("wandb/replaced/*/*.wandb"))) == 1
    assert [(row["epoch"], row["x"]) for row in rows if "x" in row] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert [row["retraining/epoch"] for row in rows if "retraining/epoch" in row] == [1, 2]
    assert any("classes.nrows" in row and row["classes.nrows"] == 2 for row in rows)
    assert any(key.startswith("bias") for row in rows for key in row)

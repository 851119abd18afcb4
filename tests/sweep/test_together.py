"""Several trainings in one process: the same bits as alone, and what a stop or a broken one leaves to the others."""

import contextlib
import io
import json
import logging
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ltkd import setup
from ltkd.data import load_data
from ltkd.loop import graph
from ltkd.loop.graph import CaptureFailed
from ltkd.loop.tracking import latest_metrics
from ltkd.loop.turns import Turns, turns
from ltkd.runs.run import run_experiment
from ltkd.sweep import Display, check_jobs, places, run_jobs, runner
from ltkd.sweep import serve as serve_module
from ltkd.sweep.crew import BROKEN
from ltkd.sweep.serve import serve

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

METHODS = ["ltkd", "mixkd"]  # the second draws random numbers in every step


@pytest.fixture
def jobs(tmp_path):
    """Makes tiny jobs with outputs in a folder of their own."""

    def make(folder, *changes):
        settings = [
            f"output_root={tmp_path / folder}", "teacher=resnet8", "student=resnet8", "device=cpu", "run.threads=1",
            "wandb.mode=disabled", "recipe.epochs=2", "recipe.warmup_epochs=0",
        ]  # fmt: skip
        return check_jobs([[*settings, *change.split()] for change in changes])

    return make


def run(jobs, **how):
    return run_jobs(jobs, display=Display(None), **how)


class Replies(io.StringIO):
    def codes(self):
        return sorted(json.loads(line)["code"] for line in self.getvalue().splitlines())


def serve_all(jobs, places):
    """Run them in this process, `places` at a time. Returns its exit code, and those of the jobs in ascending order."""
    lines = [{"overrides": job.overrides, "console": str(job.console), "run": str(job.run.directory)} for job in jobs]
    for job in jobs:
        job.console.parent.mkdir(parents=True, exist_ok=True)
    replies = Replies()
    code = serve(places, io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), replies)
    return code, replies.codes()


def same(first, second):
    """True where two runs have the same weights and metrics."""
    weights = [load_file(job.run.files.weights) for job in (first, second)]
    lines = [
        [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in text.splitlines()]
        for text in (job.run.files.metrics.read_text() for job in (first, second))
    ]
    return weights[0].keys() == weights[1].keys() and lines[0] == lines[1] and all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0]
    )  # fmt: skip


def test_trainings_that_take_turns_are_trainings_alone_bit_for_bit(jobs, caplog, monkeypatch):
    changes = [f"method={method} seed={seed}" for method in METHODS for seed in (0, 1)]
    together, alone = jobs("together", *changes), jobs("alone", *changes)
    caplog.set_level(logging.DEBUG)  # logs have what a command's have
    loaded = []
    monkeypatch.setattr(setup, "load_data", lambda *args, **options: loaded.append(args) or load_data(*args, **options))
    assert serve_all(together, 3) == (0, [0] * 4)
    assert len(loaded) == 1  # the data set, by all of them
    for one, other in zip(together, alone, strict=True):
        run_experiment(other.config)
        assert same(one, other), one.label
        [session] = json.loads(one.run.files.result.read_text())["sessions"]
        assert session["side_by_side"] == 3
        assert one.run.files.log.read_text().count("student resnet8: epoch 2/2") == 1  # its own alone
        assert "accuracy" in one.console.read_text()  # the table at the end


@pytest.mark.cuda
def test_trainings_that_take_turns_on_a_gpu_are_trainings_alone(jobs):
    # the third draws random numbers on the device
    names = ("ltkd", "kd", "crd", "reviewkd", "kd student.start=teacher")
    changes = [f"method={name} seed={seed} device=cuda recipe.epochs=4" for name in names for seed in (0, 1)]
    together, alone = jobs("together", *changes), jobs("alone", *changes)
    assert {o.status for o in run(together, num_workers=4, together=True)} == {"done"}
    assert {o.status for o in run(alone, num_workers=4, together=False)} == {"done"}
    for one, other in zip(together, alone, strict=True):
        assert same(one, other), one.label
        [session] = json.loads(one.run.files.result.read_text())["sessions"]
        assert session.get("side_by_side") == 4  # none had to go on in a process of its own


def test_one_that_fails_costs_no_other(jobs):
    diverging = "method=kd seed=1 ++student.recipe.learning_rate=1e30"
    some = jobs("outputs", "method=kd seed=0", diverging, "method=kd seed=2")
    assert serve_all(some, 3) == (0, [0, 0, 2])
    assert [job.run.files.result.exists() for job in some] == [True, False, True]
    assert "error: student resnet8: loss term" in some[1].console.read_text()


def when(condition, action):
    """Carry out `action` in a thread as soon as `condition` holds."""

    def wait():
        while not condition():
            time.sleep(0.02)
        action()

    threading.Thread(target=wait, daemon=True).start()


def in_training(jobs):
    return lambda: all(latest_metrics(job.run.directory) is not None for job in jobs)


def test_a_stop_saves_all_and_each_goes_on_to_the_same_bits(jobs):
    changes = [f"method=ltkd seed={seed} ++student.recipe.epochs=12" for seed in (0, 1)]
    stopped, whole = jobs("stopped", *changes), jobs("whole", *changes)
    code = 128 + signal.SIGTERM
    when(in_training(stopped), lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert serve_all(stopped, 2) == (code, [code] * 2)
    assert all(job.run.files.checkpoint.exists() for job in stopped)
    assert serve_all(stopped, 2) == (0, [0] * 2)
    for one, other in zip(stopped, whole, strict=True):
        run_experiment(other.config)
        assert same(one, other)


def test_where_one_spoils_the_process_the_others_save_and_end(jobs, monkeypatch):
    some = jobs("outputs", "method=kd seed=0 ++student.recipe.epochs=2000", "method=kd seed=1")
    real = serve_module.run_experiment

    def broken(config):
        if config.seed == 1:
            while not in_training(some[:1])():
                turns().pass_on()
            raise CaptureFailed("cannot be captured")
        return real(config)

    monkeypatch.setattr(serve_module, "run_experiment", broken)
    assert serve_all(some, 2) == (BROKEN, [2, BROKEN])
    assert some[0].run.files.checkpoint.exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_lost_device_is_known_by_its_error_where_torch_has_one(jobs, monkeypatch, known):
    error = torch.AcceleratorError("CUDA error") if known else RuntimeError("CUDA error")

    def lost(config):
        raise error

    monkeypatch.setattr(serve_module, "run_experiment", lost)
    if not known:
        monkeypatch.delattr(torch, "AcceleratorError")
    assert serve_all(jobs("outputs", "method=kd"), 1) == ((BROKEN, [BROKEN]) if known else (0, [1]))


def test_jobs_whose_process_is_killed_go_on_in_their_own(jobs):
    some = jobs("outputs", *(f"method=kd seed={seed} ++student.recipe.epochs=30" for seed in (0, 1)))

    def process(job):
        return json.loads(job.run.files.status.read_text())["process"]

    killed = []

    def kill():
        killed.append(process(some[0]))
        os.kill(killed[0], signal.SIGKILL)

    when(in_training(some), kill)
    assert [outcome.status for outcome in run(some, num_workers=2, together=True)] == ["done"] * 2
    assert len({*killed, *map(process, some)}) == 3


@pytest.fixture
def stub_places(monkeypatch):
    """Places on one GPU whose processes are not started."""

    class Stub:
        lives = True

        def __init__(self, number, environment, console, number_format):
            self.number_format = number_format

        def start(self, job, overrides):
            return "member"

    monkeypatch.setattr(places, "Crew", Stub)
    monkeypatch.setattr(places, "_process", lambda *arguments: "process")
    return places.Places(4, 1, ["0"], together=True)


def on(device, job):
    return replace(job, config=replace(job.config, device=device))


def test_a_job_of_another_number_format_or_device_has_a_process_of_its_own(jobs, stub_places):
    some = jobs("outputs", "seed=0", "seed=1", "seed=2 precision.tf32=true", "seed=3")
    some = [on(device, job) for device, job in zip(("cuda", "cuda", "cuda", "cpu"), some, strict=True)]
    assert [stub_places.start(job, 0).process for job in some] == ["member", "member", "process", "process"]


@pytest.mark.parametrize(
    ("changes", "process"),
    [
        ("method=kd", "member"),
        ("method=kd recipe.sam=0.05 ++student.recipe.sam=0", "member"),
        ("method=bikd dataset.validation_per_class=2", "process"),
        ("method=kd ++student.recipe.sam=0.05", "process"),
        ("method=kd run.step=eager", "process"),
        ("method=kd run.step=compile", "process"),
    ],
)
def test_only_jobs_whose_step_is_captured_share_a_process(jobs, stub_places, changes, process):
    first, job = (on("cuda", job) for job in jobs("outputs", "seed=1", changes))
    stub_places.start(first, 0)
    assert stub_places.start(job, 0).process == process


def test_a_job_that_is_started_again_without_a_graph_has_a_process_of_its_own(jobs, stub_places):
    [job] = jobs("outputs", "method=kd")
    again = runner._without_a_graph(on("cuda", job))
    assert again.overrides == [*job.overrides, "run.step=eager"]
    assert again.run.directory == job.run.directory
    assert stub_places.start(again, 0).process == "process"


def test_a_thread_takes_one_stream_however_many_jobs_it_has(monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *device: made.append(device) or object())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())

    def work():
        for _ in range(3):
            with Turns().seat():
                graph._capture_stream(torch.device("cuda"))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(made) == 4  # for two threads: one to work on and one to capture on


def test_turns_go_round_and_random_numbers_stay_with_their_thread():
    table, order = Turns(3), []

    def take(name):
        with table.seat():
            torch.manual_seed(name)
            for _ in range(4):
                order.append((name, torch.rand(()).item()))
                turns().pass_on()

    threads = [threading.Thread(target=take, args=(name,)) for name in range(3)]
    with table.seat():
        for thread in threads:
            thread.start()
        while len(table) < 4:
            time.sleep(0.01)
        assert order == []  # it is this thread's turn
    for thread in threads:
        thread.join()
    for name in range(3):
        torch.manual_seed(name)
        assert [number for one, number in order if one == name] == [torch.rand(()).item() for _ in range(4)]
    names = [name for name, _ in order]
    assert all(sorted(names[3 * turn : 3 * turn + 3]) == [0, 1, 2] for turn in range(4))
    assert len(table) == len(turns()) == 0

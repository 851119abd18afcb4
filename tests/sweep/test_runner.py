"""Running jobs side by side: whose turn it is, what a crash, a kill and a stop leave behind, and how that is mended."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ltkd.errors import EXIT_BUSY, UserError
from ltkd.loop.tracking import latest_metrics
from ltkd.sweep import Display, JobOutcome, check_jobs, exit_code, places, runner, summary
from ltkd.sweep.crew import Member
from ltkd.sweep.display import Pace

from ..conftest import PROJECT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def tiny(tmp_path):
    """The overrides of tiny runs with outputs under tmp_path."""
    return [
        f"output_root={tmp_path}/outputs", "teacher=resnet8", "student=resnet8", "device=cpu", "run.threads=1",
        "wandb.mode=disabled", "recipe.warmup_epochs=0",
    ]  # fmt: skip


@pytest.fixture
def sweep_command(tiny):
    """`python scripts/sweep.py` of tiny runs, two at a time."""
    return [sys.executable, str(PROJECT / "scripts" / "sweep.py"), "--jobs", "2", *tiny]


def execute(command):
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=600)


def wait_for(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def statuses(folder: Path) -> dict[int, dict]:
    """status.json of each run below `folder`, by seed."""
    found = (json.loads(path.read_text()) for path in folder.rglob("status.json"))
    return {status["seed"]: status for status in found}


def make_jobs(tmp_path, *jobs):
    return check_jobs([f"output_root={tmp_path}", "teacher=resnet8", *job] for job in jobs)


def test_teachers_are_trained_first_and_jobs_that_need_one_in_training_are_held_back(tmp_path):
    kd0, kd1, ce, other = make_jobs(
        tmp_path, ["method=kd", "seed=0"], ["method=kd", "seed=1"], ["method=ce"], ["method=kd", "teacher=resnet14"]
    )
    assert runner._next_job([kd0, kd1], []) is kd0
    assert runner._next_job([ce, other, kd0, kd1], []) is kd0  # most jobs wait for its teacher
    assert runner._next_job([ce, other, kd0], []) is other
    at_work = [runner.Worker(kd0, 0, None)]
    assert runner._next_job([kd1], at_work) is None
    assert runner._next_job([kd1, ce], at_work) is ce  # nobody waits behind the teacher
    assert runner._next_job([kd1, other], at_work) is other
    teacher = kd0.teachers[0].directory
    teacher.mkdir(parents=True)
    (teacher / "result.json").write_text("{}")
    assert runner._next_job([kd1, ce], at_work) is kd1
    assert runner._next_job([kd1, ce, other], at_work) is other


def test_jobs_of_a_lower_turn_start_first_whoever_waits_for_a_teacher(tmp_path):
    ce, kd = make_jobs(tmp_path, ["method=ce"], ["method=kd"])
    assert runner._next_job([ce, kd], []) is kd
    kd = replace(kd, turn=1)
    assert runner._next_job([kd, ce], []) is ce
    assert runner._next_job([kd], []) is kd


def test_gpus_are_called_as_this_process_sees_them(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert runner._visible_gpus(None) == ["0", "1", "2", "3"]
    assert runner._visible_gpus([3, 1]) == ["3", "1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert runner._visible_gpus(None) == ["0"]  # an empty name would hide the only GPU from the workers
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")  # as a cluster sets it
    assert runner._visible_gpus(None) == ["5", "7"]
    assert runner._visible_gpus([1]) == ["7"]
    with pytest.raises(UserError, match="no GPU 2 here; there are: 0 to 1"):
        runner._visible_gpus([2])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert runner._visible_gpus(None) == []


def test_workers_share_cores_and_take_turns_on_gpus(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(places.subprocess, "Popen", lambda command, **options: started.append((command, options)))
    jobs = make_jobs(
        tmp_path, ["dataset=cifar100_lt"], ["dataset=cifar100_lt", "run.threads=7"], ["dataset=digits_lt"],
        ["dataset=cifar100_lt", "device=cpu"],
    )  # fmt: skip
    there = places.Places(4, 2, ["5", "7"], together=False)
    for slot, job in enumerate(jobs):
        there.start(job, slot)
    added = [
        [one for one in command[2:] if one not in job.overrides]
        for (command, _), job in zip(started, jobs, strict=True)
    ]
    assert added[0] == ["run.progress=lines", "run.threads=2"]
    assert added[1] == ["run.progress=lines"]  # the user's own number stands
    assert added[2] == ["run.progress=lines"]  # images that small take one thread of themselves
    environments = [options["env"] for _, options in started]
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in environments[:3]] == ["5", "7", "5"]
    assert environments[3].get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")
    assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"2"}


def test_a_run_goes_on_with_as_many_threads_as_it_began_with(tmp_path, monkeypatch):
    given = []

    def start(self, job, slot):
        given.append(self.threads)
        raise UserError("not here")

    monkeypatch.setattr(places.Places, "start", start)
    monkeypatch.setattr(runner, "num_cores", lambda: 9)
    jobs = make_jobs(tmp_path, *([f"seed={seed}", "method=ce", "device=cpu"] for seed in range(4)))
    runner.run_jobs(jobs, num_workers=4, display=Display(None))
    assert given == [2] * 4
    monkeypatch.setattr(runner, "_ended_before", lambda job: None if job is jobs[3] else JobOutcome(job, "skipped"))
    runner.run_jobs(jobs, num_workers=4, display=Display(None))
    assert given == [2] * 5  # the last one alone has not all nine


def test_failing_jobs_do_not_stop_the_others_and_a_teacher_is_trained_once(tiny, tmp_path):
    jobs = [
        [*tiny, "recipe.epochs=2", "method=kd", f"+student.recipe.learning_rate={rate}"]
        for rate in ("1e30", "0.05")  # at the first the loss is infinite
    ]
    outcomes = runner.run_sweep(jobs, num_workers=2, display=Display(None))
    assert exit_code(outcomes) == 1
    said = summary(outcomes)
    last = said[said.index("1 failed, 1 done") :]
    assert last.count("student resnet8: loss term") == 1
    assert last.count("console.txt]") == 1
    assert len(list((tmp_path / "outputs" / "main").rglob("result.json"))) == 1
    [teacher] = (tmp_path / "outputs" / "teachers").rglob("result.json")
    assert (teacher.parent / "log.txt").read_text().count("epoch 2/2") == 1
    assert not any("waiting: another process" in path.read_text() for path in tmp_path.rglob("console.txt"))

    stream = io.StringIO()
    [again] = runner.run_sweep(jobs[1:], num_workers=2, display=Display(stream))
    assert again.status == "skipped"
    assert exit_code([again]) == 0
    assert "started:" not in stream.getvalue()


def test_the_same_run_twice_is_run_once_and_another_process_may_be_at_it(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "TRAIN", tmp_path / "train.py")
    (tmp_path / "train.py").write_text(f"raise SystemExit({EXIT_BUSY})")  # as train.py ends when it finds a lock
    stream = io.StringIO()
    common = [f"output_root={tmp_path}/outputs", "device=cpu", "method=ce"]
    jobs = [[*common, "teacher=resnet8"], [*common, "teacher=resnet14"]]  # cross-entropy has no teacher
    outcomes = runner.run_sweep(jobs, num_workers=2, display=Display(stream))
    assert [outcome.status for outcome in outcomes] == ["busy", "busy"]
    assert stream.getvalue().count("started") == 1
    assert exit_code(outcomes) == 1


def test_a_folder_that_cannot_be_made_costs_its_own_job(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "TRAIN", tmp_path / "train.py")
    (tmp_path / "train.py").write_text("raise SystemExit('the last word')")
    (tmp_path / "outputs" / "main").mkdir(parents=True)
    (tmp_path / "outputs" / "main" / "digits_lt-if10").write_text("a file")
    common = [f"output_root={tmp_path}/outputs", "device=cpu", "method=ce"]
    jobs = [[*common, "dataset.imbalance_factor=10"], [*common, "dataset.imbalance_factor=20"]]
    blocked, ran = runner.run_sweep(jobs, num_workers=1, display=Display(None))
    assert blocked.status == ran.status == "failed"
    assert "cannot be written" in blocked.reason
    assert ran.reason == "the last word"


def test_a_wrong_job_ends_the_sweep_before_it_begins(sweep_command, tmp_path):
    refused = execute([*sweep_command, "method=kd", "method.temperature=4,0"])
    assert refused.returncode == 2
    assert "method.temperature=0: method.temperature: should be greater than 0" in refused.stderr
    assert not (tmp_path / "outputs").exists()


def test_kill_ctrl_c_and_the_same_command_again(sweep_command, tiny, tmp_path):
    settings = ["method=ce", "recipe.epochs=30", "run.evaluate_every=30"]
    main = tmp_path / "outputs" / "main"
    process = subprocess.Popen(
        [*sweep_command, *settings, "seed=0,1,2"], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    wait_for(lambda: sum(len(path.read_text().splitlines()) >= 2 for path in main.rglob("metrics.jsonl")) == 2)
    job = {seed: status["process"] for seed, status in statuses(main).items()}
    os.kill(job[1], signal.SIGSTOP)  # it waits: on a busy machine it could end before the third begins
    os.kill(job[0], signal.SIGKILL)
    wait_for(lambda: 2 in statuses(main))  # the free worker took the third job
    process.send_signal(signal.SIGINT)
    wait_for(lambda: statuses(main)[2]["status"] != "running")
    os.kill(job[1], signal.SIGCONT)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 130, output
    assert "failed: seed=0: killed by SIGKILL (out of memory?)" in output
    assert "1 failed, 2 stopped" in output
    assert {seed: status["status"] for seed, status in statuses(main).items()} == {
        0: "running", 1: "interrupted", 2: "interrupted",
    }  # fmt: skip

    jobs = [[*tiny, *settings, f"seed={seed}"] for seed in range(3)]
    assert summary(runner.run_sweep(jobs, num_workers=2, display=Display(None))) == "3 done"
    consoles = [path.read_text() for path in main.rglob("console.txt")]
    assert sum("resumed after epoch" in console for console in consoles) >= 2


def test_a_second_ctrl_c_kills_jobs_that_do_not_end(tmp_path):
    (tmp_path / "train.py").write_text(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))\n"
        "time.sleep(300)\n"
    )
    program = (
        "import pathlib\nfrom ltkd.sweep import places, runner\n"
        f"places.TRAIN = pathlib.Path({str(tmp_path)!r}, 'train.py')\n"
        f"runner.run_sweep([['output_root={tmp_path}/outputs', 'device=cpu']], num_workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=PROJECT)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    job = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # waits for its job, which does not listen
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


def test_a_job_whose_step_cannot_be_captured_is_started_again_without_a_graph(tmp_path, monkeypatch):
    automatic, graph = check_jobs([f"output_root={tmp_path}/outputs", f"run.step={step}"] for step in ("auto", "eager"))
    graph = replace(graph, config=replace(graph.config, run=replace(graph.config.run, step="graph")))  # needs a GPU
    monkeypatch.setattr(places, "TRAIN", tmp_path / "train.py")
    (tmp_path / "train.py").write_text(
        "import json, os, pathlib, sys\n"
        "if sys.argv[-2] == 'run.step=eager':\n"  # the last one is the sweep's own
        "    raise SystemExit('not this time')\n"
        f"status = pathlib.Path({str(automatic.run.files.status)!r})\n"
        "error = 'CaptureFailed: the step of method x cannot be captured'\n"
        "status.write_text(json.dumps({'process': os.getpid(), 'status': 'failed', 'error': error}))\n"
        "raise SystemExit(2)\n"
    )
    stream = io.StringIO()
    [outcome] = runner.run_jobs([automatic], num_workers=1, display=Display(stream))
    assert (outcome.status, outcome.reason) == ("failed", "not this time")
    assert stream.getvalue().count("started again:") == 1
    assert "0 ended before, 1 to run" in stream.getvalue()
    [outcome] = runner.run_jobs([replace(graph, overrides=automatic.overrides)], num_workers=1, display=Display(None))
    assert outcome.reason == "CaptureFailed: the step of method x cannot be captured"


def test_a_job_that_finds_no_memory_beside_others_is_started_last_in_its_own_process(tmp_path, monkeypatch):
    started = []

    class Ended(Member):
        pid, is_broken = 7, False

        def __init__(self):
            pass

        def poll(self):
            return 1

    def start(self, job, slot):
        alone = job.run.directory in self.alone
        started.append((job.config.seed, alone))
        error = "not this time" if alone else "OutOfMemoryError: CUDA out of memory"
        job.run.directory.mkdir(parents=True, exist_ok=True)
        job.run.files.status.write_text(json.dumps({"process": 7, "error": error}))
        own = SimpleNamespace(pid=7, returncode=1, poll=lambda: 1)
        return places.Worker(job, slot, own if alone else Ended())

    monkeypatch.setattr(places.Places, "start", start)
    jobs = make_jobs(tmp_path, *(["method=ce", "device=cpu", f"seed={seed}"] for seed in (0, 1)))
    outcomes = runner.run_jobs(jobs, num_workers=1, together=True, display=Display(None))
    assert started == [(0, False), (1, False), (0, True), (1, True)]
    assert [outcome.reason for outcome in outcomes] == ["not this time"] * 2


@pytest.fixture
def saving_job(tmp_path, monkeypatch):
    """A job in place of train.py that writes "ready" when it runs and "saved" when it is told to end."""
    (tmp_path / "train.py").write_text(
        "import pathlib, signal, sys, time\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "def save(*_):\n"
        "    time.sleep(0.5)\n"
        "    (place / 'saved').touch()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "(place / 'ready').touch()\n"
        "time.sleep(300)\n"
    )
    monkeypatch.setattr(places, "TRAIN", tmp_path / "train.py")


@pytest.mark.usefixtures("saving_job")
def test_when_the_time_is_up_running_jobs_save_and_no_other_starts(tmp_path, monkeypatch):
    jobs = [[f"output_root={tmp_path}/outputs", "device=cpu", f"seed={seed}"] for seed in (0, 1)]
    late = runner.run_sweep(jobs, minutes=1e-9, display=Display(None))
    assert [(outcome.status, outcome.reason) for outcome in late] == [("out of time", "not started")] * 2
    assert exit_code(late) == 124

    is_up = runner._ending
    monkeypatch.setattr(
        runner, "_ending", lambda stop, end: is_up(stop, 0 if (tmp_path / "ready").exists() else float("inf"))
    )
    ran, waited = runner.run_sweep(jobs, num_workers=1, minutes=1000, display=Display(None))
    assert (tmp_path / "saved").exists()
    assert (ran.status, ran.reason) == ("out of time", "goes on from its last checkpoint")
    assert (waited.status, waited.reason) == ("out of time", "not started")


@pytest.mark.usefixtures("saving_job")
def test_an_error_of_the_sweeps_own_lets_its_jobs_save(tmp_path):
    class Breaking(Display):
        def refresh(self, running):
            if (tmp_path / "ready").exists():
                raise RuntimeError("of our own")

    with pytest.raises(RuntimeError, match="of our own"):
        runner.run_sweep([[f"output_root={tmp_path}/outputs", "device=cpu"]], num_workers=1, display=Breaking(None))
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_the_jobs_end_with_a_sweep_that_is_killed(sweep_command, tmp_path):
    main = tmp_path / "outputs" / "main"
    process = subprocess.Popen([*sweep_command, "method=ce", "recipe.epochs=2000"], stdout=subprocess.PIPE, cwd=PROJECT)
    wait_for(lambda: any(path.read_text() for path in main.rglob("metrics.jsonl")))
    process.kill()
    wait_for(lambda: statuses(main)[0]["status"] == "interrupted")
    process.communicate()


def test_summary_and_exit_code(tmp_path):
    one, two, three = make_jobs(tmp_path, ["seed=1"], ["seed=2"], ["seed=3"])
    done, skipped = JobOutcome(one, "done"), JobOutcome(two, "skipped", "finished before")
    failed, stopped = JobOutcome(three, "failed", "loss is nan"), JobOutcome(three, "stopped", "not started")
    late = JobOutcome(three, "out of time", "not started")
    ends = ([done, skipped], [done, failed], [done, stopped], [], [failed, late], [late, stopped])
    assert [exit_code(all_of) for all_of in ends] == [0, 1, 130, 0, 124, 130]
    text = summary([done, done, failed])
    assert text.splitlines()[0] == "1 done, 1 failed"
    assert f"failed: seed=3: loss is nan  [{three.console}]" in text
    assert "the same command again" in text
    assert summary([done]) == "1 done"


def test_progress_is_read_from_the_run_directories(tmp_path):
    [job] = make_jobs(tmp_path, ["method=kd", "recipe.epochs=8"])
    pace = Pace(job)
    assert pace.text() == "teacher resnet8 starts"
    teacher = job.teachers[0].directory
    teacher.mkdir(parents=True)
    metrics = {"epoch": 3, "train/loss": 1.5, "test/accuracy": 40.0}
    (teacher / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    assert pace.text() == "teacher resnet8 epoch 3/8  loss 1.500  test 40.0"
    with open(teacher / "metrics.jsonl", "a") as file:
        file.write(json.dumps(metrics | {"epoch": 4}) + '\n{"epoch": 5, "tr')  # just being written
    assert latest_metrics(teacher)["epoch"] == 4
    assert pace.text().startswith("teacher resnet8 epoch 4/8  loss 1.500  test 40.0  (00:0")
    (teacher / "result.json").write_text("{}")
    assert pace.text() == "student resnet8 starts"
    job.run.directory.mkdir(parents=True)
    validated = metrics | {"validation/accuracy": 30.0}
    (job.run.directory / "metrics.jsonl").write_text(json.dumps(validated) + "\n")
    assert pace.text() == "student resnet8 epoch 3/8  loss 1.500  validation 30.0"


def test_one_run_by_its_settings_on_two_folders_is_refused(tmp_path):
    """Which TinyImageNet is read is no setting: two of them would be one run, and one column of a table two."""
    folders = [tmp_path / name for name in ("one", "other")]
    jobs = make_jobs(tmp_path, *(["dataset=tiny_imagenet_lt", f"dataset.path={path}", "method=ce"] for path in folders))
    with pytest.raises(UserError, match=r"images from .*one.* and .*other.*another dataset\.name"):
        runner.run_jobs(jobs)

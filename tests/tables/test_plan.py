"""The plan of a table: what is done, what is left and how long it takes; reproduce.py from plan to table."""

import json
from dataclasses import replace

import pytest
import yaml

from ltkd.config.compose import compose_values
from ltkd.files import write_json
from ltkd.results.read import SCHEMA_VERSION
from ltkd.tables.file import load_table
from ltkd.tables.plan import Plan, Speeds, job_of, wandb_sweep
from ltkd.tables.table import compose_runs

TABLE = """
name: mine
title: A table
study: tables
base: [teacher=resnet8, student=resnet8, recipe.epochs=2, recipe.warmup_epochs=0]
rows:
  method: {CE: method=ce, KD: method=kd, broken: [method=kd, +student.recipe.learning_rate=1e30], other: null}
columns:
  imbalance factor: {"20": dataset.imbalance_factor=20}
seeds: [0, 1]
baselines: [CE]
"""


@pytest.fixture
def table_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    return path


@pytest.fixture
def runs_of(tmp_path):
    return lambda table: compose_runs(table, [f"output_root={tmp_path}/out", "device=cpu"])


def write_result(run, seconds=0.0, wall=0.0, epochs=2, device="cpu (x)"):
    names = {key: run.names[key] for key in ("dataset", "teacher", "student", "method")}
    write_json(
        run.directory / "result.json",
        {
            "schema_version": SCHEMA_VERSION, "identity": run.identity, **names, "train_seconds": seconds,
            "wall_seconds": wall, "device": device, "accuracy": {"last": {"epoch": epochs}},
        },
    )  # fmt: skip


def test_jobs_by_seed_are_all_cells_of_a_seed_and_then_the_next(table_file, runs_of):
    table = load_table(str(table_file))
    plan = Plan(table, runs_of(table))
    assert [job.label.rpartition(" seed ")[2] for job in plan.jobs()] == ["0", "1"] * 3
    by_seed = plan.jobs(by_seed=True)
    assert [(job.config.seed, job.turn) for job in by_seed] == [(0, 0)] * 3 + [(1, 1)] * 3
    assert [job.label for job in by_seed[:3]] == [job.label for job in plan.jobs()[::2]]


def test_a_table_that_the_time_was_not_enough_for_has_an_exit_code_of_its_own(script, table_file, tmp_path):
    arguments = [f"table={table_file}", f"output_root={tmp_path}/out", "device=cpu", "order=seed", "minutes=0"]
    code, output, _ = script("reproduce", *arguments)
    assert code == 124
    assert "6 out of time" in output


def test_what_is_done_and_what_is_left(table_file, runs_of, tmp_path):
    table = load_table(str(table_file))
    runs = runs_of(table)
    ce, kd, broken = runs[0:2], runs[2:4], runs[4:6]
    write_result(ce[0].student)
    kd[0].student.directory.mkdir(parents=True)
    (kd[0].student.directory / "last.ckpt").write_bytes(b"")
    write_result(kd[1].student)
    (kd[1].student.directory / "result.json").write_text("{")  # damaged: the run will say so
    plan = Plan(table, runs)
    assert plan.states == ["done", "to run", "to resume", "to run", "to run", "to run"]
    assert plan.left == [ce[1], *kd, *broken]
    [teacher] = kd[0].teachers  # once, whoever needs it
    assert [one.directory for one in plan.networks_left] == [
        one.directory for one in (teacher, *(run.student for run in plan.left))
    ]
    write_result(teacher)
    plan = Plan(table, runs)
    assert len(plan.networks_left) == 5
    text = " ".join(plan.text(Speeds(tmp_path, "cpu")).split())
    assert "runs done to resume to run" in text
    assert " all 1 1 4 " in text
    [job] = [job for job in plan.jobs() if job.label == "KD | 20 seed 1"]
    assert job.run.directory == kd[1].student.directory


def test_the_estimate_is_of_finished_runs_of_the_same_kind(table_file, runs_of, tmp_path):
    table = load_table(str(table_file))
    runs = runs_of(table)
    ce, kd = runs[0], runs[2]
    students = [run.student for run in runs]
    estimate = lambda device="cpu": Speeds(tmp_path / "out", device).estimate(students)  # noqa: E731
    assert "unknown: none of the kind" in estimate()
    write_result(ce.student, seconds=30, wall=40)  # 20 seconds an epoch; its process had more to do than train
    assert Speeds(tmp_path / "out", "cpu").of(runs[1].student) == 40
    assert estimate().startswith("6 networks to train, about 01:20 one after the other, and 4 of a kind that has not")
    write_result(kd.student, seconds=600, wall=5, epochs=2)  # resumed: the last process did little of it
    assert estimate() == "6 networks to train, about 41:20 one after the other"
    [teacher] = kd.teachers
    assert Speeds(tmp_path / "out", "cpu").of(teacher) is None
    write_result(teacher, seconds=8)
    assert Speeds(tmp_path / "out", "cpu").of(teacher) == 8
    assert Speeds(tmp_path / "out", "cpu").estimate(students, 2) == (
        "6 networks to train, about 41:20 one after the other, 20:40 or more with 2 at a time"
    )
    assert ", 10:00 or more with 9 at a time" in Speeds(tmp_path / "out", "cpu").estimate(
        students, 9
    )  # one takes that long
    half_done = runs[3].student.directory
    half_done.mkdir(parents=True)
    (half_done / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert Speeds(tmp_path / "out", "cpu").of(runs[3].student) == 600  # nothing to resume from: all over again
    (half_done / "last.ckpt").write_bytes(b"")
    assert Speeds(tmp_path / "out", "cpu").of(runs[3].student) == 300
    two_stages = replace(runs[3].student.network, retraining="crt")  # in which of them it is is not known
    assert Speeds(tmp_path / "out", "cpu").of(replace(runs[3].student, network=two_stages)) == 600
    write_result(ce.student, seconds=1000, device="NVIDIA H100")  # says nothing of a CPU
    assert Speeds(tmp_path / "out", "cpu").of(ce.student) is None


def test_a_job_carries_the_tables_name_row_and_column_to_wandb(table_file, tmp_path):
    table = load_table(str(table_file))
    run = compose_runs(table, [f"output_root={tmp_path}", "wandb.tags=[own]"])[2]
    job = job_of(table, run)
    assert job.overrides[-1] == 'wandb.tags=["own","table mine","KD","20"]'
    assert job.run.identity == run.student.identity
    assert compose_values(*job.overrides)["wandb"]["tags"] == ["own", "table mine", "KD", "20"]


def test_a_sweep_of_wandb_runs_every_cell_and_seed(script, table_file, tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    target = tmp_path / "sweep.yaml"
    code, _, errors = script("wandb_sweep", f"table={table_file}", f"output={target}", "device=cpu")
    assert (code, errors) == (0, "")
    definition = yaml.safe_load(target.read_text())
    table = load_table(str(table_file))
    assert definition["parameters"]["cell"]["values"] == ["CE | 20", "KD | 20", "broken | 20"]
    assert definition["parameters"]["seed"]["values"] == [0, 1]
    assert (definition["method"], definition["project"]) == ("grid", "ltkd")
    assert wandb_sweep(table, [], compose_runs(table)[0].config.wandb)["parameters"] == definition["parameters"]
    # as W&B's agent makes a command of it
    given = {"cell": {"value": "KD | 20"}, "seed": {"value": 1}, "split_seed": {"value": 0}}
    arguments = create_sweep_command_args({"args": given})
    command = create_sweep_command(definition["command"])
    expanded = [one for part in command for one in (arguments["args_no_hyphens"] if "no_hyphens" in part else [part])]
    assert expanded[2:] == [
        "${program}", f"table={table_file}", "jobs=1", "device=cpu", "cell=KD | 20", "seed=1", "split_seed=0",
    ]  # fmt: skip


def test_from_plan_to_table_with_a_cell_that_fails(script, table_file, tmp_path):
    settings = [f"output_root={tmp_path}/out", "device=cpu", "wandb.mode=disabled", "run.threads=1"]

    def reproduce(*more):
        return script("reproduce", f"table={table_file}", *settings, *more)

    code, planned, _ = reproduce("--dry-run")
    assert code == 0
    assert "(table mine): 3 cells, 6 runs" in planned
    assert not (tmp_path / "out").exists()

    code, first, _ = reproduce("jobs=2", "cell=[Cb]*", "seed=0")
    assert code == 1, first
    assert "1 done, 1 failed" in first
    assert "failed: broken | 20 seed 0: student resnet8: loss term" in first
    [result] = [json.loads(path.read_text()) for path in (tmp_path / "out" / "tables").rglob("result.json")]
    rows = [line for line in first.split("\n") if line.startswith("| CE ")]
    assert any(f"{result['accuracy']['last']['all']:.2f}" in row for row in rows)

    code, again, _ = reproduce("cell=CE | 20", "seed=0")
    assert code == 0, again
    assert "started:" not in again

    # the table at the end has what had finished before, also where an override is not for its cell
    code, other, _ = reproduce("cell=KD*", "seed=0", "method.temperature=4")
    assert code == 0, other
    assert "| KD " in other
    _, shown, _ = reproduce("cell=KD*", "seed=0")
    assert any(f"{result['accuracy']['last']['all']:.2f}" in line for line in shown.split("\n") if "| CE " in line)
    assert "CE | 20 seed 1" not in shown  # not asked for, so not missing


def test_a_cell_or_seed_that_the_table_has_not_is_refused_with_those_that_it_has(script, table_file):
    for argument, message in {
        "cell=nothing": "its cells: CE | 20; KD | 20; broken | 20",
        "seed=7": "seed: the table has no 7; its seeds: 0, 1",
        "seed=0,9": "seed: the table has no 9; its seeds: 0, 1",
        "split_seed=3": "split_seed: the table has no 3; its split_seeds: 0",
    }.items():
        code, _, errors = script("reproduce", f"table={table_file}", "--dry-run", argument)
        assert code == 2
        assert message in errors


def test_a_table_whose_data_set_is_not_there_yet_can_be_planned(script, tmp_path):
    path = tmp_path / "later.yaml"
    path.write_text(TABLE.replace("name: mine", "name: later").replace("base: [", "base: [dataset=tiny_imagenet_lt, "))
    table = load_table(str(path))
    plan = Plan(table, compose_runs(table, [f"output_root={tmp_path}/out", f"data_root={tmp_path}"]))
    assert set(plan.states) == {"no data"}
    assert plan.jobs() == []
    assert f"data set tiny_imagenet_lt: {tmp_path}/tiny-imagenet-200 is not there" in plan.text(Speeds(tmp_path, "cpu"))
    places = [f"output_root={tmp_path}/out", f"data_root={tmp_path}"]
    code, output, _ = script("reproduce", f"table={path}", *places)
    assert code == 1
    assert "started:" not in output

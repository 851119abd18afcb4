"""A table whose runs are written by hand, so that every number of its report is known."""

import json

import pytest

from ltkd.files import write_json
from ltkd.results.read import SCHEMA_VERSION
from ltkd.tables.file import load_table
from ltkd.tables.table import compose_runs

GROUPS = ["head", "medium", "tail"]
CLASS_GROUPS = [0] * 3 + [1] * 4 + [2] * 3
CLASS_COUNTS = [124, 88, 63, 45, 32, 23, 16, 12, 8, 6]
TABLE = """
name: mine
title: A table of A & B -> C
study: tables
base: [dataset=digits_lt, teacher=resnet14, student=resnet8, recipe.epochs=4, recipe.warmup_epochs=0]
rows:
  method:
    CE: method=ce
    KD: [method=kd, method.temperature=2]
    paper: null
    LTKD 100%: method=ltkd
seeds: [0, 1, 2]
baselines: [CE, KD, paper]
published:
  a paper:
    - {at: {role: teacher}, tail: 15.28}
    - {at: {method: KD}, all: 51, tail: 20.5}
    - {at: {method: paper}, all: 55.5}
notes: Of no consequence.
"""
# all / head / medium / tail of the seeds 0, 1, 2; the best baseline overall is KD, at the tail it is CE
ACCURACY = {
    "CE": [(40, 60, 40, 20), (42, 62, 40, 24), (41, 61, 40, 22)],
    "KD": [(50, 80, 60, 10), (51, 81, 60, 12), (55, 85, 60, 11)],
    "LTKD 100%": [(53, 70, 58, 31), (55, 71, 58, 36), (58, 72, 58, 32)],
}


@pytest.fixture
def make_table(tmp_path):
    def make(content=TABLE):
        path = tmp_path / "mine.yaml"
        path.write_text(content)
        return load_table(str(path))

    return make


@pytest.fixture
def make_runs(tmp_path):
    return lambda table: compose_runs(table, [f"output_root={tmp_path}/out"])


def write_result(run, figures, **changes):
    """result.json and metrics.jsonl of a run; `figures` are all, head, medium, tail in %."""
    overall, *groups = figures
    record = {
        "epoch": 4, "all": overall, "per_group": dict(zip(GROUPS, groups, strict=True)),
        "per_class": [groups[group] for group in CLASS_GROUPS],
        "group_mass": {"head": 50.0, "medium": 30.0, "tail": 20.0},
    }  # fmt: skip
    accuracy = {"last": record, "best": record | {"all": overall + 1}, "selected": None}
    teacher_accuracy = {"last": record | {"all": 66.0, "per_group": {"head": 90.0, "medium": 70.0, "tail": 16.0}}}
    teacher = run.teachers[0] if run.teachers else None
    result = {
        "schema_version": SCHEMA_VERSION, **run.student.names, "accuracy": accuracy, "group_names": GROUPS,
        "class_counts": CLASS_COUNTS, "groups": CLASS_GROUPS, "split_sha256": f"split {run.split_seed}",
        "teacher_result": teacher and {
            "hash": teacher.hash, "cell": teacher.cell, "seed": teacher.seed, "directory": str(teacher.directory),
            "accuracy": teacher_accuracy, "parameters": 9, "evaluate_every": 1, "weights_sha256": "t", "post_hoc": None,
        },
        "post_hoc": {
            "logit_adjusted": {"tau": 1.0, "chosen_by": "default", "test": record | {"all": overall + 7.0}},
            "tau_normalized": None,
        },
        "directory": str(run.student.directory), "parameters": 7, "multiply_adds": 8, "train_seconds": 1800.0,
        "wall_seconds": 2000.0, "images_per_second": 100.0, "device": "cpu (test)", "threads": 1,
        "versions": {"ltkd": "0.1.0", "torch": "2.6"}, "git": {"commit": "0123456789abcdef", "modified": False},
        "finished": "2026-01-02T03:04:05+00:00", "weights_sha256": "w", "identity": run.student.identity,
        "evaluate_every": 1, **changes,
    }  # fmt: skip
    write_json(run.student.directory / "result.json", result)
    lines = [_metrics(epoch, overall, groups, teacher is not None) for epoch in (1, 2, 3, 4)]
    (run.student.directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _metrics(epoch, overall, groups, has_teacher):
    line = {"epoch": epoch, "test/accuracy": overall * epoch / 4}
    for group, accuracy in zip(GROUPS, groups, strict=True):
        line[f"test/accuracy/{group}"] = accuracy * epoch / 4
        for metric in ("test/group_mass", "train/group_mass/student"):
            line[f"{metric}/{group}"] = 20.0 + epoch
        if has_teacher:
            line[f"train/group_mass/teacher/{group}"] = 33.0
    return line


@pytest.fixture
def finished(make_table, make_runs):
    """The table and its runs, all of them finished."""
    table = make_table()
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    return table, runs

"""scripts/report.py and scripts/ledger.py as a user types them, on runs that were trained."""

import csv
import os
import subprocess
import sys

from ltkd.results.collect import collect
from ltkd.results.summary import summary_rows
from ltkd.runs.run import run_experiment
from ltkd.tables.file import load_table
from ltkd.tables.table import compose_runs

from ..conftest import PROJECT

TABLE = """
name: tiny
title: Tiny
study: tiny
base: [teacher=resnet8, student=resnet8, recipe.epochs=1, recipe.warmup_epochs=0]
rows: {method: {CE: method=ce, LTKD: method=ltkd}}
seeds: [0, 1]
baselines: [CE]
"""


def test_a_report_of_trained_runs_names_what_is_missing_and_agrees_with_the_quick_table(script, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TABLE)
    settings = [
        f"output_root={tmp_path}/out",
        "wandb.mode=disabled",
        "run.threads=1",
        "run.progress=none",
        "device=cpu",
    ]
    *first, last = compose_runs(load_table(str(path)), settings)
    for run in first:
        run_experiment(run.config)
    code, output, _ = script("report", f"table={path}", *settings)
    assert code == 1
    assert "LTKD seed 1: not started\n" in output

    run_experiment(last.config)
    code, _, errors = script("report", f"table={path}", *settings, f"output={tmp_path}/report")
    assert (code, errors) == (0, "")
    assert (tmp_path / "report" / "report.html").is_file()
    assert {file.stem for file in (tmp_path / "report" / "figures").iterdir()} == {
        "groups",
        "classes",
        "curves",
        "bias",
    }
    rows = {row["method"]: row for row in csv.DictReader((tmp_path / "report" / "table.csv").open())}
    expected = {row["method"]: row for row in summary_rows(collect([tmp_path / "out" / "tiny"]).cells, "last")}
    for row, method in {"CE": "ce", "LTKD": "ltkd", "teacher resnet8": "teacher"}.items():
        for figure in ("n", "all", "all std", "tail", "tail std"):
            assert rows[row][figure] == str("" if expected[method][figure] is None else expected[method][figure])
    assert rows["LTKD"]["all logit_adjusted"]


def test_bad_input_is_one_message(script):
    for arguments, message in {
        ("table=digits_component",): "did you mean 'digits_components'",
        ("recipe.epochs=2",): "table: missing; add table=NAME",
        ("table=digits_components", "seed=3"): "seed: the table digits_components says it",
        ("table=digits_components", "method.temprature=3"): "temprature",
    }.items():
        for name in ("report", "ledger"):
            code, output, errors = script(name, *arguments)
            assert (code, output) == (2, "")
            assert errors.startswith("error: ")
            assert message in errors


def test_a_check_is_not_mixed_with_what_writes(script):
    for others in (["table=digits_components"], ["--write"], ["recipe.epochs=2"]):
        code, output, errors = script("ledger", "--check", *others)
        assert (code, output) == (2, "")
        assert "--check: writes nothing and stands alone" in errors


def test_help_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    for name in ("report", "ledger"):
        command = [sys.executable, f"scripts/{name}.py", "--help"]
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT / 'src'}"}
        shown = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"python scripts/{name}.py table=" in shown.stdout


def test_the_readme_check_passes(script):
    code, output, _ = script("ledger", "--check")
    assert code == 0
    assert "agree" in output


def test_a_plan_for_gpus_can_be_read_where_they_are_not(script, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TABLE)
    code, plan, error = script(
        "reproduce", f"table={path}", f"output_root={tmp_path}/out", "devices=90,91", "device=cpu", "--dry-run"
    )
    assert (code, error) == (0, "")
    assert "2 cells, 4 runs" in plan

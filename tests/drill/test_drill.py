"""The drill finds nothing in the program, and finds the faults of a stand-in for it."""

import json
from pathlib import Path
from random import Random

import pytest

from ltkd.drill import kills, misuse, process
from ltkd.drill.bad_inputs import BAD_INPUTS
from ltkd.drill.crowds import two_on_one_run
from ltkd.drill.report import Report
from ltkd.drill.subjects import TINY, Subject
from ltkd.results.files import RunFiles

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


@pytest.fixture
def report():
    return Report(lambda text: None)


@pytest.fixture
def whole(monkeypatch):
    """Every process is started anew: the stand-in needs no torch."""
    monkeypatch.setattr(process, "WHOLE_EVERY", 1)


def subject(*command):
    """A command of one phase, which ends with its result."""

    def phase(outputs):
        return None if any(files.result.exists() for files in RunFiles.below(outputs)) else "steps"

    return Subject("one run", lambda outputs: [*command, f"output_root={outputs}"], ("steps",), phase)


def test_the_program_as_it_is(tmp_path, report, monkeypatch):
    """A little of the drill; the whole is for `make drill`."""
    monkeypatch.setattr(kills, "KILLS_OF_A_LIFE", 1)
    run = subject("src/train.py", *TINY, "method=ce", "recipe.epochs=1")
    kills.Killer(run, tmp_path, Random(0), report).run(1)
    misuse.misuse(tmp_path, {"unknown key": BAD_INPUTS["unknown key"]}, report)
    two_on_one_run(run, tmp_path / "two", report)
    assert report.passed, report.text({})
    assert [row.tried for row in report.rows.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("none", None),
        ("deaf", "exit code 0"),
        ("odd", "exit code 1"),
        ("forgets", "other than undisturbed: run/weights.safetensors"),
        ("litters", "other than undisturbed: run/last.ckpt"),
    ],
)
def test_a_fault_in_the_answer_to_a_kill_is_found(fault, said, tmp_path, report, whole):
    kills.Killer(subject(STAND_IN, fault), tmp_path, Random(0), report).run(3)
    row = report.rows["killed in the steps"]
    assert row.tried >= 3
    assert (row.good == row.tried) == (said is None)
    assert said is None or any(said in failure for failure in row.failures)


@pytest.mark.parametrize(
    ("code", "lines", "said"),
    [
        ("2", "1", None),
        ("1", "1", "input: exit code 1;"),
        ("0", "1", "input: exit code 0;"),
        ("2", "0", "0 lines on standard error"),
        ("2", "2", "2 lines on standard error"),
        ("writes", "1", "wrote weights.safetensors"),
    ],
)
def test_a_fault_in_the_answer_to_bad_input_is_found(code, lines, said, tmp_path, report, whole, monkeypatch):
    monkeypatch.setattr(misuse, "takes_settings", lambda script: True)
    misuse.misuse(tmp_path, {"input": [STAND_IN, "refuses", code, lines]}, report)
    row = report.rows["bad input"]
    assert row.tried == 1
    assert row.failures == [] if said is None else said in row.failures[0]


def test_the_table_counts_and_the_failures_say_how_to_see_them_again(tmp_path, report):
    report.count("a", None, times=3)
    report.count("a", "no; command: x")
    report.row("b").notes.append("not allowed here")
    assert not report.passed
    report.write(tmp_path, {"commit": "c"})
    text = (tmp_path / "drill.md").read_text()
    assert "| a      |          4 |                 3 |" in text
    assert "| b      |  not tried |                 0 | not allowed here |" in text
    assert "- a: no; command: x" in text
    rows = json.loads((tmp_path / "drill.json").read_text())["rows"]
    assert (rows["a"]["tried"], rows["a"]["good"]) == (4, 3)

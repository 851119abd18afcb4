"""The catalogue lists what is registered, with figures that are counted."""

import sys

import pytest

from ltkd.commands.catalogue import method_rows, models_table, show, task_losses_table
from ltkd.methods import list_methods, method_class
from ltkd.models import list_models
from ltkd.task_losses import list_task_losses

from ..conftest import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import methods_page


@pytest.fixture(scope="module")
def rows():
    return {row["name"]: row for row in method_rows("resnet20", "resnet8")}


def test_every_method_has_a_row_with_its_figures(rows):
    assert list(rows) == list_methods()
    for name, row in rows.items():
        assert row["paper"] == method_class(name).paper
        assert row["cost"] > 0
    assert rows["ce"]["teacher"] == "none"
    assert rows["kd"] | {"paper": ""} == {
        "name": "kd", "paper": "", "needs": "logits", "teacher": "cached", "parameters": 0, "cost": 1.0,
    }  # fmt: skip


def test_cost_is_the_arithmetic_of_the_step(rows):
    # resnet8 forward and backward (its first layer needs no gradient to the images) against the same and resnet20
    student, teacher, first_layer = 12.5, 40.8, 0.44
    expected = (3 * student - first_layer) / (3 * student - first_layer + teacher)
    assert rows["ce"]["cost"] == pytest.approx(expected, rel=0.01)


def test_the_other_tables_list_the_registries():
    networks, losses = models_table(), task_losses_table()
    assert "83,892 |                  12.5 M |" in next(line for line in networks.splitlines() if "| resnet8 " in line)
    assert all(f"| {name} " in networks for name in list_models())
    assert all(f"| {name} " in losses for name in list_task_losses())


def test_the_list_counts_no_step_unless_a_pair_is_named(monkeypatch, capsys):
    counted = []
    monkeypatch.setattr("ltkd.commands.catalogue.method_rows", lambda *pair: counted.append(pair) or [])
    monkeypatch.setattr("ltkd.commands.catalogue._table", lambda rows, headers: str(rows))
    assert show(["--list"]) == 0
    assert not counted
    text = capsys.readouterr().out
    assert all(f"['{name}', " in text for name in list_methods())
    assert show(["--list", "student=resnet20"]) == 0
    assert counted == [("resnet32x4", "resnet20")]


def test_wrong_arguments_are_one_message(capsys):
    assert show(["--list", "method=kd"]) == 2
    assert "takes teacher=NAME and student=NAME" in capsys.readouterr().err
    assert show(["--list", "teacher=nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_the_methods_page_is_up_to_date():
    assert methods_page.page() == (PROJECT / "docs/methods.md").read_text(), "run python scripts/methods_page.py"

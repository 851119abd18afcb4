"""The catalogue lists what is registered, with figures that are counted."""

import os
import re
import subprocess
import sys

import pytest

from ltkd.commands import catalogue, listing
from ltkd.commands.catalogue import method_rows, models_table, task_losses_table
from ltkd.commands.listing import page_tables, show
from ltkd.errors import UserError
from ltkd.methods import list_methods, method_class
from ltkd.models import list_models
from ltkd.task_losses import list_task_losses

from ..conftest import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import methods_page


@pytest.fixture(scope="module")
def counted():
    """The rows of the page's own pair: counting them takes most of the time here."""
    return method_rows("resnet32x4", "resnet8x4")


@pytest.fixture
def rows(counted):
    return {row["name"]: row for row in counted}


def test_every_method_has_a_row_with_its_figures(rows):
    assert list(rows) == list_methods()
    for name, row in rows.items():
        assert row["paper"] == method_class(name).paper
        assert row["fidelity"] == method_class(name).fidelity
        assert row["cost"] > 0
    assert rows["ce"]["teacher"] == "none"
    assert rows["kd"] | {"paper": ""} == {
        "name": "kd", "paper": "", "fidelity": "faithful", "needs": "logits", "teacher": "cached", "parameters": 0,
        "cost": 1.0,
    }  # fmt: skip


def test_cost_is_the_arithmetic_of_the_step(rows):
    # the student forward and backward (its first layer has no gradient to the images) against the same and the teacher
    student, teacher, first_layer = 177.1, 1083.0, 27 * 32 * 32**2 / 1e6
    expected = (3 * student - first_layer) / (3 * student - first_layer + teacher)
    assert rows["ce"]["cost"] == pytest.approx(expected, rel=0.01)


def test_the_other_tables_list_the_registries():
    networks, losses = models_table(), task_losses_table()
    assert "83,892 |                  12.5 M |" in next(line for line in networks.splitlines() if "| resnet8 " in line)
    assert all(f"| {name} " in networks for name in list_models())
    assert all(f"| {name} " in losses for name in list_task_losses())


def test_the_list_needs_no_torch_and_counts_for_a_pair_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT / 'src'}"}
    command = [sys.executable, "src/train.py", "--list"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    names = [line.split("|")[1].strip() for line in shown.stdout.splitlines() if line.startswith("|")]
    assert {*list_methods(), *list_task_losses(), *list_models()} <= set(names)
    assert "Extra parameters and cost are those of resnet32x4 -> resnet8x4" in shown.stdout

    counted = []
    monkeypatch.setattr("ltkd.commands.catalogue.methods_table", lambda *pair: counted.append(pair) or "counted")
    assert show(["--list", "student=resnet20"]) == 0
    assert counted == [("resnet32x4", "resnet20")]
    assert capsys.readouterr().out.startswith("counted\n")


def test_a_list_that_lacks_a_method_is_refused(tmp_path, monkeypatch):
    page = tmp_path / "methods.md"
    page.write_text(re.sub(r"^\| kd .*\n", "", listing.PAGE.read_text(), flags=re.MULTILINE))
    monkeypatch.setattr(listing, "PAGE", page)
    with pytest.raises(UserError, match=r"not up to date \(kd\); write it anew: python scripts/methods_page.py"):
        page_tables()


def test_wrong_arguments_are_one_message(capsys):
    assert show(["--list", "method=kd"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown argument 'method=kd'; options: ")
    assert show(["--list", "teacher=nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_the_methods_page_is_up_to_date(counted, monkeypatch):
    monkeypatch.setattr(catalogue, "method_rows", lambda *pair: {("resnet32x4", "resnet8x4"): counted}[pair])
    assert methods_page.page() == (PROJECT / "docs/methods.md").read_text(), "run python scripts/methods_page.py"

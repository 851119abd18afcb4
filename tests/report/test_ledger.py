"""The ledger: what is kept of a run, tables made from it, and that the pages say what the ledger says."""

import json
import re

import pytest

from ltkd.errors import UserError
from ltkd.report import entries_of, ledger, make_report
from ltkd.report.ledger import LEDGER, OPENING, PAGES, ledger_entries, record, with_tables
from ltkd.report.text import markdown
from ltkd.tables.table import compose_runs

from .conftest import ACCURACY, TABLE, write_result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_and_ledger_agree(page):
    """Every marked table of a page is what the ledger makes of it: python scripts/ledger.py --write."""
    text = page.read_text(encoding="utf-8")
    assert OPENING in text  # or nothing would be compared
    assert with_tables(text) == text


def test_every_file_of_the_ledger_is_small_and_in_its_table():
    for path in LEDGER.glob("*/*.json"):
        assert path.stat().st_size < 20_000, path
        assert not re.search(r'": "/', path.read_text()), f"{path} has a place on somebody's machine"
    for folder in LEDGER.glob("*/"):
        table = ledger.load_table(folder.name)
        assert [entry for entry in ledger_entries(table) if entry.result], folder


@pytest.fixture
def recorded(finished, tmp_path):
    table, runs = finished
    written = record(table, entries_of(runs), tmp_path / "out", tmp_path / "ledger")
    return table, runs, written


def test_a_table_from_the_ledger_is_the_table_from_the_runs(recorded, tmp_path):
    table, runs, written = recorded
    assert len(written) == 9
    assert written[3].name.startswith("kd-s0-")
    content = json.loads(written[3].read_text())
    assert "per_class" not in content["accuracy"]["last"]
    assert content["directory"] == f"tables/digits_lt-if20/resnet14-resnet8/kd/{runs[3].student.directory.name}"
    assert not re.search(r'": "/', written[3].read_text())
    from_ledger = make_report(table, ledger_entries(table, tmp_path / "ledger"))
    assert markdown(from_ledger) == markdown(make_report(table, entries_of(runs)))


def test_recording_again_replaces_the_same_cell_and_keeps_the_others(recorded, tmp_path):
    table, runs, written = recorded
    write_result(runs[3], (99, 99, 99, 99))
    [entry] = entries_of(runs[3:4])
    moved = written[3].rename(written[3].with_name("kd-of-another-configuration.json"))
    record(table, [entry], tmp_path / "out", tmp_path / "ledger")
    assert not moved.exists()
    assert len(list(written[3].parent.glob("*.json"))) == 9
    values = [e.result["accuracy"]["last"]["all"] for e in ledger_entries(table, tmp_path / "ledger")]
    assert values == [40, 42, 41, 99, 51, 55, 53, 55, 58]


def test_runs_of_other_settings_than_the_tables_are_not_recorded(finished, tmp_path):
    table, runs = finished
    changed = compose_runs(table, [f"output_root={tmp_path}/out", "recipe.epochs=5", "run.threads=1", "device=cpu"])
    write_result(changed[3], (99, 99, 99, 99))
    entries = entries_of([*runs[:3], changed[3], *runs[4:]])
    with pytest.raises(UserError, match="table mine, KD seed 0: its run is not what the table's file says"):
        record(table, entries, tmp_path / "out", tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()


def test_kept_runs_of_another_configuration_than_the_tables_are_an_error(recorded, make_table, tmp_path, monkeypatch):
    _, _, written = recorded
    changed = make_table(TABLE.replace("method.temperature=2", "method.temperature=3"))
    with pytest.raises(
        UserError, match=f"{written[3].name}: is a run of another configuration than table mine has now"
    ):
        ledger_entries(changed, tmp_path / "ledger")
    monkeypatch.setattr(ledger, "load_table", lambda name: changed)
    with pytest.raises(UserError, match="run it again"):
        with_tables("<!-- table:mine -->\n<!-- end -->\n", tmp_path / "ledger")
    only_in_words = make_table(TABLE.replace("Of no consequence.", "Other words."))
    assert len(ledger_entries(only_in_words, tmp_path / "ledger")) == 9


def test_what_the_table_does_not_know_is_an_error_and_what_it_lacks_is_missing(recorded, make_table, tmp_path):
    table, _, written = recorded
    written[0].unlink()
    report = make_report(table, ledger_entries(table, tmp_path / "ledger"))
    assert report.missing == ["CE seed 0: not in the ledger"]
    content = json.loads(written[1].read_text())
    content["cell_of_table"]["row"]["method"] = "gone"
    written[1].write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no such cell or seed"):
        ledger_entries(table, tmp_path / "ledger")


def test_marked_tables_are_written_and_the_rest_is_left_alone(recorded, tmp_path, monkeypatch):
    table, runs, _ = recorded
    monkeypatch.setattr(ledger, "load_table", lambda name: table)
    text = (
        "# Title\n\n<!-- table:mine -->\nOLD\n<!-- end -->\n\nbetween\n<!-- table:mine differences -->\n<!-- end -->\n"
    )
    made = with_tables(text, tmp_path / "ledger")
    first, second = made.split("between\n")
    assert made.startswith("# Title\n\n<!-- table:mine -->\n| method")
    assert "OLD" not in made
    assert "| 52.00 ± 2.65 |" in first
    assert "coarse" not in first
    assert "+3.33; [+3.00, +4.00]" in second
    assert "with 3 pairs it is coarse" in second.lower()
    assert "reproduce.py table=mine` (cpu (test); commit 0123456789" in first
    assert with_tables(made, tmp_path / "ledger") == made
    corrected = with_tables("<!-- table:mine logit_adjusted -->\n<!-- end -->\n", tmp_path / "ledger")
    assert "| 59.00 ± 2.65 |" in corrected  # 7 more, see conftest
    assert "logits adjusted post hoc" in corrected
    assert "52.00" not in corrected
    write_result(runs[3], (99, *ACCURACY["KD"][0][1:]))
    record(table, entries_of(runs), tmp_path / "out", tmp_path / "ledger")
    assert with_tables(made, tmp_path / "ledger") != made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:mine -->\n", "has no <!-- end -->"),
        ("<!-- table:mine -->\n<!-- table:mine -->\n<!-- end -->\n", "has no <!-- end -->"),
        ("<!-- table:mine -->\n<!-- end -->\n", "not in the ledger"),
        ("<!-- table:mine difference -->\n<!-- end -->\n", "table mine: 'difference' beside its name; known"),
    ],
)
def test_a_mistake_in_the_marks_is_named(make_table, tmp_path, monkeypatch, text, message):
    table = make_table()
    monkeypatch.setattr(ledger, "load_table", lambda name: table)
    with pytest.raises(UserError, match=message):
        with_tables(text, tmp_path / "ledger")


def test_text_without_a_table_is_as_it_was(tmp_path):
    assert with_tables("# Title\n", tmp_path) == "# Title\n"


def test_a_correction_that_the_table_itself_has_is_named(recorded, make_table, tmp_path, monkeypatch):
    corrected = make_table(TABLE + "accuracy: logit_adjusted\n")
    monkeypatch.setattr(ledger, "load_table", lambda name: corrected)
    with pytest.raises(UserError, match="table mine: its own figures are logit_adjusted"):
        with_tables("<!-- table:mine logit_adjusted -->\n<!-- end -->\n", tmp_path / "ledger")


def test_a_correction_that_no_run_has_is_named(recorded, tmp_path, monkeypatch):
    table, _, _ = recorded
    monkeypatch.setattr(ledger, "load_table", lambda name: table)
    with pytest.raises(UserError, match="table mine: none of its runs has tau_normalized figures"):
        with_tables("<!-- table:mine tau_normalized -->\n<!-- end -->\n", tmp_path / "ledger")

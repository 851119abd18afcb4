"""The ledger: what is kept of a run, tables made from it, and that the pages say what the ledger says."""

import json
import re

import pytest

from ltkd.errors import UserError
from ltkd.report import entries_of, ledger, make_report, write_report
from ltkd.report.ledger import (
    LEDGER,
    OPENING,
    PAGES,
    ledger_entries,
    read_ledger,
    record,
    trained_or_kept,
    with_tables,
)
from ltkd.report.markdown import markdown, readme_table
from ltkd.tables.table import compose_runs

from .conftest import ACCURACY, TABLE, write_result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_and_ledger_agree(page):
    """Every marked table of a page is what the ledger makes of it: python scripts/ledger.py --write."""
    text = page.read_text(encoding="utf-8")
    assert OPENING in text  # or nothing would be compared
    assert with_tables(text) == text


def test_the_ledger_has_a_run_once_and_in_its_tables():
    lines = LEDGER.read_text().splitlines()
    assert len(read_ledger()) == len(lines)
    for line in lines:
        assert len(line) < 10_000, line[:100]
        assert not re.search(r'": "/', line), f"a place on somebody's machine: {line[:100]}"
    for name in {name for result in read_ledger().values() for name in result["tables"]}:
        recorded = [result for result in read_ledger().values() if name in result["tables"]]
        found = [entry.result for entry in ledger_entries(ledger.load_table(name)) if entry.result]
        assert sorted(one["hash"] for one in found) == sorted(one["hash"] for one in recorded)


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def recorded(finished, tmp_path, kept):
    table, runs = finished
    assert record(table, entries_of(runs), tmp_path / "out", kept) == 9
    return table, runs


def test_a_table_from_the_ledger_is_the_table_from_the_runs(recorded, kept):
    table, runs = recorded
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(lines) == 9
    [kd] = [line for line in lines if line["hash"] == runs[3].student.hash]
    assert kd["tables"] == ["mine"]
    assert "per_class" not in kd["accuracy"]["last"]
    assert kd["directory"] == f"tables/digits_lt-if20/resnet14-resnet8/kd/{runs[3].student.directory.name}"
    assert not re.search(r'": "/', kept.read_text())
    from_ledger = make_report(table, ledger_entries(table, ledger=kept))
    assert markdown(from_ledger) == markdown(make_report(table, entries_of(runs)))


def test_a_page_says_who_trained_on_validation_images_and_whose_code_differs(finished, tmp_path, kept):
    table, runs = finished
    earlier = {"git": {"commit": "fedcba9876543210", "modified": False}}  # a session before the one that ended the run
    changed = {"sessions": [earlier], "learned_from_validation": True}
    write_result(runs[3], ACCURACY["KD"][runs[3].seed], **changed)
    record(table, entries_of(runs), tmp_path / "out", kept)
    page = readme_table(make_report(table, ledger_entries(table, ledger=kept)), differences=False)
    assert "Trained on the images of the validation split too, unlike the other rows: KD." in page
    assert "Runs of several commits in one row: KD." in page


def test_recording_again_replaces_the_same_run_and_keeps_the_others(recorded, kept, tmp_path):
    table, runs = recorded
    write_result(runs[3], (99, 99, 99, 99))
    record(table, entries_of(runs[3:4]), tmp_path / "out", kept)
    assert len(kept.read_text().splitlines()) == 9
    values = [e.result["accuracy"]["last"]["all"] for e in ledger_entries(table, ledger=kept)]
    assert values == [40, 42, 41, 99, 51, 55, 53, 55, 58]


def test_a_run_of_two_tables_has_one_line_and_goes_when_no_table_has_it(recorded, make_table, kept, tmp_path):
    _, runs = recorded
    other = tmp_path / "other.yaml"
    other.write_text(TABLE.replace("name: mine", "name: other"))
    other = ledger.load_table(str(other))
    settings = [f"output_root={tmp_path}/out"]
    record(other, entries_of(compose_runs(other, settings)), tmp_path / "out", kept)
    assert [result["tables"] for result in read_ledger(kept).values()] == [["mine", "other"]] * 9
    changed = make_table(TABLE.replace("method.temperature=2", "method.temperature=3"))
    record(changed, [], tmp_path / "out", kept)
    hashes = {run.student.hash for run in runs[3:6]}
    for result in read_ledger(kept).values():
        assert result["tables"] == (["other"] if result["hash"] in hashes else ["mine", "other"])
    fewer = tmp_path / "other.yaml"
    fewer.write_text(TABLE.replace("name: mine", "name: other").replace("method.temperature=2", "method.temperature=3"))
    record(ledger.load_table(str(fewer)), [], tmp_path / "out", kept)
    assert hashes.isdisjoint(result["hash"] for result in read_ledger(kept).values())


def test_runs_of_other_settings_than_the_tables_are_not_recorded(finished, kept, tmp_path):
    table, runs = finished
    changed = compose_runs(table, [f"output_root={tmp_path}/out", "recipe.epochs=5", "run.threads=1", "device=cpu"])
    write_result(changed[3], (99, 99, 99, 99))
    entries = entries_of([*runs[:3], changed[3], *runs[4:]])
    with pytest.raises(UserError, match="table mine, KD seed 0: its run is not what the table's file says"):
        record(table, entries, tmp_path / "out", kept)
    assert not kept.exists()


def test_kept_runs_of_another_configuration_than_the_tables_are_an_error(recorded, make_table, kept, monkeypatch):
    _, runs = recorded
    changed = make_table(TABLE.replace("method.temperature=2", "method.temperature=3"))
    names = "|".join(run.student.directory.name for run in runs[3:6])
    with pytest.raises(UserError, match=f"/({names}) is a run of another configuration than table mine has now"):
        ledger_entries(changed, ledger=kept)
    monkeypatch.setattr(ledger, "load_table", lambda name: changed)
    with pytest.raises(UserError, match="run it again"):
        with_tables("<!-- table:mine -->\n<!-- end -->\n", kept)
    only_in_words = make_table(TABLE.replace("Of no consequence.", "Other words."))
    assert len(ledger_entries(only_in_words, ledger=kept)) == 9


def test_what_the_ledger_lacks_is_missing_and_a_damaged_line_is_named(recorded, kept):
    table, runs = recorded
    lines = kept.read_text().splitlines()
    kept.write_text("".join(f"{line}\n" for line in lines if f'"{runs[0].student.hash}"' not in line))
    report = make_report(table, ledger_entries(table, ledger=kept))
    assert report.missing == ["CE seed 0: not in the ledger"]
    kept.write_text("\n".join([*lines[:2], lines[2][:50], *lines[3:]]))
    with pytest.raises(UserError, match=r"ledger.jsonl: line 3 is damaged"):
        ledger_entries(table, ledger=kept)


def test_without_any_run_of_its_own_a_report_is_of_the_ledgers(recorded, kept, tmp_path):
    table, runs = recorded
    assert trained_or_kept(table, runs, kept) == (entries_of(runs), "")
    elsewhere = compose_runs(table, [f"output_root={tmp_path}/elsewhere"])
    entries, source = trained_or_kept(table, elsewhere, kept)
    assert source.startswith("kept in outputs/ledger.jsonl, since none of the table's has finished in ")
    report = make_report(table, entries, source=source)
    own = make_report(table, entries_of(runs))
    assert [row.values for row in report.columns[0].rows] == [row.values for row in own.columns[0].rows]
    [page, *_] = write_report(report, tmp_path / "report")
    assert "<dt>runs</dt><dd>kept in outputs/ledger.jsonl" in page.read_text()
    assert page.read_text().count("<figure>") == 1  # the ledger keeps neither classes nor curves
    # of other settings than those of the kept runs there is nothing
    changed = compose_runs(table, [f"output_root={tmp_path}/elsewhere", "recipe.epochs=5"])
    assert [entry.result for entry in trained_or_kept(table, changed, kept)[0]] == [None] * 9


def test_marked_tables_are_written_and_the_rest_is_left_alone(recorded, kept, tmp_path, monkeypatch):
    table, runs = recorded
    monkeypatch.setattr(ledger, "load_table", lambda name: table)
    text = (
        "# Title\n\n<!-- table:mine -->\nOLD\n<!-- end -->\n\nbetween\n<!-- table:mine differences -->\n<!-- end -->\n"
    )
    made = with_tables(text, kept)
    first, second = made.split("between\n")
    assert made.startswith("# Title\n\n<!-- table:mine -->\n| method")
    assert "OLD" not in made
    assert "| 52.00 ± 2.65 |" in first
    assert "Student" not in first
    assert "+3.33; [+1.90, +4.77]" in second
    assert "Student's 95 % interval" in second
    assert "reproduce.py table=mine` (cpu (test); commit 0123456789" in first
    assert with_tables(made, kept) == made
    corrected = with_tables("<!-- table:mine logit_adjusted -->\n<!-- end -->\n", kept)
    assert " 59.00 ± 2.65 |" in corrected  # 7 more, see conftest
    assert "logits adjusted post hoc" in corrected
    assert "all, corrected" in corrected
    assert "| 52.00 ± 2.65 |" in corrected  # the raw accuracy beside it
    write_result(runs[3], (99, *ACCURACY["KD"][0][1:]))
    record(table, entries_of(runs), tmp_path / "out", kept)
    assert with_tables(made, kept) != made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:mine -->\n", "has no <!-- end -->"),
        ("<!-- table:mine -->\n<!-- table:mine -->\n<!-- end -->\n", "has no <!-- end -->"),
        ("<!-- table:mine -->\n<!-- end -->\n", "not in the ledger"),
        ("<!-- table:mine difference -->\n<!-- end -->\n", "table mine: 'difference' beside its name; known"),
    ],
)
def test_a_mistake_in_the_marks_is_named(make_table, kept, monkeypatch, text, message):
    table = make_table()
    monkeypatch.setattr(ledger, "load_table", lambda name: table)
    with pytest.raises(UserError, match=message):
        with_tables(text, kept)


def test_text_without_a_table_is_as_it_was(tmp_path):
    assert with_tables("# Title\n", tmp_path) == "# Title\n"


def test_a_correction_that_no_run_has_is_named(recorded, kept, monkeypatch):
    table, _ = recorded
    monkeypatch.setattr(ledger, "load_table", lambda name: table)
    with pytest.raises(UserError, match="table mine: none of its runs has tau_normalized accuracies"):
        with_tables("<!-- table:mine tau_normalized -->\n<!-- end -->\n", kept)

"""Groups of classes: a run whose method does not read them is trained once, and reported for those that are asked."""

from ltkd.config.identity import student_run, teacher_run
from ltkd.files import read_json
from ltkd.methods import Method, MethodContext, method_class
from ltkd.report import entries_of, make_report
from ltkd.report.curves import read_metrics
from ltkd.results.collect import collect
from ltkd.results.summary import markdown, summary_rows
from ltkd.runs.run import run_experiment
from ltkd.tables.file import load_table
from ltkd.tables.table import compose_runs

from .killing import killed_after

SHORT = ("recipe.epochs=2", "recipe.warmup_epochs=0", "dataset.validation_per_class=2")
FOR_OTHERS = "dataset.groups=oltr"


def by_group(value):
    """All accuracies per group in a result, in its order."""
    if isinstance(value, dict):
        own = [value["per_group"]] if "per_group" in value else []
        return own + [found for one in value.values() for found in by_group(one)]
    return [found for one in value for found in by_group(one)] if isinstance(value, list) else []


def test_finished_runs_are_given_in_the_groups_that_are_asked_for(make_config, tmp_path, caplog):
    """The figures are those of a run that had these groups from the start, digit for digit; its file stays as it is."""
    caplog.set_level("INFO")
    config = make_config("method=kd", *SHORT)
    first = run_experiment(config)
    kept = read_json(student_run(config).files.result)
    caplog.clear()
    found = run_experiment(make_config("method=kd", FOR_OTHERS, *SHORT))
    assert "finished before, skipped" in caplog.text
    assert "its groups were rank_thirds; per group it is given for oltr" in caplog.text
    direct = run_experiment(make_config("method=kd", FOR_OTHERS, *SHORT, f"output_root={tmp_path}/apart"))
    assert found["group_policy"] == direct["group_policy"] == "oltr"
    assert found["groups"] == direct["groups"] != first["groups"]
    assert by_group(found) == by_group(direct) != by_group(first)
    assert len(by_group(found)) == 20  # last, best, selected, on validation, corrected; of student and teacher
    assert set(found["accuracy"]["last"]["group_mass"].values()) == {None}  # which classes do not tell
    assert read_json(student_run(config).files.result) == kept
    assert (kept["group_policy"], kept["reads_groups"]) == ("rank_thirds", False)


def test_a_teacher_serves_students_of_all_groups(make_config, caplog):
    caplog.set_level("INFO")
    run_experiment(make_config("method=kd", *SHORT))
    config = make_config("method=ltkd", FOR_OTHERS, *SHORT)
    result = run_experiment(config)
    assert "teacher resnet8: reused" in caplog.text
    assert set(result["teacher_result"]["accuracy"]["last"]["per_group"]) == {"many", "medium", "few"}
    assert result["reads_groups"]
    assert read_json(teacher_run(config).files.result)["group_policy"] == "rank_thirds"


def test_a_resumed_run_keeps_its_groups_and_is_given_in_others(make_config, tmp_path, caplog):
    caplog.set_level("INFO")
    whole = run_experiment(make_config("method=ce", *SHORT, f"output_root={tmp_path}/whole"))
    config = make_config("method=ce", *SHORT)
    with killed_after(1):
        run_experiment(config)
    resumed = run_experiment(make_config("method=ce", FOR_OTHERS, *SHORT))
    assert "goes on with the groups that it was begun with, rank_thirds, not oltr" in caplog.text
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["group_policy"] == "oltr"
    files = student_run(config).files
    assert by_group(read_json(files.result)) == by_group(whole)
    assert read_json(files.config)["dataset"]["groups"] == "rank_thirds"
    assert {line.keys() >= {"test/accuracy/head"} for line in read_metrics(files.folder)} == {True}
    assert "test/accuracy/head" not in read_metrics(files.folder, resumed["groups"])[0]


TABLE = """
name: two
title: Two policies
study: main
base: [teacher=resnet8, student=resnet8, recipe.epochs=1, recipe.warmup_epochs=0]
rows: {method: {CE: method=ce, KD: method=kd}}
columns: {groups: {thirds: dataset.groups=rank_thirds, thresholds: dataset.groups=oltr}}
seeds: [0]
baselines: [CE]
"""


def test_a_table_has_one_run_in_columns_of_two_policies(make_config, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TABLE)
    for method in ("ce", "kd"):
        run_experiment(make_config(f"method={method}", "recipe.epochs=1", "recipe.warmup_epochs=0"))
    table = load_table(str(path))
    report = make_report(table, entries_of(compose_runs(table, [f"output_root={tmp_path}/outputs"])))
    assert not report.missing
    thirds, thresholds = report.columns
    assert (thirds.groups, thresholds.groups) == (["head", "medium", "tail"], ["many", "medium", "few"])
    for one, other in zip(thirds.rows, thresholds.rows, strict=True):
        assert one.values["all"].summary == other.values["all"].summary
        assert None not in (one.values["tail"].summary, other.values["few"].summary)


def test_the_quick_table_names_no_groups_where_none_are_read(make_config, tmp_path):
    short = ("recipe.epochs=1", "recipe.warmup_epochs=0")
    run_experiment(make_config("method=kd", *short))
    run_experiment(make_config("method=kd", "seed=1", FOR_OTHERS, *short))
    run_experiment(make_config("method=ltkd", FOR_OTHERS, *short))
    found = collect([tmp_path / "outputs"])
    rows = {(row["method"], row["medium (oltr)"] is None): row for row in summary_rows(found.cells, "last")}
    assert {row["settings"] for row in rows.values()} == {""}
    assert [rows["kd", other]["n"] for other in (True, False)] == [1, 1]
    assert not [line for line in found.incomplete if " kd " in line]
    assert "one configuration in 2 rows" in markdown(found.cells, "last", found.notes)


def test_a_method_has_the_groups_only_where_it_says_that_it_reads_them(make_config, monkeypatch):
    seen = []

    def look(self: Method, context: MethodContext) -> None:
        seen.append((context.groups, context.group_names))

    monkeypatch.setattr(method_class("kd"), "build", look)
    run_experiment(make_config("method=kd", "recipe.epochs=0"))
    assert set(map(str, seen)) == {"(None, [])"}

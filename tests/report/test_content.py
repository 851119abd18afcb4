"""What a report says, from runs written by hand: means, the best baseline, pairs, what is missing, what is refused."""

import json

import pytest

from ltkd.errors import UserError
from ltkd.report import entries_of, make_report, write_report
from ltkd.report.facts import data_fact
from ltkd.report.figures import _shares
from ltkd.report.markdown import markdown
from ltkd.results.statistics import student_t_interval
from ltkd.tables.table import compose_runs

from .conftest import ACCURACY, TABLE, write_result


def rows_of(table, runs):
    [column] = make_report(table, entries_of(runs)).columns
    return {row.label: row for row in column.rows}


def test_means_deviations_and_published_values(finished):
    rows = rows_of(*finished)
    assert list(rows) == ["teacher resnet14", "CE", "KD", "paper", "LTKD 100%"]
    assert [row.role for row in rows.values()] == ["teacher", "baseline", "baseline", "baseline", "method"]
    kd = rows["KD"].values["all"]
    assert (kd.summary.n, kd.summary.mean, kd.summary.deviation) == (3, 52.0, pytest.approx(7**0.5))
    assert kd.published == [(51, 1)]
    assert rows["KD"].values["head"].published == []
    assert rows["paper"].values["all"].summary is None
    assert rows["paper"].values["all"].published == [(55.5, 1)]
    teacher = rows["teacher resnet14"]  # of six students one and the same
    assert (teacher.n, teacher.values["tail"].summary.mean, teacher.values["tail"].published) == (
        1,
        16.0,
        [(15.28, 1)],
    )


def test_differences_are_to_the_best_baseline_in_each_figure_paired_by_seed(finished):
    rows = rows_of(*finished)
    overall, tail = (rows["LTKD 100%"].values[name].difference for name in ("all", "tail"))
    assert (overall.against, tail.against) == ("KD", "CE")
    assert overall.paired.n == 3
    assert overall.paired.mean == pytest.approx((3 + 4 + 3) / 3)
    assert overall.paired.interval == student_t_interval([3, 4, 3])
    assert tail.paired.interval == student_t_interval([11, 12, 10])
    assert rows["KD"].values["all"].difference is None
    assert rows["teacher resnet14"].values["all"].difference is None


def test_only_pairs_of_the_same_seed_are_compared(finished):
    table, runs = finished
    for run in runs:
        if (run.cell.row_label, run.seed) in (("CE", 0), ("KD", 0), ("LTKD 100%", 2)):
            (run.student.directory / "result.json").unlink()
    difference = rows_of(table, runs)["LTKD 100%"].values["all"].difference
    assert (difference.paired.n, difference.paired.mean, difference.paired.interval) == (1, 4.0, None)


def test_missing_runs_are_named_with_how_they_ended_and_their_command(finished):
    table, runs = finished
    for run in runs:
        if run.cell.row_label == "KD":
            (run.student.directory / "result.json").unlink()
    (runs[4].student.directory / "status.json").write_text(
        '{"status": "failed", "label": "kd", "seed": 1, "error": "UserError: loss became nan"}'
    )
    (runs[5].student.directory / "result.json").write_text("{")
    report = make_report(table, entries_of(runs))
    assert len(report.missing) == 3
    assert report.missing[0].startswith("KD seed 0: not started; python src/train.py dataset=digits_lt ")
    assert "method.temperature=2" in report.missing[0]
    assert "KD seed 1: failed: kd seed 1 (UserError: loss became nan)" in report.missing[1]
    assert "damaged" in report.missing[2]
    assert report.missing_in_short[0] == "KD seed 0: not started"
    assert len(report.missing_in_short) == 3
    (runs[4].student.directory / "status.json").unlink()
    assert make_report(table, entries_of(runs)).missing_in_short[0] == "KD seed 0, 1: not started"
    assert {row.label: row.n for row in report.columns[0].rows}["KD"] == 0


@pytest.mark.parametrize(
    ("changes", "difference"),
    [({"evaluate_every": 5}, "evaluate_every: 1 and 5"), ({"split_sha256": "x"}, 'split_sha256: "split 0" and "x"')],
)  # fmt: skip
def test_runs_that_differ_in_more_than_the_seed_are_refused_and_both_named(finished, changes, difference):
    table, runs = finished
    write_result(runs[4], ACCURACY["KD"][1], **changes)
    with pytest.raises(UserError) as caught:
        make_report(table, entries_of(runs))
    message = str(caught.value)
    assert message.startswith("table mine, KD: ")
    assert f"{runs[3].student.directory} and {runs[4].student.directory} differ" in message
    assert f"({difference})" in message


def test_an_identity_that_differs_in_more_than_the_seed_is_refused(finished):
    table, runs = finished
    entries = entries_of(runs)
    identity = entries[1].result["identity"]  # as if a ledger had been edited
    entries[1].result["identity"] = identity | {"recipe": identity["recipe"] | {"epochs": 5}}
    with pytest.raises(UserError, match=r"\(recipe.epochs: 4 and 5\)"):
        make_report(table, entries)


def test_a_teacher_for_each_seed_is_one_kind_of_teacher(make_table, make_runs):
    table = make_table(TABLE + "teachers: per_seed\n")
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    assert rows_of(table, runs)["teacher resnet14"].n == 3


def test_different_teachers_say_which_rows_they_taught(make_table, make_runs):
    table = make_table(TABLE.replace("LTKD 100%: method=ltkd", "LTKD 100%: [method=ltkd, teacher=resnet20]"))
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    assert list(rows_of(table, runs))[:2] == ["teacher resnet14 of KD", "teacher resnet20 of LTKD 100%"]


def test_with_several_splits_a_pair_is_a_split(make_table, tmp_path):
    table = make_table(TABLE.replace("seeds: [0, 1, 2]", "seeds: [0, 1]\nsplit_seeds: [0, 1, 2]"))
    runs = compose_runs(table, [f"output_root={tmp_path}/out"])
    for run in runs:  # LTKD is better by 2 on split 0 (by 1 and 3 with its seeds), by 4 and 6 on the others
        gain = 2 + 2 * run.split_seed + (2 * run.seed - 1) if run.cell.row_label == "LTKD 100%" else 0
        write_result(run, (40 + gain, 60, 40, 20))
    rows = rows_of(table, runs)
    assert rows["LTKD 100%"].n == 6
    difference = rows["LTKD 100%"].values["all"].difference.paired
    assert (difference.n, difference.mean) == (3, 4.0)
    assert difference.interval == student_t_interval([2, 4, 6])


def test_the_head_says_what_was_run(finished):
    facts = make_report(finished[0], entries_of(finished[1])).facts
    assert facts["data"].startswith(
        "digits_lt, exponential imbalance, factor 20: 417 training images (head 3 classes with 275"
    )
    assert "quick, 4 epochs, batch 64, learning rate 0.05 (cosine)" in facts["recipe"]
    assert facts["seeds"] == "0, 1, 2; one teacher for all; split seed 0"
    assert (facts["commit"], facts["finished"]) == ("0123456789", "2026-01-02")
    assert facts["training time"] == "4.50 hours in 9 students"


@pytest.mark.parametrize(("counts", "said"), [([275, 116, 26], "its own class counts"), ([9, 9, 9], "balanced")])
def test_a_long_tail_that_was_not_cut_is_not_called_balanced(counts, said):
    dataset = {"name": "own", "imbalance": "none", "validation_per_class": 0}
    result = {"group_names": ["head", "medium", "tail"], "groups": [0, 1, 2], "class_counts": counts}
    assert data_fact(result | {"identity": {"dataset": dataset}}).startswith(f"own, {said}: {sum(counts)} training")


def test_a_student_in_several_columns_counts_once(make_table, make_runs):
    columns = "columns:\n  teacher:\n    first: teacher=resnet14\n    second: teacher=resnet20\n"
    table = make_table(TABLE + columns)
    runs = [run for run in make_runs(table) if run.cell.row_label == "CE"]
    for run in runs:
        write_result(run, ACCURACY["CE"][run.seed])
    assert len(runs) == 6
    assert make_report(table, entries_of(runs)).facts["training time"] == "1.50 hours in 3 students"


def test_overrides_that_change_what_a_title_says_stand_in_the_head(finished):
    table, runs = finished
    facts = make_report(table, entries_of(runs), ["recipe.epochs=60", "device=cpu", "wandb.mode=disabled"]).facts
    assert facts["changed"] == "recipe.epochs=60 (title and notes are those of the table as it is)"
    assert "changed" not in make_report(table, entries_of(runs), ["output_root=elsewhere"]).facts


def test_a_published_group_that_no_run_has_is_named(make_table, make_runs):
    table = make_table(TABLE.replace("tail: 20.5", "tial: 20.5"))
    runs = make_runs(table)
    assert make_report(table, entries_of(runs)).columns[0].groups == ["tial", "tail"]  # no run says otherwise
    write_result(runs[0], ACCURACY["CE"][0])
    with pytest.raises(UserError, match=r"published: unknown name 'tial'.*all, head, medium, tail"):
        make_report(table, entries_of(runs))


def test_a_group_without_a_class_costs_no_figure(finished, tmp_path):
    table, runs = finished
    for run in runs:
        path = run.student.directory / "result.json"
        result = json.loads(path.read_text())
        accuracies = [result["accuracy"], (result["teacher_result"] or {}).get("accuracy", {})]
        for record in (one["last"] for one in accuracies if one):
            record["group_mass"]["tail"] = record["per_group"]["tail"] = None
        path.write_text(json.dumps(result))
    assert len(write_report(make_report(table, entries_of(runs)), tmp_path / "report")) == 8


def test_rows_of_a_teacher_that_was_trained_twice_are_not_compared(finished):
    table, runs = finished
    [run] = [run for run in runs if run.cell.row_label == "KD" and run.seed == 1]
    teacher = run.result()["teacher_result"]
    write_result(run, ACCURACY["KD"][1], teacher_result=teacher | {"weights_sha256": "other"})
    message = rf"table mine: .*\nteacher {teacher['hash']} was trained several times, with different weights: "
    with pytest.raises(UserError, match=message):
        make_report(table, entries_of(runs))
    write_result(run, ACCURACY["KD"][1], teacher_result=teacher | {"weights_sha256": None})
    make_report(table, entries_of(runs))  # an older result, which does not say


@pytest.mark.parametrize("chosen_by", ["setting", "validation"])
def test_rows_corrected_with_different_taus_are_not_compared(make_table, make_runs, chosen_by):
    table = make_table(TABLE + "accuracy: logit_adjusted\n")
    runs = make_runs(table)
    for run in runs:
        record = {"all": 50.0, "per_group": {"head": 60.0, "medium": 50.0, "tail": 40.0}}
        corrected = {"tau": 0.4 if run.cell.row_label == "KD" else 1.0, "chosen_by": chosen_by, "test": record}
        write_result(run, ACCURACY[run.cell.row_label][run.seed], post_hoc={"logit_adjusted": corrected})
    if chosen_by == "validation":  # chosen for each of them in one way
        assert rows_of(table, runs)["KD"].values["all"].summary.mean == 50.0
        return
    message = r"does not compare: CE with tau 1.0 \(setting\) and KD with tau 0.4 \(setting\)"
    with pytest.raises(UserError, match=message):
        rows_of(table, runs)


def test_a_table_without_a_finished_run_still_says_what_is_missing(make_table, make_runs):
    table = make_table()
    report = make_report(table, entries_of(make_runs(table)))
    assert len(report.missing) == 9
    assert report.facts["data"] == "nothing finished yet"
    assert [row.label for row in report.columns[0].rows] == ["teacher", "CE", "KD", "paper", "LTKD 100%"]
    assert report.columns[0].groups == ["tail"]  # which the published values name


def test_splits_share_one_kind_of_teacher_and_count_once(make_table, tmp_path):
    table = make_table(TABLE.replace("seeds: [0, 1, 2]", "seeds: [0, 1]\nsplit_seeds: [0, 1, 2]"))
    runs = compose_runs(table, [f"output_root={tmp_path}/out"])
    for run in runs:  # 2 apart on a split, 10 from split to split
        write_result(run, (40 + 10 * run.split_seed + 2 * run.seed, 60, 40, 20))
    rows = rows_of(table, runs)
    assert [label for label, row in rows.items() if row.role == "teacher"] == ["teacher resnet14"]
    teacher = rows["teacher resnet14"]
    assert (teacher.n, teacher.splits, teacher.values["tail"].published) == (3, 3, [(15.28, 1)])
    summary = rows["KD"].values["all"].summary
    assert (summary.n, summary.mean, summary.deviation) == (3, 51.0, pytest.approx(10.0))


def test_a_baseline_with_a_single_run_is_not_the_best_where_others_have_more(finished):
    table, runs = finished
    write_result(runs[0], (70, 60, 40, 20))  # CE, by far the best: but its only run
    for run in runs[1:3]:
        (run.student.directory / "result.json").unlink()
    [column] = make_report(table, entries_of(runs)).columns
    assert column.candidates["all"] == ["KD"]
    assert [row.label for row in column.left_out] == ["CE"]
    assert "with the methods: CE (1 run; higher in all, tail)." in markdown(make_report(table, entries_of(runs)))
    [ltkd] = [row for row in column.rows if row.role == "method"]
    assert ltkd.values["all"].difference.against == "KD"
    assert ltkd.values["all"].to_each["CE"].n == 1


def test_a_baseline_with_one_pair_is_not_the_best_however_many_runs_it_has(finished):
    table, runs = finished
    for run in runs[:2]:
        write_result(run, (70, 60, 40, 20))  # CE, of the seeds 0 and 1
    (runs[2].student.directory / "result.json").unlink()
    (runs[6].student.directory / "result.json").unlink()  # LTKD, seed 0
    difference = rows_of(table, runs)["LTKD 100%"].values["all"].difference
    assert (difference.against, difference.paired.n) == ("KD", 2)


def test_a_baseline_on_one_split_is_not_the_best_where_others_have_more(make_table, tmp_path):
    table = make_table(TABLE.replace("seeds: [0, 1, 2]", "seeds: [0, 1]\nsplit_seeds: [0, 1, 2]"))
    runs = compose_runs(table, [f"output_root={tmp_path}/out"])
    for run in runs:
        if run.cell.row_label != "CE":
            write_result(run, (40, 60, 40, 20))
        elif run.split_seed == 0:
            write_result(run, (70, 60, 40, 20))
    difference = rows_of(table, runs)["LTKD 100%"].values["all"].difference
    assert (difference.against, difference.paired.n) == ("KD", 3)


def test_a_strong_baseline_that_lacks_a_run_is_still_the_best(finished):
    table, runs = finished
    (runs[3].student.directory / "result.json").unlink()  # KD, seed 0
    difference = rows_of(table, runs)["LTKD 100%"].values["all"].difference
    assert (difference.against, difference.paired.n) == ("KD", 2)


def test_a_published_teacher_is_that_of_the_rows_published_with_it(make_table, make_runs):
    def published(change, *, method):
        table = make_table(
            TABLE.replace("LTKD 100%: method=ltkd", f"LTKD 100%: {change}").replace("method: KD", method)
        )
        runs = make_runs(table)
        for run in runs:
            write_result(run, ACCURACY[run.cell.row_label][run.seed])
        return {
            label: row.values["tail"].published for label, row in rows_of(table, runs).items() if "teacher" in label
        }

    other = "[method=ltkd, teacher=resnet20]"
    assert published(other, method="method: KD") == {
        "teacher resnet14 of KD": [(15.28, 1)],
        "teacher resnet20 of LTKD 100%": [],
    }
    # published rows of both teachers: whose the figure is cannot be told
    both = TABLE.replace("LTKD 100%: method=ltkd", f"LTKD 100%: {other}").replace(
        "    - {at: {method: paper}", "    - {at: {method: LTKD 100%}, all: 51}\n    - {at: {method: paper}"
    )
    table = make_table(both)
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    teachers = [row for label, row in rows_of(table, runs).items() if "teacher" in label]
    assert [row.values["tail"].published for row in teachers] == [[], [], [(15.28, 1)]]
    assert teachers[2].n == 0


def test_a_published_teacher_is_not_that_of_other_rows_than_those_published_with_it(make_table, make_runs, tmp_path):
    table = make_table(TABLE.replace("LTKD 100%: method=ltkd", "LTKD 100%: [method=ltkd, teacher=resnet20]"))
    runs = [run for run in make_runs(table) if run.cell.row_label == "LTKD 100%"]
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    report = make_report(table, entries_of(runs))
    rows = {row.label: row for row in report.columns[0].rows}
    assert (rows["teacher resnet20"].n, rows["teacher resnet20"].values["tail"].published) == (1, [])
    assert (rows["teacher"].n, rows["teacher"].values["tail"].published) == (0, [(15.28, 1)])
    assert len(write_report(report, tmp_path / "report")) > 4  # with all figures


@pytest.mark.parametrize(
    ("lines", "fact"),
    [
        ("", "one teacher for all"),
        ("teachers: per_seed\n", "a teacher for each seed"),
    ],
)
def test_who_shares_a_teacher_is_said_as_the_runs_are(make_table, make_runs, lines, fact):
    table = make_table(TABLE + lines)
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    report = make_report(table, entries_of(runs))
    assert report.facts["seeds"] == f"0, 1, 2; {fact}; split seed 0"
    assert ("have the same one" in markdown(report)) == (fact == "one teacher for all")


def test_rows_of_different_teachers_do_not_share_one(make_table, make_runs):
    table = make_table(TABLE.replace("LTKD 100%: method=ltkd", "LTKD 100%: [method=ltkd, teacher=resnet20]"))
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed])
    report = make_report(table, entries_of(runs))
    assert report.facts["seeds"] == "0, 1, 2; a teacher for each row; split seed 0"
    assert "All students of a row that have a teacher have the same one, so nothing is said" in markdown(report)


def test_shares_of_the_groups_are_those_of_the_images(make_table, make_runs):
    table = make_table(TABLE)
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY[run.cell.row_label][run.seed], test_counts=[30, 10, 10] + 7 * [0])
    row = make_report(table, entries_of(runs)).columns[0].rows[-1]
    groups = row.entries[0].result["groups"]
    tested = [sum(count for count, group in zip([30, 10, 10], groups, strict=False) if group == i) for i in range(3)]
    assert list(_shares(row)["test images"].values()) == [2 * images for images in tested]


def test_damaged_curves_cost_only_themselves(finished):
    table, runs = finished
    (runs[3].student.directory / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    report = make_report(table, entries_of(runs))
    [line] = report.missing
    assert line.startswith("curves of KD seed 0: ")
    assert "metrics.jsonl: cannot be read" in line
    assert {row.label: row.n for row in report.columns[0].rows}["KD"] == 3


def test_an_accuracy_of_0_is_a_value(finished):
    table, runs = finished
    write_result(runs[3], (40.0, 60.0, 40.0, 0.0))
    [row] = [row for row in make_report(table, entries_of(runs)).columns[0].rows if row.label == runs[3].cell.row_label]
    assert 0.0 in row.values["tail"].by_pair.values()

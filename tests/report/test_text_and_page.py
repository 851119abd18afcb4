"""The same numbers as Markdown, CSV, LaTeX and HTML, and figures that are drawings of them."""

import base64
import csv
import io
import itertools
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from ltkd.errors import UserError
from ltkd.methods import FIDELITY
from ltkd.report import entries_of, make_report, write_report
from ltkd.report.comma_separated import comma_separated
from ltkd.report.curves import curve
from ltkd.report.drawing import spread
from ltkd.report.figures import draw_column
from ltkd.report.latex import _latex, latex
from ltkd.report.markdown import markdown
from ltkd.report.text_tables import signed

from .conftest import ACCURACY, GROUPS, TABLE, write_result


@pytest.fixture
def report(finished):
    table, runs = finished
    return make_report(table, entries_of(runs))


def test_markdown_has_the_figures_their_differences_and_the_sources(report):
    text = markdown(report)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["method", "n", "all", "head", "medium", "tail", "all, published", "tail, published"]
    assert [
        "KD",
        "3",
        "52.00 ± 2.65",
        "82.00 ± 2.65",
        "60.00 ± 0.00",
        "11.00 ± 1.00",
        "51.00 [1]",
        "20.50 [1]",
    ] in lines
    assert ["paper", "0", "n/a", "n/a", "n/a", "n/a", "55.50 [1]", "–"] in lines
    assert "all, to KD" in text
    assert "tail, to CE" in text
    assert ["LTKD 100%†", "3", "+3.33; [+1.90, +4.77]"] in [line[:3] for line in lines]
    assert f"† adapted: {FIDELITY['adapted']}." in text
    assert "‡" not in text
    assert "[1] a paper" in text
    assert "In brackets is Student's 95 % interval of their mean" in text
    assert "single pair" not in text
    assert "Missing" not in text


def test_rows_that_trained_on_the_validation_images_are_named(finished):
    table, runs = finished
    assert "Trained on the images of the validation split" not in markdown(make_report(table, entries_of(runs)))
    for run in runs:
        if run.cell.row_label == "KD":
            write_result(run, ACCURACY["KD"][run.seed], learned_from_validation=True)
    said = "Trained on the images of the validation split too, unlike the other rows: KD."
    assert said in markdown(make_report(table, entries_of(runs)))


def test_rows_whose_runs_have_some_of_their_teachers_in_common_are_named(make_table, make_runs):
    ensemble = "[method=balanced_posterior, method.teachers=2]"
    for seeds, named in {"[0, 1]": True, "[0, 2]": False}.items():  # the teachers' seeds: 0, 1 and 1, 2; 0, 1 and 2, 3
        table = make_table(TABLE.replace("method=ltkd", ensemble).replace("[0, 1, 2]", seeds) + "teachers: per_seed\n")
        runs = make_runs(table)
        for run in runs:
            write_result(run, ACCURACY[run.cell.row_label][run.seed])
        text = markdown(make_report(table, entries_of(runs)))
        assert ("deviations and intervals are too small: LTKD 100%." in text) == named
        assert "too small: KD" not in text


def test_csv_has_the_unrounded_figures(report):
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(comma_separated(report)))}
    ltkd = rows["LTKD 100%"]
    assert float(ltkd["all"]) == pytest.approx(166 / 3)
    assert float(ltkd["all difference"]) == pytest.approx(10 / 3)
    assert (ltkd["all against"], ltkd["tail against"], ltkd["n"], ltkd["runs"]) == ("KD", "CE", "3", "0/0 0/1 0/2")
    assert float(ltkd["tail low"]) == pytest.approx(11 - 4.302653 * 1 / 3**0.5)
    assert (rows["KD"]["all published"], rows["paper"]["all"], rows["KD"]["all difference"]) == ("51", "", "")


def test_post_hoc_corrections_stand_beside_the_raw_accuracies(finished, make_table, make_runs):
    table, runs = finished
    text = markdown(make_report(table, entries_of(runs)))
    assert text.count("adjusted post hoc") == 1
    assert re.search(r" tau +\| +all \| +all, corrected \| +head \| +head, corrected \|", text)
    assert "tau-normalised" not in text  # no run has it
    assert re.search(r"\| KD +\| +3 \| +1 \(default\) \| 52\.00 ± 2\.65 \| +59\.00 ± 2\.65 \|", text)
    assert re.search(r"\| LTKD 100% +\| +3 \| 1 \(default; second, after method=ltkd\) \|", text)
    rows = {
        row["method"]: row for row in csv.DictReader(io.StringIO(comma_separated(make_report(table, entries_of(runs)))))
    }
    assert float(rows["KD"]["all logit_adjusted"]) == 59.0
    chosen = {"tau": 0.5, "chosen_by": "validation", "test": {"all": 70.0, "per_group": dict.fromkeys(GROUPS, 70.0)}}
    write_result(runs[3], ACCURACY["KD"][0], post_hoc={"logit_adjusted": chosen})
    write_result(runs[6], ACCURACY["LTKD 100%"][0], post_hoc=None)
    text = markdown(make_report(table, entries_of(runs)))
    assert "0.5 to 1 (validation, default)" in text  # a mixture shows
    assert "| LTKD 100% |   3 | 1 (default)" not in text  # one of its runs lacks it
    corrected = make_table(TABLE + "accuracy: logit_adjusted\n")
    with pytest.raises(UserError, match=r'tau: "validation" and "1.0 \(default\)"'):
        make_report(corrected, entries_of(make_runs(corrected)))


def test_a_table_compares_by_an_accuracy_that_corrects_each_row_once(make_table, finished, make_runs):
    """LTKD, which its training corrects, is compared as it is with KD and CE, whose logits are adjusted."""
    once = make_table(TABLE + "accuracy: corrected_once\n")
    report = make_report(once, entries_of(make_runs(once)))
    means = {row.label: row.values["all"].summary.mean for row in report.columns[0].rows if row.values["all"].summary}
    assert means == pytest.approx({"CE": 48.0, "KD": 59.0, "LTKD 100%": 166 / 3})
    text = markdown(report)
    assert "KD (logits adjusted)" in text
    assert "LTKD 100%† (by method=ltkd)" in text
    assert "corrected once for the class counts" in text


def test_latex_escapes_and_marks_the_best_student(report):
    text = latex(report)
    assert r"\caption{A table of A \& B $\rightarrow$ C. " in text
    assert (
        r"LTKD 100\%$^\dagger$ & 3 & \textbf{55.33 {\scriptsize $\pm$ 2.52}} & 71.00 {\scriptsize $\pm$ 1.00} &" in text
    )
    assert r"KD & 3 & 52.00 {\scriptsize $\pm$ 2.65} & \textbf{82.00 {\scriptsize $\pm$ 2.65}}" in text
    figures, differences = text.split(r"\end{table}")[:2]
    assert figures.count(r"\midrule") == 3  # below the head, the teacher and the baselines
    assert figures.count("&") - figures.count(r"\&") == 5 * 7 + 7
    assert "51.00 [1]" in figures
    assert r"{\footnotesize\raggedright [1] a paper\par}" in figures
    assert r"\caption{A table of A \& B $\rightarrow$ C. Differences to the best baseline.}" in differences
    # braces, as the bracket of an interval would else be an argument of the line break before it
    stack = r"+3.33\\ {\scriptsize [+1.90, +4.77]}"
    assert rf"LTKD 100\%$^\dagger$ & 3 & \begin{{tabular}}[t]{{@{{}}r@{{}}}}{stack}\end{{tabular}} &" in differences
    assert "all, to KD" in differences


def test_latex_escapes_every_character_once():
    assert _latex(r"a\b ~ ^ {x_1} & 5 % -> c > d") == (
        r"a\textbackslash{}b \textasciitilde{} \textasciicircum{} \{x\_1\} \& 5 \% $\rightarrow$ c $>$ d"
    )


class Page(HTMLParser):
    """Collects tags with attributes, and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(report, tmp_path):
    [path, *_] = write_report(report, tmp_path / "report")
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    references = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(references) == 4
    for reference in references:
        assert reference.startswith("data:image/svg+xml;base64,")
        drawing = base64.b64decode(reference.partition(",")[2])
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        # names of namespaces apart, a drawing refers to its own parts alone
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', drawing.decode()))
    assert "url(" not in text
    assert "@import" not in text
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert "A table of A &amp; B → C" in text
    assert "52.00 ± 2.65" in text
    assert "@media print" in text


def test_all_files_are_written_and_the_same_runs_give_the_same_bytes(report, tmp_path):
    first, second = (write_report(report, tmp_path / name) for name in ("first", "second"))
    assert [path.relative_to(tmp_path / "first").as_posix() for path in first] == [
        "report.html", "table.md", "table.csv", "table.tex", "figures/groups.svg", "figures/classes.svg",
        "figures/curves.svg", "figures/bias.svg",
    ]  # fmt: skip
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_figures_name_what_they_show(finished):
    table, runs = finished
    report = make_report(table, entries_of(runs))
    pictures = draw_column(report, report.columns[0])
    assert [picture.name for picture in pictures] == ["groups", "classes", "curves", "bias"]
    assert "diamond is the published" in pictures[0].caption
    for run in runs:
        (run.student.directory / "metrics.jsonl").unlink()
    # without curves the figures that are drawn of result.json alone remain
    assert [picture.name for picture in draw_column(report, report.columns[0])] == ["groups", "classes"]


def test_a_table_with_columns_has_an_overview_and_figures_for_each(make_table, make_runs, tmp_path):
    columns = "columns: {imbalance factor: {10: dataset.imbalance_factor=10, 20: dataset.imbalance_factor=20}}\n"
    table = make_table(TABLE + columns)
    runs = make_runs(table)
    for run in runs:
        if run.cell.column_label == "20" or run.cell.row_label != "KD":
            write_result(run, ACCURACY[run.cell.row_label][run.seed])
    report = make_report(table, entries_of(runs))
    text = markdown(report)
    overview = text[text.index("## Overview") : text.index("## imbalance factor 10")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in overview.splitlines() if line.startswith("|")]
    assert rows[0] == ["method", "imbalance factor 10", "imbalance factor 20"]
    assert rows[2][0] == "teacher resnet14"
    assert ["KD", "n/a / n/a", "52.00 / 11.00"] in rows
    assert ["LTKD 100%", "55.33 / 33.00", "55.33 / 33.00"] in rows
    names = {path.name for path in write_report(report, tmp_path / "report")}
    assert {"groups-1.svg", "groups-2.svg", "bias-2.svg"} <= names


def test_nothing_finished_is_a_report_too(make_table, make_runs, tmp_path):
    table = make_table(TABLE[: TABLE.index("published:")])
    report = make_report(table, entries_of(make_runs(table)))
    [page, *_] = write_report(report, tmp_path / "report")
    assert "Missing: 9" in page.read_text()
    assert latex(report)


def test_signs():
    assert [signed(value) for value in (2.305, -0.4, 0.001, -0.001)] == ["+2.31", "−0.40", "0.00", "0.00"]


def test_labels_are_moved_apart_as_little_as_needed():
    assert spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert spread([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    crowded = spread([0.0, 0.0, 0.01, 1.0], 0.1)
    assert min(b - a for a, b in itertools.pairwise(crowded)) > 0.098
    assert crowded[0] >= 0
    assert crowded[-1] <= 1
    assert spread([], 0.1) == []


def test_a_curve_has_the_epochs_that_all_runs_have():
    histories = [
        [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 3.0}, {"epoch": 3}],
        [{"epoch": 1, "a": 2.0}, {"epoch": 2, "a": 9.0}, {"epoch": 3, "a": 1.0}],
    ]
    drawn = curve(histories, "a")
    assert (drawn.epochs, drawn.means, drawn.lows, drawn.highs) == ([1, 2], [1.5, 6.0], [1.0, 3.0], [2.0, 9.0])
    long = curve([[{"epoch": epoch, "a": 2.0 * epoch} for epoch in range(1, 11)]], "a").thinned(4)
    assert (long.epochs, long.means) == ([1, 4, 7, 10], [2.0, 8.0, 14.0, 20.0])
    assert drawn.thinned(4) == drawn
    assert curve(histories, "b") is None
    assert curve([], "a") is None


def test_what_an_interval_does_not_say_is_said(finished, make_table, make_runs):
    table, runs = finished
    text = markdown(make_report(table, entries_of(runs)))
    assert "The baseline is the best of several on these very runs" in text
    assert "Each interval is for itself" not in text  # there is one row of them
    assert "All students that have a teacher have the same one" in text
    one = make_table(TABLE.replace("baselines: [CE, KD, paper]", "baselines: [KD]"))  # CE is compared, too
    text = markdown(make_report(one, entries_of(make_runs(one))))
    assert "best of several" not in text
    assert "Each interval is for itself: among many, some miss by chance." in text
    (runs[1].student.directory / "result.json").unlink()
    (runs[2].student.directory / "result.json").unlink()
    text = markdown(make_report(table, entries_of(runs)))
    assert "or of runs in common with the methods: CE (1 run; higher in tail)." in text


def test_pairs_are_counted_in_the_cell_where_they_are_fewer(finished):
    table, runs = finished
    for run in runs[6:8]:  # of LTKD's runs two have no tail figure
        path = run.student.directory / "result.json"
        result = json.loads(path.read_text())
        result["accuracy"]["last"]["per_group"]["tail"] = None
        path.write_text(json.dumps(result))
    text = markdown(make_report(table, entries_of(runs)))
    assert "| +10.00; n/a; n = 1 |" in text
    assert "With a single pair there is no interval (n/a)" in text


def test_the_csv_has_the_difference_to_each_baseline(report):
    [ltkd] = [row for row in csv.DictReader(io.StringIO(comma_separated(report))) if row["method"] == "LTKD 100%"]
    assert float(ltkd["all difference to CE"]) == pytest.approx(43 / 3)
    assert float(ltkd["all difference to KD"]) == pytest.approx(10 / 3)
    assert float(ltkd["all low to CE"]) < 13.0 < float(ltkd["all high to CE"])
    assert ltkd["all pairs to CE"] == "3"


def test_only_cells_of_differences_have_lines_of_their_own(make_table, make_runs, tmp_path):
    table = make_table(
        TABLE.replace("    CE: method=ce\n", "    CE: method=ce\n    DKD: method=dkd\n").replace(
            "LTKD 100%: method=ltkd", "LTKD 100%: [method=ltkd, teacher=resnet20]"
        )
    )
    runs = make_runs(table)
    for run in runs:
        write_result(run, ACCURACY.get(run.cell.row_label, ACCURACY["KD"])[run.seed])
    [page, *_] = write_report(make_report(table, entries_of(runs)), tmp_path / "report")
    assert "teacher resnet14 of DKD; KD<" in page.read_text()
    assert "+3.33<br>[+1.90, +4.77]" in page.read_text()


def test_the_teachers_own_training_is_drawn_where_it_is_there(finished):
    table, runs = finished
    before = draw_column(report := make_report(table, entries_of(runs)), report.columns[0])[3]
    assert "in its own training" not in before.caption
    folder = runs[3].teachers[0].directory
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"epoch": epoch} | {f"{part}/{group}": 30.0 + epoch for part in ("test/group_mass", "train/group_mass/student")
                            for group in GROUPS}
        for epoch in (1, 2, 3)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = draw_column(report := make_report(table, entries_of(runs)), report.columns[0])[3]
    assert "With crosses is the teacher in its own training, over its own epochs." in after.caption
    assert b"in training" in after.svg

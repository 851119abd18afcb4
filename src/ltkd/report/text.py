"""A report as Markdown, CSV and LaTeX; the cells of its tables as text, for the page too."""

import csv
import io
from dataclasses import dataclass

from tabulate import tabulate

from ltkd.errors import UserError
from ltkd.report.content import ALL, Column, Figure, Report, Row
from ltkd.results import KINDS, NOT_AVAILABLE, POST_HOC, figure
from ltkd.statistics import COVERAGE, Summary
from ltkd.tables import TEACHER, Table

NOTHING = "–"
INTERVAL_SEPARATOR = "; "  # in a cell of differences


@dataclass(frozen=True)
class TextTable:
    """Headers and rows of text; each row has its role (teacher, baseline, method)."""

    headers: list[str]
    body: list[list[str]]
    roles: list[str]
    names: int  # leading columns that name the row


def main_table(report: Report, column: Column) -> TextTable:
    """Mean ± standard deviation and n for each row; published values beside ours where there are any."""
    axes = list(report.table.rows)
    published = [name for name in column.figure_names if any(row.figures[name].published for row in column.rows)]
    headers = [*axes, "n", *column.figure_names, *(f"{name}, published" for name in published)]
    body = [
        [
            *(row.names[axis] or NOTHING for axis in axes),
            str(row.n),
            *(_mean(row.figures[name].summary) for name in column.figure_names),
            *(_published(row.figures[name]) for name in published),
        ]
        for row in column.rows
    ]
    return TextTable(headers, body, [row.role for row in column.rows], len(axes))


def corrected_tables(report: Report, column: Column) -> dict[str, TextTable]:
    """By kind of post-hoc correction, the rows that have it; tau is a range where runs chose different ones."""
    axes, tables = list(report.table.rows), {}
    for kind in POST_HOC:
        rows = [row for row in column.rows if kind in row.corrected]
        if rows and kind != report.table.accuracy:
            body = [
                [
                    *(row.names[axis] or NOTHING for axis in axes),
                    str(row.n),
                    _tau(row.corrected[kind].taus),
                    *(_mean(row.corrected[kind].summaries[name]) for name in column.figure_names),
                ]
                for row in rows
            ]
            headers = [*axes, "n", "tau", *column.figure_names]
            tables[kind] = TextTable(headers, body, [row.role for row in rows], len(axes))
    return tables


def _tau(taus: list[tuple[float, str]]) -> str:
    values = " to ".join(dict.fromkeys(f"{tau:g}" for tau in (taus[0][0], taus[-1][0])))
    return f"{values} ({', '.join(dict.fromkeys(chosen_by for _, chosen_by in taus))})"


def difference_table(report: Report, column: Column) -> TextTable | None:
    """Differences to the best baseline with their intervals; None where nothing is compared."""
    rows = [row for row in column.rows if any(one.difference for one in row.figures.values())]
    if not rows:
        return None
    axes = list(report.table.rows)
    headers = [*axes, "pairs", *(f"{name}, to {_against(rows, name)}" for name in column.figure_names)]
    body = [
        [
            *(row.names[axis] or NOTHING for axis in axes),
            str(max(one.difference.paired.n for one in row.figures.values() if one.difference)),
            *(difference_text(row.figures[name]) for name in column.figure_names),
        ]
        for row in rows
    ]
    return TextTable(headers, body, [row.role for row in rows], len(axes))


def overview_table(report: Report) -> TextTable | None:
    """Rows by columns, mean over all classes / in the last group (the tail); None for a table of one column."""
    if len(report.columns) < 2:
        return None
    axes = list(report.table.rows)
    rows = sorted((row for column in report.columns for row in column.rows), key=lambda row: row.role != TEACHER)
    keys = dict.fromkeys(tuple(row.names.items()) for row in rows)
    body, roles = [], []
    for key in keys:
        found = [next((r for r in column.rows if tuple(r.names.items()) == key), None) for column in report.columns]
        cells = [
            NOTHING if row is None else _overview(row, column)
            for row, column in zip(found, report.columns, strict=True)
        ]
        body.append([*(dict(key)[axis] or NOTHING for axis in axes), *cells])
        roles.append(next(row.role for row in found if row is not None))
    return TextTable([*axes, *(column.label for column in report.columns)], body, roles, len(axes))


def about_overview(report: Report) -> str:
    last = dict.fromkeys(column.groups[-1] for column in report.columns if column.groups)
    return f"Mean accuracy in %, over all classes / in the group {' or '.join(last) or 'that is last'}."


def explanations(report: Report) -> list[str]:
    """What a reader must know of the figures, a paragraph each."""
    table = report.table
    kind = sentence(KINDS[table.accuracy]).removesuffix(".")
    lines = [f"{kind}; mean ± sample standard deviation over n runs.", *about_differences(report)]
    lines += [f"[{number}] {source}" for number, source in enumerate(report.sources, 1)]
    return [*lines, *([table.notes] if table.notes else [])]


def about_differences(report: Report) -> list[str]:
    """What is compared and how sure it is; empty where nothing is compared."""
    rows = [row for column in report.columns for row in column.rows]
    pairs = [one.difference.paired.n for row in rows for one in row.figures.values() if one.difference]
    if not pairs:
        return []
    several = len(report.table.split_seeds) > 1
    unit = "splits, the seeds on a split averaged" if several else "runs of the same seed"
    return [
        f"Differences are in points, to the baseline with the highest mean in that figure, paired by {unit}. In "
        "brackets is a 95 % bootstrap interval of their mean, which resamples these pairs with replacement.",
        *_cautions(max(pairs), report.table),
    ]


def _cautions(pairs: int, table: Table) -> list[str]:
    """What the intervals do not say."""
    lines = []
    if pairs < 2:
        lines.append(f"With a single pair there is no interval ({NOT_AVAILABLE}).")
    elif pairs < max(COVERAGE):
        known = COVERAGE[max(n for n in COVERAGE if n <= pairs)]
        lines.append(
            f"With {pairs} pairs it is coarse: it holds the true difference in about {known} of 100 tables, not in 95 "
            "(of normal differences). The t interval after it, Student's, holds in 95 if differences are normal."
        )
    if table.teachers == "shared":
        lines.append("All students have the same teacher, so nothing is said about other teachers.")
    return lines


def markdown(report: Report) -> str:
    """The whole report but its figures."""
    blocks = [f"# {report.table.title}", _markdown_list([f"{key}: {value}" for key, value in report.facts.items()])]
    overview = overview_table(report)
    if overview is not None:
        blocks += ["## Overview", about_overview(report), _github(overview)]
    for index, column in enumerate(report.columns):
        blocks += [f"## {column.label}"] * bool(column.label)
        blocks.append(_github(main_table(report, column)))
        differences = difference_table(report, column)
        if differences is not None:
            blocks.append(_github(differences))
        blocks += explanations(report) if index == 0 else []
        for kind, table in corrected_tables(report, column).items():
            blocks += [sentence(KINDS[kind]), _github(table)]
    if report.missing:
        blocks += ["## Missing", _markdown_list(report.missing)]
    return "\n\n".join(blocks) + "\n"


def readme_table(report: Report, *, differences: bool) -> str:
    """The tables with what a reader must know of them, for a page that says the rest itself."""
    blocks = []
    for column in report.columns:
        blocks += [f"**{column.label}**"] * bool(column.label)
        blocks.append(_github(main_table(report, column)))
        compared = difference_table(report, column) if differences else None
        blocks += [] if compared is None else [_github(compared)]
    facts = report.facts
    place = f"{facts['hardware']}; commit {facts['commit']}; finished {facts['finished']}"
    command = f"`python scripts/reproduce.py table={report.table.name}`"
    texts = explanations(report)
    if not differences:
        texts = [text for text in texts if text not in about_differences(report)]
    missing = [f"Missing runs: {len(report.missing)}."] if report.missing else []
    return "\n\n".join([*blocks, *texts, *missing, f"{command} ({place})"])


def readme_correction(report: Report, kind: str) -> str:
    """What a correction after training makes of the runs of `readme_table`; UserError where no run has it."""
    blocks = []
    for column in report.columns:
        table = corrected_tables(report, column).get(kind)
        blocks += [] if table is None else [f"**{column.label}**"] * bool(column.label) + [_github(table)]
    if not blocks:
        raise UserError(f"table {report.table.name}: none of its runs has {kind} figures")
    return "\n\n".join([*blocks, sentence(f"{KINDS[kind]}; mean ± sample standard deviation over n runs")])


def comma_separated(report: Report) -> str:
    """One line per row of each column, unrounded: n, seeds, and of each figure all that is known."""
    lines = []
    for column in report.columns:
        for row in column.rows:
            line = {**column.names, **row.names, "role": row.role, "accuracy": report.table.accuracy, "n": row.n}
            line["runs"] = " ".join(f"{entry.split_seed}/{entry.seed}" for entry in row.entries)  # split seed / seed
            for name, one in row.figures.items():
                line |= {f"{name}{key}": value for key, value in _numbers(one).items()}
                corrected = {kind: row.corrected[kind].summaries[name] for kind in row.corrected}
                line |= {f"{name} {kind}": one and one.mean for kind, one in corrected.items()}
            lines.append(line)
    fields = list(dict.fromkeys(key for line in lines for key in line)) or ["n"]
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=fields)
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _numbers(one: Figure) -> dict[str, object]:
    paired = one.difference.paired if one.difference else None
    bootstrap, student_t = (
        (paired.bootstrap or (None, None), paired.student_t or (None, None)) if paired else ((None,) * 2,) * 2
    )
    return {
        "": one.summary.mean if one.summary else None,
        " std": one.summary.deviation if one.summary else None,
        " difference": paired.mean if paired else None,
        " against": one.difference.against if one.difference else None,
        " bootstrap low": bootstrap[0], " bootstrap high": bootstrap[1],
        " t low": student_t[0], " t high": student_t[1],
        " published": " ".join(str(value) for value, _ in one.published) or None,
    }  # fmt: skip


def latex(report: Report) -> str:
    """booktabs tables, one per column; the best mean of students in each figure is bold."""
    return "\n\n".join(_latex_table(report, column) for column in report.columns) + "\n"


def _latex_table(report: Report, column: Column) -> str:
    table = main_table(report, column)
    first_figure = table.names + 1
    best = {name: max(means) for name in column.figure_names if (means := _means(column, name))}
    lines, previous = [], None
    for row, cells in zip(column.rows, table.body, strict=True):
        texts = [_latex(cell) for cell in cells]
        for index, name in enumerate(column.figure_names, first_figure):
            summary = row.figures[name].summary
            if row.role != TEACHER and summary and summary.mean == best.get(name):
                texts[index] = rf"\textbf{{{texts[index]}}}"
        if previous is not None and row.role != previous:
            lines.append(r"\midrule")
        previous = row.role
        lines.append(" & ".join(texts) + r" \\")
    caption = ". ".join(filter(None, [report.table.title, column.label]))
    return "\n".join(
        [
            r"\begin{table}", r"\centering",
            rf"\caption{{{_latex(caption)}. {_latex(explanations(report)[0])}}}",
            rf"\begin{{tabular}}{{{'l' * table.names}{'r' * (len(table.headers) - table.names)}}}", r"\toprule",
            " & ".join(map(_latex, table.headers)) + r" \\", r"\midrule", *lines, r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ]
    )  # fmt: skip


def _latex(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    for character, command in {
        "±": r"$\pm$",
        "–": "--",
        "−": "$-$",
        "->": r"$\rightarrow$",
        "<": "$<$",
        ">": "$>$",
    }.items():
        text = text.replace(character, command)
    return text


def difference_text(one: Figure) -> str:
    """+2.31; [+1.20, +3.40]; t [−0.51, +5.13], bootstrap and Student's; a single pair has no interval: +2.31; n/a."""
    if one.difference is None:
        return NOTHING
    paired = one.difference.paired
    if paired.bootstrap is None:
        return f"{signed(paired.mean)}{INTERVAL_SEPARATOR}{NOT_AVAILABLE}"
    bootstrap, student_t = (", ".join(map(signed, interval)) for interval in (paired.bootstrap, paired.student_t))
    return INTERVAL_SEPARATOR.join([signed(paired.mean), f"[{bootstrap}]", f"t [{student_t}]"])


def signed(value: float) -> str:
    """With a sign that is as wide as a digit: +2.31, −0.40; 0.00 has none."""
    return "0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _mean(summary: Summary | None) -> str:
    return figure(summary.mean, summary.deviation) if summary else NOT_AVAILABLE


def _published(one: Figure) -> str:
    return ", ".join(f"{value:.2f} [{source}]" for value, source in one.published) or NOTHING


def _against(rows: list[Row], name: str) -> str:
    return next((row.figures[name].difference.against for row in rows if row.figures[name].difference), "none")


def _overview(row: Row, column: Column) -> str:
    names = [ALL, *column.groups[-1:]]
    return " / ".join(f"{one.mean:.2f}" if (one := row.figures[name].summary) else NOT_AVAILABLE for name in names)


def _means(column: Column, name: str) -> list[float]:
    return [row.figures[name].summary.mean for row in column.rows if row.role != TEACHER and row.figures[name].summary]


def _github(table: TextTable) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in table.body]
    align = ["left"] * table.names + ["right"] * (len(table.headers) - table.names)
    return tabulate(escaped, headers=table.headers, tablefmt="github", disable_numparse=True, colalign=align)


def _markdown_list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

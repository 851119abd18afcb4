"""A report as Markdown and CSV; the cells of its tables as text, for the page and LaTeX too."""

import csv
import io
from dataclasses import dataclass

from tabulate import tabulate

from ltkd.errors import UserError
from ltkd.report.content import ALL, Column, Figure, Report, Row
from ltkd.results.read import KINDS, NOT_AVAILABLE, POST_HOC, figure
from ltkd.results.statistics import COVERAGE, PairedDifference, Summary
from ltkd.tables.table import TEACHER

NOTHING = "–"
INTERVAL_SEPARATOR = "; "  # in a cell of differences


@dataclass(frozen=True)
class TextTable:
    """Headers and rows of text; each row has its role (teacher, baseline, method)."""

    headers: list[str]
    body: list[list[str]]
    roles: list[str]
    names: int  # leading columns that name the row
    in_lines: bool = False  # INTERVAL_SEPARATOR parts what stands in lines of their own, where a page has room

    def lines(self, text: str, column: int) -> list[str]:
        return text.split(INTERVAL_SEPARATOR) if self.in_lines and column >= self.names else [text]


def main_table(report: Report, column: Column) -> TextTable:
    """Mean ± standard deviation and n for each row; published values beside ours where there are any."""
    axes = list(report.table.rows)
    published = [name for name in column.figure_names if any(row.figures[name].published for row in column.rows)]
    headers = [*axes, *_counts(report), *column.figure_names, *(f"{name}, published" for name in published)]
    body = [
        [
            *(row.names[axis] or NOTHING for axis in axes),
            *_counts(report, row),
            *(_mean(row.figures[name].summary) for name in column.figure_names),
            *(_published(row.figures[name]) for name in published),
        ]
        for row in column.rows
    ]
    return TextTable(headers, body, [row.role for row in column.rows], len(axes))


def _counts(report: Report, row: Row | None = None) -> list[str]:
    """How many values a row's mean is of, or the headers of that: several splits are what counts, not their runs."""
    if len(report.table.split_seeds) > 1:
        return ["splits", "runs"] if row is None else [str(row.splits), str(row.n)]
    return ["n"] if row is None else [str(row.n)]


def _over(report: Report) -> str:
    """Names what a mean and a deviation are taken over."""
    if len(report.table.split_seeds) > 1:
        return "over the splits, the runs on a split averaged first: they have its images in common"
    return "over n runs"


def corrected_tables(report: Report, column: Column) -> dict[str, TextTable]:
    """By kind of post-hoc correction, the rows that have it; tau is a range where runs chose different ones."""
    axes, tables = list(report.table.rows), {}
    for kind in POST_HOC:
        rows = [row for row in column.rows if kind in row.corrected]
        if rows and kind != report.table.accuracy:
            body = [
                [
                    *(row.names[axis] or NOTHING for axis in axes),
                    *_counts(report, row),
                    _tau(row.corrected[kind].taus),
                    *(_mean(row.corrected[kind].summaries[name]) for name in column.figure_names),
                ]
                for row in rows
            ]
            headers = [*axes, *_counts(report), "tau", *column.figure_names]
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
    headers = [*axes, "pairs", *(f"{name}{_against(rows, name)}" for name in column.figure_names)]
    body = []
    for row in rows:
        pairs = max(one.difference.paired.n for one in row.figures.values() if one.difference)
        differences = [difference_text(row.figures[name], pairs) for name in column.figure_names]
        body.append([*(row.names[axis] or NOTHING for axis in axes), str(pairs), *differences])
    return TextTable(headers, body, [row.role for row in rows], len(axes), in_lines=True)


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
    """Explains the figures to a reader, a paragraph each."""
    table = report.table
    kind = sentence(KINDS[table.accuracy]).removesuffix(".")
    lines = [f"{kind}; mean ± sample standard deviation {_over(report)}."]
    if any(one.summary is None for column in report.columns for row in column.rows for one in row.figures.values()):
        lines.append(f"{NOT_AVAILABLE}: no run has that figure.")
    rows = [row for column in report.columns for row in column.rows]
    if learned := ", ".join(dict.fromkeys(row.label for row in rows if row.learned_from_validation)):
        lines.append(f"Trained on the images of the validation split too, unlike the other rows: {learned}.")
    lines += about_differences(report)
    lines += [f"[{number}] {source}" for number, source in enumerate(report.sources, 1)]
    return [*lines, *([table.notes] if table.notes else [])]


def about_differences(report: Report) -> list[str]:
    """Explains what is compared and how sure it is; empty where nothing is compared."""
    columns = [column for column in report.columns if difference_table(report, column)]
    rows = [row for column in columns for row in column.rows]
    differences = [one.difference for row in rows for one in row.figures.values() if one.difference]
    if not differences:
        return []
    several = len(report.table.split_seeds) > 1
    unit = "splits, the seeds on a split averaged" if several else "runs of the same seed"
    return [
        f"Differences are in points, to the baseline with the highest mean in that figure, paired by {unit}. In "
        "brackets is a 95 % bootstrap interval of their mean, which resamples these pairs with replacement.",
        *_cautions([one.paired.n for one in differences]),
        *_about_choice(columns),
        *_about_teachers(report, columns),
    ]


def _cautions(pairs: list[int]) -> list[str]:
    """Explains what the intervals of so many pairs do not say: of the fewest, where there are more and less."""
    lines, enough = [], [n for n in pairs if n > 1]
    if len(enough) < len(pairs):
        lines.append(f"With a single pair there is no interval ({NOT_AVAILABLE}).")
    if enough:
        fewest = min(enough)
        known = COVERAGE[max(n for n in COVERAGE if n <= fewest)]
        coarse = (
            f"With {fewest} pairs{', the fewest,' if fewest < max(enough) else ''} it is coarse: it holds the true "
            f"difference in about {known} of 100 tables, not in 95 (of normal differences). "
        )
        student_t = "The t interval after it, Student's, holds in 95 if differences are normal."
        if fewest >= max(COVERAGE):
            coarse, student_t = "", student_t.replace("in 95", "in 95 of 100 tables")
        lines.append(coarse + student_t)
    return lines


def _about_choice(columns: list[Column]) -> list[str]:
    """That the baseline was chosen, between which, and that there are many intervals."""
    lines = []
    left_out = {
        column.label: ", ".join(f"{row.label} ({_counted_runs(row.n)})" for row in column.left_out)
        for column in columns
    }
    named = [f"{label}: {rows}" if label else rows for label, rows in left_out.items() if rows]
    if named:
        few = "for want of runs, or of runs in common with the methods"
        lines.append(f"Left out of the choice of the baseline {few}: {'; '.join(named)}.")
    if any(len(names) > 1 for column in columns for names in column.candidates.values()):
        lines.append(
            "The baseline is the best of several on these very runs, and partly so by chance: differences to it are if "
            "anything too small, and intervals hold less often than said here."
        )
    with_interval = [
        row for column in columns for row in column.rows
        if any(one.difference and one.difference.paired.bootstrap for one in row.figures.values())
    ]  # fmt: skip
    if len(with_interval) > 1:
        lines.append("Each interval is for itself: among many, some miss by chance.")
    return lines


def _counted_runs(number: int) -> str:
    return f"{number or 'no'} run{'s' * (number != 1)}"


def _about_teachers(report: Report, columns: list[Column]) -> list[str]:
    alone = [column.label for column in columns if len(column.teacher_hashes) == 1]
    if not alone:
        return []
    where = "" if len(report.columns) == 1 else " of a column"
    if len(alone) < len(columns):
        where = f" of {'; '.join(alone)}"
    return [f"All students{where} that have a teacher have the same one, so nothing is said about other teachers."]


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
    """The runs of `readme_table` after a correction of their logits; UserError where no run has it."""
    if kind == report.table.accuracy:
        raise UserError(f"table {report.table.name}: its own figures are {kind}; leave that out beside its name")
    blocks = []
    for column in report.columns:
        table = corrected_tables(report, column).get(kind)
        blocks += [] if table is None else [f"**{column.label}**"] * bool(column.label) + [_github(table)]
    if not blocks:
        raise UserError(f"table {report.table.name}: none of its runs has {kind} figures")
    return "\n\n".join([*blocks, sentence(f"{KINDS[kind]}; mean ± sample standard deviation {_over(report)}")])


def comma_separated(report: Report) -> str:
    """One line per row of each column, unrounded: n, seeds, and of each figure all that is known."""
    lines = []
    for column in report.columns:
        for row in column.rows:
            line = {**column.names, **row.names, "role": row.role, "accuracy": report.table.accuracy, "n": row.n}
            line["splits"] = row.splits
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
    """Differences to the best baseline and to each: one that is chosen before the runs has honest intervals."""
    chosen = one.difference
    numbers = {
        "": one.summary.mean if one.summary else None,
        " std": one.summary.deviation if one.summary else None,
        " against": chosen and chosen.against,
        **_of_difference(chosen and chosen.paired),
        " published": " ".join(str(value) for value, _ in one.published) or None,
    }
    for baseline, paired in one.to_each.items():
        numbers |= {f"{key} to {baseline}": value for key, value in _of_difference(paired).items()}
    return numbers


def _of_difference(paired: PairedDifference | None) -> dict[str, object]:
    bootstrap = (paired and paired.bootstrap) or (None, None)
    student_t = (paired and paired.student_t) or (None, None)
    return {
        " difference": paired and paired.mean, " pairs": paired and paired.n,
        " bootstrap low": bootstrap[0], " bootstrap high": bootstrap[1],
        " t low": student_t[0], " t high": student_t[1],
    }  # fmt: skip


def difference_text(one: Figure, pairs: int) -> str:
    """+2.31; [+1.20, +3.40]; t [−0.51, +5.13], bootstrap and Student's; a single pair has no interval: +2.31; n/a.

    Where there are other than `pairs` pairs, that is said too: +2.31; n/a; n = 1.
    """
    if one.difference is None:
        return NOTHING
    paired = one.difference.paired
    if paired.bootstrap is None:
        intervals = [NOT_AVAILABLE]
    else:
        bootstrap, student_t = (", ".join(map(signed, interval)) for interval in (paired.bootstrap, paired.student_t))
        intervals = [f"[{bootstrap}]", f"t [{student_t}]"]
    number = [] if paired.n == pairs else [f"n = {paired.n}"]
    return INTERVAL_SEPARATOR.join([signed(paired.mean), *intervals, *number])


def signed(value: float) -> str:
    """Writes a number with a sign that is as wide as a digit: +2.31, −0.40; 0.00 has none."""
    return "0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _mean(summary: Summary | None) -> str:
    return figure(summary.mean, summary.deviation) if summary else NOT_AVAILABLE


def _published(one: Figure) -> str:
    return ", ".join(f"{value:.2f} [{source}]" for value, source in one.published) or NOTHING


def _against(rows: list[Row], name: str) -> str:
    against = next((row.figures[name].difference.against for row in rows if row.figures[name].difference), None)
    return "" if against is None else f", to {against}"


def _overview(row: Row, column: Column) -> str:
    names = [ALL, *column.groups[-1:]]
    return " / ".join(f"{one.mean:.2f}" if (one := row.figures[name].summary) else NOT_AVAILABLE for name in names)


def _github(table: TextTable) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in table.body]
    align = ["left"] * table.names + ["right"] * (len(table.headers) - table.names)
    return tabulate(escaped, headers=table.headers, tablefmt="github", disable_numparse=True, colalign=align)


def _markdown_list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

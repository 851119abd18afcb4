"""A report's tables as text: what stands in their cells, for Markdown, LaTeX and the page."""

from dataclasses import dataclass

from ltkd.report.content import ALL, CellValue, Column, Corrected, Report, Row
from ltkd.results.corrections import evened_out_by
from ltkd.results.read import NOT_AVAILABLE, POST_HOC, cell_text
from ltkd.results.statistics import Summary
from ltkd.tables.table import TEACHER

NOTHING = "–"
FIDELITY_MARKS = {"adapted": "†", "inspired": "‡"}  # after the name of a method that is not its paper's
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
    published = [name for name in column.value_names if any(row.values[name].published for row in column.rows)]
    headers = [*axes, *_counts(report), *column.value_names, *(f"{name}, published" for name in published)]
    body = [
        [
            *_names(row, report.table.accuracy),
            *_counts(report, row),
            *(_mean(row.values[name].summary) for name in column.value_names),
            *(_published(row.values[name]) for name in published),
        ]
        for row in column.rows
    ]
    return TextTable(headers, body, [row.role for row in column.rows], len(axes))


def _names(row: Row, accuracy: str = "") -> list[str]:
    """The row's labels; the first has the mark of its method's fidelity, and says of a corrected `accuracy` what
    corrected it, or where that is the second correction."""
    first, *other_labels = row.names.values()
    first += FIDELITY_MARKS.get(row.fidelity, "")
    if accuracy in row.corrected and (after := row.corrected[accuracy].after):
        first += f" (second correction, after {after})"
    if accuracy == "corrected_once" and row.entries:
        by = evened_out_by(row.entries[0].result["identity"])
        first += f" ({'by ' + by if by else 'logits adjusted'})"
    return [name or NOTHING for name in (first, *other_labels)]


def _counts(report: Report, row: Row | None = None) -> list[str]:
    """Counts the values of a row's mean, or gives the headers of that: several splits count, not their runs."""
    if len(report.table.split_seeds) > 1:
        return ["splits", "runs"] if row is None else [str(row.splits), str(row.n)]
    return ["n"] if row is None else [str(row.n)]


def corrected_tables(report: Report, column: Column) -> dict[str, TextTable]:
    """Returns for each post-hoc correction the rows that have it, as they are and corrected, side by side.

    tau is a range where runs chose different ones.
    """
    axes, tables = list(report.table.rows), {}
    for kind in POST_HOC:
        rows = [row for row in column.rows if kind in row.corrected]
        if rows:
            body = [
                [
                    *(row.names[axis] or NOTHING for axis in axes),
                    *_counts(report, row),
                    _tau(row.corrected[kind]),
                    *_raw_and_corrected(row.corrected[kind], column),
                ]
                for row in rows
            ]
            values = [text for name in column.value_names for text in (name, f"{name}, corrected")]
            headers = [*axes, *_counts(report), "tau", *values]
            tables[kind] = TextTable(headers, body, [row.role for row in rows], len(axes))
    return tables


def _raw_and_corrected(corrected: Corrected, column: Column) -> list[str]:
    pairs = ((corrected.raw[name], corrected.summaries[name]) for name in column.value_names)
    return [_mean(summary) for pair in pairs for summary in pair]


def _tau(corrected: Corrected) -> str:
    taus, after = corrected.taus, f"; second, after {corrected.after}" if corrected.after else ""
    values = " to ".join(dict.fromkeys(f"{tau:g}" for tau in (taus[0][0], taus[-1][0])))
    return f"{values} ({', '.join(dict.fromkeys(chosen_by for _, chosen_by in taus))}{after})"


def difference_table(report: Report, column: Column) -> TextTable | None:
    """Differences to the best baseline with their intervals; None where nothing is compared."""
    rows = [row for row in column.rows if any(value.difference for value in row.values.values())]
    if not rows:
        return None
    axes = list(report.table.rows)
    headers = [*axes, "pairs", *(f"{name}{_against(rows, name)}" for name in column.value_names)]
    body = []
    for row in rows:
        pairs = max(value.difference.paired.n for value in row.values.values() if value.difference)
        differences = [difference_text(row.values[name], pairs) for name in column.value_names]
        body.append([*_names(row), str(pairs), *differences])
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
        matching_rows = [
            next((row for row in column.rows if tuple(row.names.items()) == key), None) for column in report.columns
        ]
        cells = [
            NOTHING if row is None else _overview(row, column)
            for row, column in zip(matching_rows, report.columns, strict=True)
        ]
        body.append([*(dict(key)[axis] or NOTHING for axis in axes), *cells])
        roles.append(next(row.role for row in matching_rows if row is not None))
    return TextTable([*axes, *(column.label for column in report.columns)], body, roles, len(axes))


def difference_text(value: CellValue, pairs: int) -> str:
    """Writes +2.31; [+1.20, +3.40] with Student's interval; a single pair has none: +2.31; n/a.

    Where there are other than `pairs` pairs, that is said too: +2.31; n/a; n = 1.
    """
    if value.difference is None:
        return NOTHING
    paired = value.difference.paired
    interval = f"[{', '.join(map(signed, paired.interval))}]" if paired.interval else NOT_AVAILABLE
    number = [] if paired.n == pairs else [f"n = {paired.n}"]
    return INTERVAL_SEPARATOR.join([signed(paired.mean), interval, *number])


def signed(value: float) -> str:
    """Writes a number with a sign that is as wide as a digit: +2.31, −0.40; 0.00 has none."""
    return "0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")


def _mean(summary: Summary | None) -> str:
    return cell_text(summary.mean, summary.deviation) if summary else NOT_AVAILABLE


def _published(cell_value: CellValue) -> str:
    return ", ".join(f"{value:.2f} [{source}]" for value, source in cell_value.published) or NOTHING


def _against(rows: list[Row], name: str) -> str:
    against = next((row.values[name].difference.against for row in rows if row.values[name].difference), None)
    return "" if against is None else f", to {against}"


def _overview(row: Row, column: Column) -> str:
    names = [ALL, *column.groups[-1:]]
    return " / ".join(
        f"{summary.mean:.2f}" if (summary := row.values[name].summary) else NOT_AVAILABLE for name in names
    )

"""A report's tables for a paper: booktabs, with sources and notes below."""

import re
from collections.abc import Container

from ltkd.report.content import Column, Report
from ltkd.report.explanations import about_differences, explanations
from ltkd.report.text_tables import TextTable, difference_table, main_table
from ltkd.tables.table import TEACHER

COMMANDS = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "±": r"$\pm$", "–": "--", "−": "$-$",
    "->": r"$\rightarrow$", "<": "$<$", ">": "$>$",
}  # fmt: skip
ESCAPED = re.compile("|".join(map(re.escape, COMMANDS)))
SPREAD = re.compile(r"\$\\pm\$ .*")  # of a mean, its standard deviation


def latex(report: Report) -> str:
    """Writes booktabs tables, for each column its accuracies and differences; the best mean of students is bold."""
    tables = []
    for column in report.columns:
        caption = ". ".join(filter(None, [report.table.title, column.label]))
        accuracies, differences = main_table(report, column), difference_table(report, column)
        about, *notes = explanations(report)
        compared = about_differences(report)
        below = [note for note in notes if note not in compared]
        tables.append(_latex_table(accuracies, f"{caption}. {about}", below, bold=_best(column, accuracies)))
        if differences is not None:
            tables.append(_latex_table(differences, f"{caption}. Differences to the best baseline.", compared))
    return "\n\n".join(tables) + "\n"


def _best(column: Column, table: TextTable) -> set[tuple[int, int]]:
    """Returns the places (line, column of the table) of the highest mean of a student in each value."""
    best = {name: max(means) for name in column.value_names if (means := _means(column, name))}
    return {
        (line, table.headers.index(name, table.names))
        for line, row in enumerate(column.rows)
        for name, highest in best.items()
        if row.role != TEACHER and (summary := row.values[name].summary) and summary.mean == highest
    }


def _latex_table(table: TextTable, caption: str, notes: list[str], bold: Container[tuple[int, int]] = ()) -> str:
    """Writes one table; `notes` stand below it, in small print."""
    lines, previous = [], None
    for line, (role, cells) in enumerate(zip(table.roles, table.body, strict=True)):
        texts = [_latex_cell(table.lines(cell, index)) for index, cell in enumerate(cells)]
        texts = [rf"\textbf{{{text}}}" if (line, index) in bold else text for index, text in enumerate(texts)]
        if previous not in (None, role):
            lines.append(r"\midrule")
        elif previous is not None and table.in_lines:
            lines.append(r"\addlinespace")
        previous = role
        lines.append(" & ".join(texts) + r" \\")
    columns = "l" * table.names + "r" * (len(table.headers) - table.names)
    small_print = [rf"\par\smallskip{{\footnotesize\raggedright {_latex(note)}\par}}" for note in notes]
    return "\n".join(
        [
            r"\begin{table}", rf"\caption{{{_latex(caption)}}}", r"\centering\small\setlength{\tabcolsep}{3pt}",
            r"\smallskip", rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
            " & ".join(map(_latex, table.headers)) + r" \\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}",
            *small_print, r"\end{table}",
        ]
    )  # fmt: skip


def _latex_cell(lines: list[str]) -> str:
    """Sets lines above each other, in smaller print what belongs to the number."""
    first, *further_lines = map(_latex, lines)
    first = SPREAD.sub(lambda spread: rf"{{\scriptsize {spread[0]}}}", first)
    if not further_lines:
        return first
    # braces: the bracket of an interval would be an argument of the line break before it
    below = "".join(rf"\\ {{\scriptsize {line}}}" for line in further_lines)
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{first}{below}\end{{tabular}}"


def _latex(text: str) -> str:
    """Escapes in one pass: what stands for a character is not looked at again."""
    return ESCAPED.sub(lambda match: COMMANDS[match[0]], text)


def _means(column: Column, name: str) -> list[float]:
    return [row.values[name].summary.mean for row in column.rows if row.role != TEACHER and row.values[name].summary]

"""A report as Markdown, and its tables for README and docs."""

from dataclasses import replace

from tabulate import tabulate

from ltkd.errors import UserError
from ltkd.report.content import Report
from ltkd.report.explanations import (
    about_correction,
    about_differences,
    about_overview,
    explanations,
    legend,
    named_sources,
)
from ltkd.report.text_tables import TextTable, corrected_tables, difference_table, main_table, overview_table
from ltkd.results.code import of_several_commits


def markdown(report: Report) -> str:
    """The whole report but its plots."""
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
            blocks += [about_correction(report, kind), _github(table)]
    if report.missing:
        blocks += ["## Missing", _markdown_list(report.missing_in_short)]
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
    return "\n\n".join([*blocks, *texts, *_about_code(report), *missing, f"{command} ({place})"])


def _about_code(report: Report) -> list[str]:
    rows = [row for column in report.columns for row in column.rows]
    mixed = [row.label for row in rows if of_several_commits(entry.result for entry in row.entries)]
    return [f"Runs of several commits in one row: {'; '.join(dict.fromkeys(mixed))}."] if mixed else []


def brief_table(report: Report) -> str:
    """The rows that have run, and their legend, for a page that names another with the whole table."""
    finished = [replace(column, rows=[row for row in column.rows if row.n]) for column in report.columns]
    report = replace(report, columns=finished)
    tables = []
    for column in report.columns:
        tables += [f"**{column.label}**"] * (len(report.columns) > 1)
        tables.append(_github(main_table(report, column)))
    missing = [f"Missing runs: {len(report.missing)}."] if report.missing else []
    sources = [f"{source}." for source in named_sources(report)]
    return "\n\n".join([*tables, " ".join([*legend(report), *sources, *missing])])


def readme_correction(report: Report, kind: str) -> str:
    """The runs of `readme_table`, raw and corrected; UserError where no run has the correction."""
    blocks = []
    for column in report.columns:
        table = corrected_tables(report, column).get(kind)
        blocks += [] if table is None else [f"**{column.label}**"] * bool(column.label) + [_github(table)]
    if not blocks:
        raise UserError(f"table {report.table.name}: none of its runs has {kind} accuracies")
    return "\n\n".join([*blocks, about_correction(report, kind)])


def _github(table: TextTable) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in table.body]
    align = ["left"] * table.names + ["right"] * (len(table.headers) - table.names)
    return tabulate(escaped, headers=table.headers, tablefmt="github", disable_numparse=True, colalign=align)


def _markdown_list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

"""Writes cells of runs as rows: means over seeds, as a table or as CSV."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from ltkd.results.collect import SeedGroup
from ltkd.results.corrections import evened_out_by
from ltkd.results.read import CORRECTED, KINDS, MEAN, POST_HOC, accuracy_record, cell_text, correction, is_unbalanced

LEARNED_FROM_VALIDATION = "(trained on the validation images too)"  # in a row's settings


def summary_rows(cells: list[SeedGroup], kind: str) -> list[dict[str, Any]]:
    """Returns a flat row per cell: names, settings, n, mean and sample deviation of each accuracy (None: n/a)."""
    columns = list(dict.fromkeys(cell.column(group) for cell in cells for group in cell.group_names))
    unbalanced = any(is_unbalanced(accuracy_record(run, kind)) for cell in cells for run in cell.runs)
    everywhere = {"all": None} | ({MEAN: MEAN} if unbalanced else {})
    cells = [part for cell in cells for part in _by_tau(cell, kind)]
    rows = []
    for cell in cells:
        row = {**cell.names, "settings": _settings_of(cell, kind), "accuracy": kind, "n": len(cell.values(kind, None))}
        groups = everywhere | {cell.column(group): group for group in cell.group_names}
        for column in (*everywhere, *columns):
            values = cell.values(kind, groups[column]) if column in groups else []
            row[column] = mean(values) if values else None
            row[f"{column} std"] = stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def _settings_of(cell: SeedGroup, kind: str) -> str:
    """The cell's settings, with marks of what corrected it, and where validation images were trained on."""
    by, how = evened_out_by(cell.identity), ""
    if kind == "corrected_once":
        how = f"(corrected by {by})" if by else "(logits adjusted)"
    elif kind in POST_HOC and by:
        how = f"(second correction, after {by})"
    return " ".join(filter(None, [cell.settings, how, LEARNED_FROM_VALIDATION * cell.learned_from_validation]))


def _by_tau(cell: SeedGroup, kind: str) -> list[SeedGroup]:
    """Splits a cell by the tau that its runs were corrected with post hoc, which is no part of a run's identity.

    Where validation images chose it, the choice is the correction, whatever tau it led to.
    """
    if kind not in CORRECTED:
        return [cell]
    parts = defaultdict(list)
    for run in cell.runs:
        if corrected := correction(run, kind):
            chosen = corrected["chosen_by"] == "validation"
            parts["tau by validation" if chosen else f"tau={corrected['tau']:g}"].append(run)
    if len(parts) < 2:
        return [cell]
    return [replace(cell, settings=f"{cell.settings} {tau}".strip(), runs=parts[tau]) for tau in sorted(parts)]


def markdown(cells: list[SeedGroup], kind: str, notes: Iterable[str] = ()) -> str:
    """Writes the table and what it shows: mean ± sample standard deviation; a single run has no deviation.

    notes: lines below the table.
    """
    rows = summary_rows(cells, kind)
    if not rows:
        return "no finished run"
    fixed = [
        key for key in ("dataset", "teacher", "student", "method", "settings", "n") if any(row[key] for row in rows)
    ]
    accuracies = [key.removesuffix(" std") for key in rows[0] if key.endswith(" std")]
    body = [
        [row[key] if row[key] not in (None, "") else "-" for key in fixed]
        + [cell_text(row[key], row[f"{key} std"]) for key in accuracies]
        for row in rows
    ]
    table = tabulate(body, headers=[*fixed, *accuracies], tablefmt="github", disable_numparse=True)
    below = "".join(f"\n\n{note}" for note in notes)
    return f"{KINDS[kind]}; mean ± standard deviation over n runs\n\n{table}{below}"


def comma_separated(cells: list[SeedGroup], kind: str) -> str:
    """Writes the same as CSV, unrounded."""
    rows = summary_rows(cells, kind)
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["n"])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()

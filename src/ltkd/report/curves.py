"""Reads metrics.jsonl of the runs in a cell: one curve per metric, with its range over the seeds."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.results.files import RunFiles


@dataclass(frozen=True)
class Curve:
    """Mean, lowest and highest over the runs in each epoch that all runs have."""

    epochs: list[int]
    means: list[float]
    lows: list[float]
    highs: list[float]

    def thinned(self, most: int) -> "Curve":
        """Returns about `most` epochs at most, evenly spaced, with the last one."""
        step = -(-len(self.epochs) // most)
        return Curve(*(values[::-1][::step][::-1] for values in (self.epochs, self.means, self.lows, self.highs)))


def read_metrics(directory: Path | None, groups: list[int] | None = None) -> list[dict[str, Any]]:
    """Returns a dictionary per epoch; empty where there is no such file. UserError, naming it, when it is damaged.

    groups [C]: those that the report is in; metrics of other groups, which may have the same names, are left out.
    """
    files = RunFiles(directory) if directory else None
    if files is None or not files.metrics.exists():
        return []
    path = files.metrics
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if not all(isinstance(line, dict) and "epoch" in line for line in lines):
            raise ValueError("a line has no epoch")
        manifest = read_json(files.manifest) if files.manifest.exists() else {}
        other_groups = manifest.get("group_names", []) if groups not in (None, manifest.get("groups", groups)) else []
        return [
            {key: value for key, value in line.items() if key.rpartition("/")[2] not in other_groups} for line in lines
        ]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete its run's folder to run it again") from error


def curve(histories: Iterable[list[dict[str, Any]]], metric: str) -> Curve | None:
    """Averages `metric` over the runs' histories; None where no epoch has it in all of them."""
    by_run = [
        {line["epoch"]: line[metric] for line in history if line.get(metric) is not None} for history in histories
    ]
    epochs = sorted(set.intersection(*map(set, by_run))) if by_run else []
    if not epochs:
        return None
    values = [[run[epoch] for run in by_run] for epoch in epochs]
    return Curve(
        epochs,
        [mean(at_epoch) for at_epoch in values],
        [min(at_epoch) for at_epoch in values],
        [max(at_epoch) for at_epoch in values],
    )

"""Counts what was tried and what went as it should, and makes the table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ltkd.files import write_json, write_text

FAILURES = "Failures (one part again: python scripts/drill.py --parts NAME --seed SEED):"


@dataclass
class Row:
    """One kind of trouble."""

    tried: int = 0
    good: int = 0
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # what happened, and how to see it again


class Report:
    """The rows of the drill; a row that was not tried at all says so and is no failure."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.rows: dict[str, Row] = {}
        self._say = say

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row())

    def count(self, name: str, failure: str | None, times: int = 1) -> None:
        """Notes a trial of a kind; `failure` is None where all was as it should be."""
        row = self.row(name)
        row.tried += times
        row.good += times * (failure is None)
        if failure is not None:
            row.failures.append(failure)
            self._say(f"FAILED: {name}: {failure}")

    @property
    def passed(self) -> bool:
        return all(row.tried == row.good for row in self.rows.values())

    def table(self) -> str:
        cells: Sequence[list[Any]] = [
            [name, row.tried or "not tried", row.good, "; ".join(row.notes)] for name, row in self.rows.items()
        ]
        headers = ["what", "how many", "as it should be", "notes"]
        return tabulate(cells, headers=headers, tablefmt="github", colalign=("left", "right", "right", "left"))

    def text(self, about: dict[str, Any]) -> str:
        """The table in Markdown, what the drill was run on, and what failed."""
        failures = [f"- {name}: {failure}" for name, row in self.rows.items() for failure in row.failures]
        circumstances = "; ".join(f"{key} {value}" for key, value in about.items())
        return "\n".join([self.table(), "", circumstances, *(["", FAILURES, "", *failures] if failures else [])])

    def write(self, folder: Path, about: dict[str, Any]) -> None:
        write_text(folder / "drill.md", self.text(about) + "\n")
        write_json(folder / "drill.json", about | {"rows": {name: asdict(row) for name, row in self.rows.items()}})

"""Draws a report's plots: they read in grey, and nothing depends on telling red from green.

Colours are Okabe and Ito's; every series has a line style and a marker of its own too, the same in all plots, and its
name stands at its line.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltkd.report.content import ALL, Column, Row
from ltkd.report.curves import read_metrics
from ltkd.tables.table import TEACHER

if TYPE_CHECKING:  # matplotlib takes a second to import, and only a report wants it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches: a page's text width
MAX_SERIES = 6  # lines that can be told apart
STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.6, "lines.markersize": 4.5,
    "svg.hashsalt": "ltkd", "figure.constrained_layout.use": True,
}  # fmt: skip
# yellow is left out: on white paper it cannot be seen
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
LINES = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))]
MARKERS = ["o", "s", "^", "D", "v", "P"]
TEACHER_LOOK = {"color": "#000000", "linestyle": (0, (3, 2)), "marker": "x"}
TRAINED_LOOK = {"color": "#000000", "linestyle": "-", "linewidth": 0.9}  # the teacher's level, without a marker
REFERENCE_LOOK = {"color": "#777777", "linestyle": ":", "linewidth": 1.2}
LINE_HEIGHT = 11  # points between two labels


@dataclass(frozen=True)
class Picture:
    """A plot as SVG, with a caption that says what to see in it."""

    name: str
    title: str
    caption: str
    svg: bytes


@dataclass(frozen=True)
class Series:
    """A row as it is drawn in every plot."""

    row: Row
    look: dict[str, Any]
    histories: list[list[dict[str, Any]]]  # metrics.jsonl of its runs

    @property
    def is_teacher(self) -> bool:
        return self.row.role == TEACHER


@dataclass(frozen=True)
class End:
    """The end of a line, for its label."""

    value: float
    label: str
    look: dict[str, Any]


def choose_series(column: Column) -> list[Series]:
    """The methods that are compared, the best baselines as far as there is room, and the teacher if it is one kind."""
    rows = [row for row in column.rows if row.n and row.values[ALL].summary]
    by_mean = sorted(rows, key=lambda row: -row.values[ALL].summary.mean)
    methods, baselines, teachers = ([r for r in by_mean if r.role == role] for role in ("method", "baseline", TEACHER))
    room = MAX_SERIES - min(len(baselines), 1)  # one baseline is always there to compare with
    chosen = [*methods[:room], *baselines][:MAX_SERIES]
    # the last row of a table is mostly the proposed method: it has the first look in every table
    ordered = [row for row in reversed(rows) if row in chosen]
    looks = [
        {"color": colour, "linestyle": line, "marker": marker}
        for colour, line, marker in zip(COLOURS, LINES, MARKERS, strict=True)
    ]
    series = [Series(row, look, _histories(row)) for row, look in zip(ordered, looks, strict=False)]
    return series + [Series(row, TEACHER_LOOK, _histories(row)) for row in teachers if len(teachers) == 1]


def _histories(row: Row) -> list[list[dict[str, Any]]]:
    of_teacher = row.role == TEACHER
    histories = [
        read_metrics(entry.teacher_directory if of_teacher else entry.directory, entry.result["groups"])
        for entry in row.entries
    ]
    return [history for history in histories if history]


def about_choice(column: Column, series: list[Series]) -> str:
    """Says for captions which rows are drawn, where not all are."""
    students = sum(row.n > 0 and row.role != TEACHER for row in column.rows)
    drawn = sum(not line.is_teacher for line in series)
    if drawn == students:
        return ""
    return f" {drawn} of {students} rows are drawn: methods before baselines, by accuracy over all classes."


def new_figure(height: float) -> "Figure":
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    return Figure(figsize=(WIDTH, height))


def picture(figure: "Figure", name: str, title: str, caption: str) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})  # the same numbers give the same bytes
    return Picture(name, title, caption, file.getvalue())


def label_ends(axis: "Axes", ends: list[End]) -> None:
    """Draws each line's look and name right of the panel, as near to its end as there is room, and a line to it."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    axis.figure.canvas.draw()  # limits and height are final only then
    low, high = axis.get_ylim()
    gap = LINE_HEIGHT / (axis.get_window_extent().height / axis.figure.dpi * 72)
    ends = sorted(ends, key=lambda end: end.value)
    heights = [(end.value - low) / (high - low) for end in ends]
    inches = axis.figure.dpi_scale_trans + ScaledTranslation(1, 0, axis.transAxes)  # from the panel's right edge
    beside = {"transform": blended_transform_factory(inches, axis.transAxes), "clip_on": False}
    for end, height, place in zip(ends, heights, spread(heights, gap), strict=True):
        axis.plot([0.02, 0.14], [height, place], color=end.look["color"], linewidth=0.7, **beside)
        axis.plot([0.17, 0.29, 0.41], [place] * 3, markevery=[1], **beside, **end.look)
        axis.text(0.46, place, end.label, va="center", fontsize=8, color="#1a1a1a", **beside)


def spread(places: list[float], gap: float) -> list[float]:
    """Moves ascending places apart to at least `gap`, neighbours by the same amount, inside 0 .. 1 if there is room."""
    moved = np.array(places)
    for _ in range(200):
        short = np.maximum(gap - np.diff(moved), 0)
        if not short.any() or short.max() < gap / 100:
            break
        moved[1:] += short / 2
        moved[:-1] -= short / 2
    steps = gap * np.arange(len(moved))
    moved = np.minimum(moved, 1 - steps[::-1])
    return np.maximum(moved, np.minimum(steps, 1 - steps[::-1].max(initial=0) + steps)).tolist()

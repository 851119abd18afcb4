"""The plots of a report: groups, classes, learning curves, and the bias of teacher and students over training."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ltkd.report.content import ALL, Column, Report, Row
from ltkd.report.curves import Curve, curve
from ltkd.report.drawing import (
    REFERENCE_LOOK,
    STYLE,
    TRAINED_LOOK,
    End,
    Picture,
    Series,
    about_choice,
    choose_series,
    label_ends,
    new_figure,
    picture,
)
from ltkd.results.read import accuracy_record
from ltkd.tables.table import TEACHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_GROUPS = 4  # panels side by side
MAX_POINTS = 80  # of a curve: more are not seen in a panel, and are what the size of a page is made of
BAR_LOOKS = {
    TEACHER: {"color": "white", "edgecolor": "#555555", "hatch": "////"},
    "baseline": {"color": "#bbbbbb", "edgecolor": "#555555"},
    "method": {"color": "#0072B2", "edgecolor": "#003a5c"},
}
PUBLISHED_LOOK = {"marker": "D", "color": "#D55E00", "markeredgecolor": "white", "markersize": 5.5, "zorder": 4}
RUN_LOOK = {"color": "white", "markeredgecolor": "black", "markersize": 3, "markeredgewidth": 0.6, "zorder": 3}


def draw_column(report: Report, column: Column) -> list[Picture]:
    """Draws all plots of a column for which there is something to draw."""
    import matplotlib as mpl

    series = choose_series(column)
    with mpl.rc_context(STYLE):
        drawn = [
            group_bars(report, column),
            class_accuracy(report, column, series),
            learning_curves(report, column, series),
            group_masses(column, series),
        ]
    return [drawing for drawing in drawn if drawing is not None]


def group_bars(report: Report, column: Column) -> Picture | None:
    """Draws a panel for each value, a bar for each row; deviations are lines, runs dots, published values diamonds."""
    rows = [row for row in column.rows if any(value.summary or value.published for value in row.values.values())]
    if not rows:
        return None
    names = column.value_names[: MAX_GROUPS + 1]
    drawing = new_figure(0.6 + 0.32 * len(rows))
    panels = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    positions = range(len(rows))[::-1]
    for panel, name in zip(panels, names, strict=True):
        ends = [_bar(panel, position, row, name) for position, row in zip(positions, rows, strict=True)]
        panel.set_title(name)
        panel.set_xlim(0, max([*ends, 1]) * 1.4)  # room for the number at the longest bar
        panel.set_xlabel("accuracy in %")
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
        panel.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(list(positions), [row.label for row in rows])
    between = " between splits" if len(report.table.split_seeds) > 1 else ""
    caption = (
        "Who pays at the head for a gain at the tail. Blue: the methods that are compared; grey: baselines; hatched: "
        f"the teacher. Lines are standard deviations{between}, dots are single runs; the numbers are means."
    )
    if any(value.published for row in rows for value in row.values.values()):
        caption += " A diamond is the published value."
    return picture(drawing, "groups", "Accuracy by group", caption)


def _bar(panel: "Axes", position: int, row: Row, name: str) -> float:
    """Draws a row's value and returns how far to the right it reaches."""
    cell_value, end = row.values[name], 0.0
    for value, _ in cell_value.published:
        panel.plot(value, position, **PUBLISHED_LOOK)
        end = max(end, value)
    if cell_value.summary is None:
        return end
    mean, deviation = cell_value.summary.mean, cell_value.summary.deviation or 0.0
    panel.barh(position, mean, height=0.68, linewidth=0.8, **BAR_LOOKS[row.role])
    if cell_value.summary.n > 1:
        panel.errorbar(mean, position, xerr=deviation, color="black", linewidth=1, capsize=2)
        panel.plot(list(cell_value.by_pair.values()), [position] * len(cell_value.by_pair), "o", **RUN_LOOK)
    # in a column at the right and not at the bar's end, where it would look like the published value's
    panel.text(1.0, position, f"{mean:.1f}", transform=panel.get_yaxis_transform(), ha="right", va="center", fontsize=8)
    return max(end, mean + deviation)


def class_accuracy(report: Report, column: Column, series: list[Series]) -> Picture | None:
    """Draws the accuracy of the classes from frequent to rare, as means over neighbours where there are many."""
    per_class = [(line, _mean_per_class(line.row, report.table.accuracy)) for line in series]
    per_class = [(line, values) for line, values in per_class if values is not None]
    if not per_class:
        return None
    result = series[0].row.entries[0].result
    counts, groups = np.array(result["class_counts"]), np.array(result["groups"])
    order = np.argsort(-counts, kind="stable")
    window = max(1, len(counts) // 10)
    drawing = new_figure(3.2)
    panel = drawing.subplots()
    ranks, ends = np.arange(len(order)), []
    for line, values in per_class:
        smooth = _means_of_neighbours(values[order], window)
        panel.plot(_means_of_neighbours(ranks, window), smooth, markevery=max(1, len(smooth) // 10), **line.look)
        ends.append(End(smooth[-1], line.row.label, line.look))
    caption = "Where along the tail accuracy is won or lost; means over the runs of a row."
    if window > 1:
        first, values = per_class[0]
        panel.plot(ranks, values[order], ".", color=first.look["color"], alpha=0.35, markersize=4, zorder=1)
        caption += (
            f" Lines are means over {window} neighbouring classes, the dots behind them the single classes of "
            f"{first.row.label}."
        )
    ticks = np.unique(np.linspace(0, len(order) - 1, min(len(order), 10)).astype(int))
    panel.set_xticks(ticks, [str(counts[order[tick]]) for tick in ticks])
    panel.set_xlabel("training images of the class, classes from frequent to rare")
    panel.set_ylabel("accuracy in %")
    panel.set_ylim(0, None)
    panel.set_xlim(-0.5, len(order) - 0.5)
    _mark_groups(panel, groups[order], result["group_names"])
    label_ends(panel, ends)
    return picture(drawing, "classes", "Accuracy by class frequency", caption + about_choice(column, series))


def _mean_per_class(row: Row, kind: str) -> np.ndarray | None:
    """[C] over the runs, NaN for a class without images; None where no run has any, as those of the ledger."""
    records = [accuracy_record(entry.result, kind) or {} for entry in row.entries]
    accuracies = [record["per_class"] for record in records if "per_class" in record]
    values = [[np.nan if value is None else value for value in per_class] for per_class in accuracies]
    return np.mean(values, axis=0) if values else None


def _means_of_neighbours(values: np.ndarray, window: int) -> np.ndarray:
    return np.convolve(values, np.ones(window) / window, mode="valid")


def _mark_groups(panel: "Axes", groups: np.ndarray, names: list[str]) -> None:
    """Writes each group's name above its classes."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(groups)], strict=True):
        if start:
            panel.axvline(start - 0.5, color="#888888", linewidth=0.8, linestyle=":")
        panel.text(
            (start + end - 1) / 2,
            1.01,
            names[groups[start]],
            transform=panel.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color="#444444",
        )


def learning_curves(report: Report, column: Column, series: list[Series]) -> Picture | None:
    """Draws accuracy by epoch, over all classes and in the groups."""
    part = "validation" if report.table.accuracy == "validation" else "test"
    panels = {ALL: f"{part}/accuracy"} | {group: f"{part}/accuracy/{group}" for group in column.groups[:MAX_GROUPS]}
    curves = _curves(series, panels.values())
    if not curves:
        return None
    num_rows = -(-len(panels) // 2)
    drawing = new_figure(0.3 + 2.1 * num_rows)
    axes = drawing.subplots(num_rows, 2, squeeze=False, sharex=True)
    for index, (axis, (name, metric)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        ends = _plot_curves(axis, series, curves, metric)
        axis.set_title(name)
        axis.set_ylim(0, None)
        axis.margins(x=0.01)
        if index % 2 == 0:
            axis.set_ylabel("accuracy in %")
        if index >= len(panels) - 2:
            axis.set_xlabel("epoch")
            axis.tick_params(labelbottom=True)
        if index % 2 == 1 or index == len(panels) - 1:
            label_ends(axis, ends)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    caption = (
        f"Who learns faster, who higher, and who is not done at the end; accuracy on the {part} part. Lines are means "
        "over the runs of a row, bands reach from its lowest to its highest run."
    )
    return picture(drawing, "curves", "Learning curves", caption + about_choice(column, series))


def group_masses(column: Column, series: list[Series]) -> Picture | None:
    """Draws the mean probability that networks give to each group, on training batches and on the test part."""
    groups = column.groups[:MAX_GROUPS]
    parts = {"training images": "train/group_mass/student", "test images": "test/group_mass"}
    students = [line for line in series if not line.is_teacher]
    metrics = [f"{metric}/{group}" for metric in parts.values() for group in groups]
    if not _curves(students, metrics):
        return None
    curves = _curves(series, metrics)  # to itself a teacher is a student
    teachers_learn = any((line.row.label, metric) in curves for line in series if line.is_teacher for metric in metrics)
    shares = _shares(students[0].row)
    drawing = new_figure(4.6)
    axes = drawing.subplots(2, len(groups), squeeze=False, sharex=True)
    for index, (part, metric) in enumerate(parts.items()):
        for axis, group in zip(axes[index], groups, strict=True):
            ends = _plot_curves(axis, students, curves, f"{metric}/{group}")
            teachers = [line for line in series if line.is_teacher]
            learning = _plot_curves(axis, teachers, curves, f"{metric}/{group}")
            ends += [replace(end, label=f"{end.label}, in training") for end in learning]
            ends += _plot_trained_teachers(axis, series, part, group)
            axis.axhline(shares[part][group], **REFERENCE_LOOK)
            ends.append(End(shares[part][group], f"the {part}", REFERENCE_LOOK))
            axis.margins(x=0.01, y=0.1)
            axis.locator_params(axis="y", nbins=6)
            if index == 0:
                axis.set_title(group)
            else:
                axis.set_xlabel("epoch")
            if group == groups[0]:
                axis.set_ylabel(f"{part}\nprobability in %")
            if group == groups[-1]:
                label_ends(axis, ends)
    caption = (
        "The bias of teacher and students: the mean probability that a network gives to the classes of a group, above "
        "on the batches it is trained on, below on the test part. Dotted is what is there: the group's share of the "
        "images. A line below the dotted one at the tail, on the test part, is a network biased against it."
    )
    if any(line.is_teacher for line in series):
        caption += (
            " The thin line is the teacher after its own training: above on the students' batches, below on the test "
            "part."
        )
    if teachers_learn:
        caption += " With crosses is the teacher in its own training, over its own epochs."
    title = "Probability given to the groups over training"
    return picture(drawing, "bias", title, caption + about_choice(column, series))


def _plot_trained_teachers(axis: "Axes", series: list[Series], part: str, group: str) -> list[End]:
    """Draws a trained teacher: on training images by its students' metrics, on the test part as a level."""
    ends = []
    for teacher in (line for line in series if line.is_teacher):
        if part == "training images":
            metric = f"train/group_mass/teacher/{group}"
            taught = [
                history for line in series if not line.is_teacher for history in line.histories if metric in history[-1]
            ]
            taught_curve = curve(taught, metric)
            if taught_curve is None:
                continue
            axis.plot(taught_curve.epochs, taught_curve.means, **TRAINED_LOOK)
            end = taught_curve.means[-1]
        else:
            masses = [entry.result["accuracy"]["last"]["group_mass"][group] for entry in teacher.row.entries]
            if None in masses:  # a group without a class
                continue
            end = np.mean(masses)
            axis.axhline(end, **TRAINED_LOOK)
        ends.append(End(end, f"{teacher.row.label}, trained", TRAINED_LOOK))
    return ends


def _shares(row: Row) -> dict[str, dict[str, float]]:
    """The groups' shares of the training images and of the test part, in %."""
    result = row.entries[0].result
    names, groups, trained = (np.array(result[key]) for key in ("group_names", "groups", "class_counts"))
    tested = np.array(result.get("test_counts") or np.ones_like(trained))  # not in the oldest results
    return {
        images: {name: 100 * counts[groups == i].sum() / counts.sum() for i, name in enumerate(names)}
        for images, counts in {"training images": trained, "test images": tested}.items()
    }


def _curves(series: list[Series], metrics: Iterable[str]) -> dict[tuple[str, str], Curve]:
    """Maps (row label, metric) to its curve, where there is one."""
    curves = {(line.row.label, metric): curve(line.histories, metric) for metric in metrics for line in series}
    return {key: points.thinned(MAX_POINTS) for key, points in curves.items() if points is not None}


def _plot_curves(axis: "Axes", series: list[Series], curves: dict[tuple[str, str], Curve], metric: str) -> list[End]:
    """Draws the series that have the metric."""
    ends = []
    for line in series:
        drawn = curves.get((line.row.label, metric))
        if drawn is not None:
            axis.plot(drawn.epochs, drawn.means, markevery=_every(drawn), **line.look)
            axis.fill_between(drawn.epochs, drawn.lows, drawn.highs, color=line.look["color"], alpha=0.15, linewidth=0)
            ends.append(End(drawn.means[-1], line.row.label, line.look))
    return ends


def _every(drawn: Curve) -> int:
    """Spaces markers so that a line has some eight."""
    return max(1, len(drawn.epochs) // 8)

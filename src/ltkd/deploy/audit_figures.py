"""The figures of an audit's page, drawn as those of a report."""

from typing import TYPE_CHECKING

import numpy as np

from ltkd.data import LongTailData
from ltkd.deploy.corrections import NAMES
from ltkd.deploy.findings import Findings
from ltkd.report.drawing import COLOURS, LINES, MARKERS, REFERENCE_LOOK, STYLE, Picture, new_figure, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = {"color": "#0072B2", "edgecolor": "#003a5c"}
SECOND_BAR = {"color": "white", "edgecolor": "#555555", "hatch": "////"}


def draw(findings: Findings, data: LongTailData) -> dict[str, Picture]:
    """The figures by name: groups, classes, calibration and, where there is one, correction."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        drawn = [group_bias(findings, data), class_frequency(findings, data), calibration(findings)]
        drawn += [correction(findings, data)] if findings.corrected else []
    return {drawing.name: drawing for drawing in drawn}


def group_bias(findings: Findings, data: LongTailData) -> Picture:
    """Accuracy by group; the share of the predictions beside the share of the test images."""
    names, groups = data.split.group_names, data.split.groups
    figure = new_figure(2.4)
    left, right = figure.subplots(1, 2)
    places = np.arange(len(names))
    accuracy = [findings.evaluation.per_group[name] or 0 for name in names]
    left.bar(places, accuracy, width=0.6, **BAR)
    left.set_title("accuracy, %")
    true_share = 100 * np.bincount(groups[data.test_labels], minlength=len(names)) / len(data.test_labels)
    predicted = [findings.predicted_share[name] for name in names]
    right.bar(places - 0.2, true_share, width=0.4, label="of the test images", **SECOND_BAR)
    right.bar(places + 0.2, predicted, width=0.4, label="of the predictions", **BAR)
    right.set_title("share, %")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.set_xticks(places, names)
        axis.grid(visible=False, axis="x")
    caption = "An unbiased network predicts each group as often as it occurs."
    return picture(figure, "groups", "Accuracy and bias by group", caption)


def class_frequency(findings: Findings, data: LongTailData) -> Picture:
    """Accuracy and confidence of each class over its number of training images."""
    findings_shown = [finding for finding in findings.classes if finding is not None]
    counts = np.array([data.split.class_counts[finding.label] for finding in findings_shown])
    figure = new_figure(2.9)
    axis = figure.subplots()
    for values, name, colour, marker in (
        ([finding.accuracy for finding in findings_shown], "accuracy", COLOURS[1], "o"),
        ([100 * finding.confidence for finding in findings_shown], "mean confidence", COLOURS[0], "^"),
    ):
        axis.plot(counts, values, linestyle="none", marker=marker, color=colour, alpha=0.75, label=name)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")  # 100, not a power of ten
    axis.set_xlabel("training images of the class")
    axis.set_ylabel("%")
    axis.set_ylim(-3, 103)
    axis.legend(frameon=False, fontsize=8)
    caption = (
        "One mark of each kind for each class, on its test images. Where confidence lies above accuracy the network is "
        "surer than it is right."
    )
    return picture(figure, "classes", "Accuracy and confidence by class frequency", caption)


def calibration(findings: Findings) -> Picture:
    """A panel for each group: accuracy of the images in each interval of confidence."""
    figure = new_figure(2.3)
    panels = figure.subplots(1, len(findings.calibration), sharey=True, squeeze=False)[0]
    for panel, (name, (error, bins)) in zip(panels, findings.calibration.items(), strict=True):
        _reliability(panel, [100 * bin_.confidence for bin_ in bins], [100 * bin_.accuracy for bin_ in bins], bins)
        panel.set_title(f"{name}: error {error:.1f}")
        panel.set_xlabel("confidence, %")
    panels[0].set_ylabel("accuracy, %")
    caption = (
        "On the dotted line confidence is accuracy; below it the network is too sure. The area of a mark is its share "
        "of the group's images. Error: expected calibration error in percentage points, over 15 intervals."
    )
    return picture(figure, "calibration", "Calibration by group", caption)


def _reliability(panel: "Axes", confidence: list[float], accuracy: list[float], bins: list) -> None:
    shares = np.array([bin_.count for bin_ in bins]) / sum(bin_.count for bin_ in bins)
    panel.plot([0, 100], [0, 100], **REFERENCE_LOOK)
    panel.plot(confidence, accuracy, color=COLOURS[1], linewidth=1)
    panel.scatter(confidence, accuracy, s=15 + 200 * shares, color=COLOURS[1], edgecolor="white", zorder=3)
    panel.set_xlim(-3, 103)
    panel.set_ylim(-3, 103)


def correction(findings: Findings, data: LongTailData) -> Picture:
    """A panel for each kind of correction: accuracy over all classes and by group for each tau."""
    figure = new_figure(2.7)
    panels = figure.subplots(1, len(findings.corrected), sharey=True, squeeze=False)[0]
    for panel, (kind, by_tau) in zip(panels, findings.corrected.items(), strict=True):
        lines = {"all": [evaluation.all for evaluation in by_tau.values()]}
        for name in data.split.group_names:
            lines[name] = [evaluation.per_group[name] for evaluation in by_tau.values()]
        for index, (name, values) in enumerate(lines.items()):
            look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
            if None not in values:
                panel.plot(list(by_tau), values, label=name, linestyle=LINES[index % len(LINES)], **look)
        panel.set_title(NAMES[kind])
        panel.set_xlabel("tau")
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(frameon=False, fontsize=8)
    caption = (
        "Logit adjustment: logits minus tau times the logarithm of the class's share of the training images (arXiv "
        "2007.07314). Tau-normalisation: each class's classifier weights over their norm to the power of tau, without "
        "the bias (arXiv 1910.09217)."
    )
    return picture(figure, "correction", "Correction for the class counts after training", caption)

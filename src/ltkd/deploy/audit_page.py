"""An audit as one HTML page that needs nothing else: figures and example images are inside."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ltkd.data import LongTailData
from ltkd.deploy.corrections import NAMES, default_tau
from ltkd.deploy.description import Description
from ltkd.deploy.findings import ALIKE, NUM_EXAMPLES, ClassFinding, Findings
from ltkd.deploy.judge import Judge
from ltkd.report.drawing import Picture
from ltkd.report.page import document, figure_html, note_html, table_html
from ltkd.report.text_tables import TextTable
from ltkd.results.read import cell_text

LARGEST_IMAGE = 96  # pixels a side on the page
STYLE = """
.images { display: flex; flex-wrap: wrap; gap: .6rem 1rem; margin: .5rem 0 1.25rem; }
.image { font-size: .75rem; line-height: 1.3; width: 7.5rem; overflow-wrap: anywhere; }
.image img { width: 96px; height: 96px; object-fit: contain; image-rendering: pixelated; display: block;
  margin-bottom: .2rem; background: #eee; }
.pair { display: flex; gap: .25rem; }
"""

Names = Mapping[str, Sequence[str]]  # by part: what the image of each row is called; may lack a part


def html(title: str, about: Description, findings: Findings, drawn: Mapping[str, Picture], data: LongTailData,
         names: Names, facts: Mapping[str, str], judge: Judge) -> str:  # fmt: skip
    """The whole page."""
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    parts = [f"<h1>{escape(title)}</h1>", f'<dl class="facts">{listed}</dl>']
    parts += ["<h2>Accuracy and bias by group</h2>", table_html(_group_table(findings, data)), *_group_notes(findings)]
    parts += [figure_html(drawn["groups"]), "<h2>Classes</h2>", figure_html(drawn["classes"])]
    parts += _worst_classes(about, findings, data, names)
    parts += ["<h2>Calibration</h2>", figure_html(drawn["calibration"])]
    parts += _correction(about, findings, drawn, data)
    parts += _pairs(about, findings, data, names) + _suspects(about, findings, data, names, judge)
    return document(title, "\n".join(parts), STYLE)


def _group_table(findings: Findings, data: LongTailData) -> TextTable:
    split, evaluation = data.split, findings.evaluation
    headers = [
        "group", "classes", "training images", "test images", "accuracy, %", "share of test images, %",
        "share of predictions, %", "mean probability, %",
    ]  # fmt: skip
    test_groups = split.groups[data.test_labels]
    rows = []
    for group, name in enumerate(split.group_names):
        members = split.groups == group
        rows.append([
            name, str(members.sum()), str(split.class_counts[members].sum()), str((test_groups == group).sum()),
            cell_text(evaluation.per_group[name], None), f"{100 * (test_groups == group).mean():.2f}",
            f"{findings.predicted_share[name]:.2f}", cell_text(evaluation.group_mass[name], None),
        ])  # fmt: skip
    total = [str(len(split.groups)), str(split.class_counts.sum()), str(len(test_groups)), f"{evaluation.all:.2f}"]
    rows.append(["all", *total, "100.00", "100.00", "100.00"])
    return TextTable(headers, rows, ["method"] * len(rows), 1)


def _group_notes(findings: Findings) -> list[str]:
    mean = (
        f"Mean of the classes' accuracies: {findings.per_class_mean:.2f} %, over all test images: "
        f"{findings.evaluation.all:.2f} %. Where test images are as rare as training images, the second hides the tail."
    )
    names, matrix = list(findings.evaluation.per_group), findings.evaluation.group_confusion
    rows = [
        [name, *(["n/a"] * len(names) if row is None else [f"{value:.1f}" for value in row])]
        for name, row in zip(names, matrix, strict=True)
    ]
    table = TextTable(["images of, taken for (%)", *names], rows, ["method"] * len(rows), 1)
    return [note_html(mean), table_html(table)]


def _worst_classes(about: Description, findings: Findings, data: LongTailData, names: Names) -> list[str]:
    parts = ["<h3>Worst classes and what they are taken for</h3>"]
    if not findings.worst:
        return [*parts, note_html("No test image of any class is taken for another class.")]
    parts.append(note_html(f"Up to {NUM_EXAMPLES} wrong test images of each, those of which the network is surest."))
    for finding in findings.worst:
        parts.append(f"<h4>{escape(_headline(about, finding, data))}</h4>")
        images = []
        for row, predicted, probability in finding.examples:
            caption = f"{about.class_names[predicted]} {100 * probability:.0f} %"
            images.append(_image(data.test_images[row], caption, _called(names, "test", row)))
        parts.append(_gallery(images))
    return parts


def _headline(about: Description, finding: ClassFinding, data: LongTailData) -> str:
    label, split = finding.label, data.split
    mistakes = ", ".join(f"{about.class_names[predicted]} ({count})" for predicted, count in finding.taken_for[:3])
    return (
        f"{about.class_names[label]}: {finding.accuracy:.0f} % right, {split.group_names[split.groups[label]]}, "
        f"{split.class_counts[label]} training images; taken for {mistakes}"
    )


def _correction(about: Description, findings: Findings, drawn: Mapping[str, Picture], data: LongTailData) -> list[str]:
    parts = ["<h2>Correction after training</h2>"]
    if not findings.corrected:
        return [*parts, note_html("Not possible: a class has no training image, and the classifier is not linear.")]
    by = about.evened_out_by
    trained = (
        f" This network's training evened the classes out already ({escape(by)}): it would do so twice." if by else ""
    )
    note = (
        "What a correction of the logits for the class counts would give, without training. These are figures of the "
        f"test part: they must not choose tau.{trained}"
    )
    parts.append(note_html(note))
    groups = data.split.group_names
    for kind, by_tau in findings.corrected.items():
        chosen = default_tau(about, kind)[0]
        rows = [
            [f"{tau:g}", f"{evaluation.all:.2f}", *(cell_text(evaluation.per_group[name], None) for name in groups)]
            for tau, evaluation in by_tau.items()
        ]
        roles = ["method" if tau == chosen else "baseline" for tau in by_tau]
        parts.append(f"<h3>{NAMES[kind].capitalize()}</h3>")
        parts += [
            table_html(TextTable(["tau", "all", *groups], rows, roles, 1)),
            note_html(_choice_of_tau(about, kind)),
        ]
    return [*parts, figure_html(drawn["correction"])]


def _choice_of_tau(about: Description, kind: str) -> str:
    tau, chosen_by = default_tau(about, kind)
    why = {
        "validation": "the choice of the run's validation images",
        "setting": "the run's setting",
        "default": "the default, since there were no validation images to choose it on",
    }[chosen_by]
    zero = "tau 0 is the network as it is" if kind == "logit_adjusted" else "tau 0 takes the bias away and no more"
    return f"Marked: tau {tau:g}, {why}; {zero}. predict.py correction={kind} uses the marked one."


def _pairs(about: Description, findings: Findings, data: LongTailData, names: Names) -> list[str]:
    parts = ["<h2>Test images that look like training images</h2>"]
    total = len(data.test_labels)
    note = (
        f"{findings.num_pairs} of {total} test images have a training image whose grey thumbnail, mirrored or not, "
        f"correlates with theirs by {ALIKE:g} or more"
    )
    if not findings.pairs:
        return [*parts, note_html(f"{note}.")]
    parts.append(note_html(f"{note}; accuracy on near-duplicates measures memory. The most alike, test image first:"))
    images = []
    for pair in findings.pairs:
        both = [_picture(data.test_images[pair.test_row]), _picture(data.train_images[pair.train_row])]
        labels = [data.test_labels[pair.test_row], data.train_labels[pair.train_row]]
        first, second = (about.class_names[label] for label in labels)
        class_text = first if labels[0] == labels[1] else f"{first} and {second}: labels differ"
        called = f"{_called(names, 'test', pair.test_row)} and {_called(names, 'train', pair.train_row)}"
        caption = f"{_breakable(class_text)}<br>{pair.correlation:.3f}<br>{_breakable(called)}"
        images.append(f'<div class="image" style="width:13rem"><div class="pair">{"".join(both)}</div>{caption}</div>')
    return [*parts, _gallery(images)]


def _suspects(about: Description, findings: Findings, data: LongTailData, names: Names, judge: Judge) -> list[str]:
    parts = [f"<h2>Suspicious labels in the {escape(findings.tail)}</h2>"]
    corrected = "" if judge.network.about.evened_out_by else ", its logits adjusted for the class counts,"
    reasons = (
        ": a wrong label, an odd image, or one unlike those that its weights, which are from a file, were trained on."
        if judge.from_file
        else ", although it was trained on them: a wrong label, an odd image, or too little training."
    )
    note = (
        f"This data has {findings.num_tail_images} training images of the {findings.tail} group. Asked for their "
        f"labels, {judge.name}{corrected} takes {findings.num_disagreeing} of them for another class{reasons}"
    )
    if judge.no_teacher:
        note += f" A teacher would be the better judge; {judge.no_teacher}."
    if findings.num_disagreeing > findings.num_tail_images / 2:
        note += " It disagrees with most of them: it has not learned these classes, and is no judge of their labels."
    parts.append(note_html(note))
    images = []
    for suspect in findings.suspects:
        label = about.class_names[data.train_labels[suspect.row]]
        caption = (
            f"labelled {label} ({100 * suspect.of_label:.1f} %), taken for {about.class_names[suspect.predicted]} "
            f"({100 * suspect.probability:.0f} %)"
        )
        images.append(_image(data.train_images[suspect.row], caption, _called(names, "train", suspect.row)))
    return [*parts, _gallery(images)] if images else parts


def _called(names: Names, part: str, row: int) -> str:
    return f"{part}/{names[part][row]}" if part in names else f"{part} image {row}"


def _gallery(images: Sequence[str]) -> str:
    return f'<div class="images">{"".join(images)}</div>'


def _image(pixels: np.ndarray, caption: str, called: str) -> str:
    return f'<div class="image">{_picture(pixels)}{_breakable(caption)}<br>{_breakable(called)}</div>'


def _breakable(text: str) -> str:
    """Text for a narrow column: lines may end after a slash, and not before a percent sign."""
    return escape(text).replace(" %", "&nbsp;%").replace("/", "/<wbr>")


def _picture(pixels: np.ndarray) -> str:
    """uint8 [C, H, W] as an image of the page, no larger than it is shown."""
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.thumbnail((LARGEST_IMAGE, LARGEST_IMAGE))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'

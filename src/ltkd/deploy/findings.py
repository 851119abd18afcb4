"""The findings of an audit: one network's accuracy, bias, calibration and errors on the test part, in numbers."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ltkd.data import LongTailData
from ltkd.deploy.corrections import build_correction, default_tau
from ltkd.deploy.description import Description
from ltkd.errors import UserError
from ltkd.loop.evaluate import Evaluation, calibration_error, summarize
from ltkd.results.read import POST_HOC

TAUS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
NUM_BINS = 10
NUM_WORST = 8  # classes
NUM_EXAMPLES = 5  # images of each
NUM_SUSPICIOUS = 15  # images
NUM_PAIRS = 8
ALIKE = 0.98  # correlation of two grey thumbnails from which a pair is shown
THUMBNAIL = 16  # pixels a side that similarity is measured on
ROWS_AT_A_TIME = 512


@dataclass(frozen=True)
class ClassFinding:
    """One class on the test part: accuracy in percent, mean probability of the predicted class, and its errors."""

    label: int
    accuracy: float
    confidence: float
    taken_for: list[tuple[int, int]]  # other classes and how often, most frequent first
    examples: list[tuple[int, int, float]]  # wrong images: row, predicted class, its probability; most confident first


@dataclass(frozen=True)
class Bin:
    """Test images whose confidence is in one interval."""

    confidence: float  # mean, in 0 .. 1
    accuracy: float
    count: int


@dataclass(frozen=True)
class Pair:
    """A test image and the training image most like it; `correlation` of their grey thumbnails, either mirrored."""

    test_row: int
    train_row: int
    correlation: float


@dataclass(frozen=True)
class Suspect:
    """A training image that the judge gives another label than its own, and both probabilities."""

    row: int
    predicted: int
    probability: float
    of_label: float


@dataclass(frozen=True)
class Findings:
    """All that the page shows, in percent where not said otherwise."""

    evaluation: Evaluation
    per_class_mean: float
    predicted_share: dict[str, float]  # of the test images that are taken for a class of the group
    calibration: dict[str, tuple[float, list[Bin]]]  # by group: expected error, bins
    classes: list[ClassFinding | None]  # by label; None for a class without a test image
    corrected: dict[str, dict[float, Evaluation]]  # by kind of correction and tau; those that are possible
    num_pairs: int
    pairs: list[Pair]
    tail: str
    num_tail_images: int
    num_disagreeing: int
    suspects: list[Suspect]

    @property
    def worst(self) -> list[ClassFinding]:
        """The classes with the lowest accuracy; of equal ones the most confident first."""
        imperfect = [finding for finding in self.classes if finding is not None and finding.accuracy < 100]
        return sorted(imperfect, key=lambda finding: (finding.accuracy, -finding.confidence))[:NUM_WORST]


def find(
    about: Description, data: LongTailData, test_logits: np.ndarray, judge: Description, opinions: np.ndarray
) -> Findings:
    """Logits [N, C], not corrected: the network's on the test images, and the judge's opinions on the training images.

    The judge is the network itself or its teacher.
    """
    logits, labels = torch.from_numpy(test_logits), torch.from_numpy(data.test_labels)
    evaluation = summarize(logits, labels, data.split)
    per_class = [value for value in evaluation.per_class if value is not None]
    groups, names = data.split.groups, data.split.group_names
    shares = np.bincount(groups[test_logits.argmax(1)], minlength=len(names)) / len(test_logits)
    num_pairs, pairs = find_pairs(data.train_images, data.test_images)
    present = [group for group in range(len(names)) if (groups == group).any()]
    tail_rows, num_disagreeing, suspects = find_suspects(judge, data, opinions, present[-1])
    return Findings(
        evaluation=evaluation,
        per_class_mean=sum(per_class) / len(per_class),
        predicted_share=dict(zip(names, (100 * shares).tolist(), strict=True)),
        calibration=_calibration(logits, labels, groups, names),
        classes=[_class_finding(label, test_logits, data.test_labels) for label in range(len(groups))],
        corrected=_corrected(about, data, logits, labels),
        num_pairs=num_pairs,
        pairs=pairs,
        tail=names[present[-1]],
        num_tail_images=tail_rows,
        num_disagreeing=num_disagreeing,
        suspects=suspects,
    )


def _corrected(
    about: Description, data: LongTailData, logits: torch.Tensor, labels: torch.Tensor
) -> dict[str, dict[float, Evaluation]]:
    corrected = {}
    for kind in POST_HOC:
        with contextlib.suppress(UserError):  # where the classes or the classifier do not allow it
            correct = build_correction(about, kind)
            taus = sorted({*TAUS, default_tau(about, kind)[0]})
            corrected[kind] = {tau: summarize(correct(logits, tau), labels, data.split) for tau in taus}
    return corrected


def _calibration(
    logits: torch.Tensor, labels: torch.Tensor, groups: np.ndarray, names: Sequence[str]
) -> dict[str, tuple[float, list[Bin]]]:
    confidence, predicted = logits.softmax(1).max(1)
    correct = predicted == labels
    of_group = torch.as_tensor(groups)[labels]
    by_group = {}
    for group, name in enumerate(names):
        in_group = of_group == group
        if in_group.any():
            error = 100 * calibration_error(confidence[in_group], correct[in_group])
            by_group[name] = error, _bins(confidence[in_group].numpy(), correct[in_group].numpy())
    return by_group


def _bins(confidence: np.ndarray, correct: np.ndarray) -> list[Bin]:
    place = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    members = [place == number for number in range(NUM_BINS)]
    return [
        Bin(float(confidence[in_bin].mean()), float(correct[in_bin].mean()), int(in_bin.sum()))
        for in_bin in members
        if in_bin.any()
    ]


def _class_finding(label: int, logits: np.ndarray, labels: np.ndarray) -> ClassFinding | None:
    rows = np.flatnonzero(labels == label)
    if not len(rows):
        return None
    probabilities = _softmax(logits[rows])
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != label)
    mistakes, counts = np.unique(predicted[wrong], return_counts=True)
    by_count = np.argsort(-counts, kind="stable")
    most_confident = wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_EXAMPLES]
    return ClassFinding(
        label,
        100 * float((predicted == label).mean()),
        float(confidence.mean()),
        taken_for=[(int(mistakes[i]), int(counts[i])) for i in by_count],
        examples=[(int(rows[i]), int(predicted[i]), float(confidence[i])) for i in most_confident],
    )


def find_suspects(
    judge: Description, data: LongTailData, logits: np.ndarray, group: int
) -> tuple[int, int, list[Suspect]]:
    """Training images of a group: how many, how many the judge disagrees with, and the most confident of these.

    Where a judge that was trained on these images still disagrees the label may be wrong. A network that favours the
    head disagrees with the tail anyway, so its logits [N, C] are adjusted first for the class counts of its own
    training, unless that did so.
    """
    rows = np.flatnonzero(data.split.groups[data.train_labels] == group)
    counts = np.array(judge.class_counts)
    correct_prior = not judge.evened_out_by and counts.all()
    probabilities = _softmax(logits[rows] - (np.log(counts / counts.sum()) if correct_prior else 0))
    of_label = probabilities[np.arange(len(rows)), data.train_labels[rows]]
    predicted, best = probabilities.argmax(1), probabilities.max(1)
    disagreeing = np.flatnonzero(predicted != data.train_labels[rows])
    order = disagreeing[np.argsort(-(best - of_label)[disagreeing], kind="stable")][:NUM_SUSPICIOUS]
    suspects = [Suspect(int(rows[i]), int(predicted[i]), float(best[i]), float(of_label[i])) for i in order]
    return len(rows), len(disagreeing), suspects


def find_pairs(train: np.ndarray, test: np.ndarray) -> tuple[int, list[Pair]]:
    """The number of test images with a training image like them, and the pairs that are most alike."""
    training, mirrored = _thumbnails(train), _thumbnails(train[..., ::-1])
    best, where = np.zeros(len(test), np.float32), np.zeros(len(test), np.int64)
    for start in range(0, len(test), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        wanted = _thumbnails(test[part])
        for candidates in (training, mirrored):
            similar = wanted @ candidates.T
            nearest = similar.argmax(1)
            value = similar[np.arange(len(nearest)), nearest]
            better = value > best[part]
            best[part] = np.where(better, value, best[part])
            where[part] = np.where(better, nearest, where[part])
    alike = np.flatnonzero(best >= ALIKE)
    order = alike[np.argsort(-best[alike], kind="stable")][:NUM_PAIRS]
    return len(alike), [Pair(int(row), int(where[row]), float(best[row])) for row in order]


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Grey thumbnails [N, P] of images uint8 [N, C, H, W], each of mean 0 and length 1 (less for an even one)."""
    thumbnails = np.empty((len(images), min(THUMBNAIL, images.shape[2]) ** 2), np.float32)
    for start in range(0, len(images), ROWS_AT_A_TIME):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + ROWS_AT_A_TIME])).float().mean(1, True)
        small = torch.nn.functional.adaptive_avg_pool2d(part, min(THUMBNAIL, images.shape[2])).flatten(1).numpy()
        small -= small.mean(1, keepdims=True)
        thumbnails[start : start + ROWS_AT_A_TIME] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1)
    return thumbnails


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)

"""Evaluates a network on held-out images, in all, per group and per class, and where its probability goes."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn

from ltkd.data import DeviceData, LongTailSplit
from ltkd.errors import UserError
from ltkd.loop.turns import turns
from ltkd.losses import group_mass
from ltkd.models import evaluating

NUM_BINS = 15  # of the calibration error: the number that the field reports with


@dataclass(frozen=True)
class Evaluation:
    """A network on held-out images, in percent. A group without a class, or a class without an image, is None, never 0.

    `all` counts images alike and `mean_per_class` classes; they differ where the images are not balanced, and the epoch
    that validation selects is selected by `all`. group_confusion[i][j] is the share of the images of group i that are
    taken for a class of group j (None for an empty group i); group_mass is the mean probability that the network gives
    to a group: on a balanced test part an unbiased network gives each group its share of the classes.
    """

    all: float
    mean_per_class: float
    per_group: dict[str, float | None]
    per_class: list[float | None]
    group_confusion: list[list[float] | None]
    group_mass: dict[str, float | None]
    expected_calibration_error: float

    @property
    def accuracies(self) -> dict[str, float]:
        """`all`, and the mean of the classes where the two differ: on images that are not balanced."""
        alike = math.isclose(self.all, self.mean_per_class, rel_tol=1e-9, abs_tol=1e-9)
        return {"all": self.all} | ({} if alike else {"mean per class": self.mean_per_class})

    def metrics(self, prefix: str) -> dict[str, float]:
        """Flat numbers for the metrics file: prefix/accuracy, prefix/accuracy/<group>, ..."""
        flat = {f"{prefix}/accuracy": self.all, f"{prefix}/mean_per_class": self.mean_per_class}
        flat |= {f"{prefix}/expected_calibration_error": self.expected_calibration_error}
        flat |= {f"{prefix}/accuracy/{name}": value for name, value in self.per_group.items() if value is not None}
        flat |= {f"{prefix}/group_mass/{name}": value for name, value in self.group_mass.items() if value is not None}
        return flat


def evaluate(
    model: nn.Module, data: DeviceData, split: LongTailSplit, autocast: Callable[[], AbstractContextManager]
) -> Evaluation:
    """Evaluate in eval mode, over all images once and in order."""
    return summarize(predict_logits(model, data, autocast), data.labels.cpu(), split)


def predict_logits(model: nn.Module, data: DeviceData, autocast: Callable[[], AbstractContextManager]) -> Tensor:
    """Predict the logits [N, C] of all images in their order, in eval mode, as float32 on the CPU.

    Counting is done there: one transfer, and the same code, hence the same digits, for every device. Of several
    processes each takes some of the batches, whole ones, and all get all logits. UserError where one is not finite.
    """
    ranks, own_rows = data.ranks, data.ranks.block(len(data), data.forward_batch)
    logits = []
    with evaluating(model), torch.inference_mode():
        for batch in data.evaluation_batches(rows=own_rows):
            with autocast():
                logits.append(model(batch.images).logits.float())
            turns().pass_on()
        turns().wait_for(data.device)
    parts = ranks.gather_objects(torch.cat(logits).cpu() if logits else None)
    result = torch.cat([part for part in parts if part is not None])
    if not result.isfinite().all():
        raise UserError(
            "the network gives infinite or nan logits in evaluation: its training diverged, or was too short for the "
            "running statistics of batch normalisation. Lower the learning rate or lengthen the warm-up"
        )
    return result


def summarize(logits: Tensor, labels: Tensor, split: LongTailSplit) -> Evaluation:
    """Compare float logits [N, C] with labels [N]."""
    groups = torch.as_tensor(split.groups, device=logits.device)
    num_classes, num_groups = logits.shape[1], len(split.group_names)
    confidence, predicted = logits.softmax(1).max(1)
    correct = predicted == labels

    class_totals = torch.bincount(labels, minlength=num_classes)
    class_correct = torch.bincount(labels[correct], minlength=num_classes)
    pairs = groups[labels] * num_groups + groups[predicted]
    confusion = torch.bincount(pairs, minlength=num_groups**2).reshape(num_groups, num_groups)
    group_correct = torch.bincount(groups[labels[correct]], minlength=num_groups)
    group_totals = confusion.sum(1)

    per_class = _percentages(class_correct, class_totals)
    mass = 100 * group_mass(logits, groups, num_groups).mean(0)
    return Evaluation(
        all=100 * correct.sum().item() / len(labels),
        mean_per_class=mean(value for value in per_class if value is not None),
        per_group=dict(zip(split.group_names, _percentages(group_correct, group_totals), strict=True)),
        per_class=per_class,
        group_confusion=[
            (100 * row / total).tolist() if total else None for row, total in zip(confusion, group_totals, strict=True)
        ],
        group_mass=named_groups(split, mass),
        expected_calibration_error=100 * calibration_error(confidence, correct),
    )


def _percentages(counts: Tensor, totals: Tensor) -> list[float | None]:
    return [100 * n / total if total else None for n, total in zip(counts.tolist(), totals.tolist(), strict=True)]


def named_groups(split: LongTailSplit, values: Tensor) -> dict[str, float | None]:
    """Name one value per group by the group; None for a group without a class."""
    present = set(split.groups.tolist())
    return {
        name: value if group in present else None
        for group, (name, value) in enumerate(zip(split.group_names, values.tolist(), strict=True))
    }


def calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Expected calibration error (arXiv 1706.04599): |accuracy - confidence| of equally wide bins, weighted by size.

    confidence [N] in [0, 1], correct [N] bool. A value on an edge belongs to the bin below it.
    """
    edges = torch.linspace(0, 1, NUM_BINS + 1, device=confidence.device)[1:-1]
    bins = torch.bucketize(confidence, edges)
    gap = torch.zeros(NUM_BINS, dtype=torch.float64, device=confidence.device)
    gap.index_add_(0, bins, correct.double() - confidence.double())
    return (gap.abs().sum() / len(confidence)).item()

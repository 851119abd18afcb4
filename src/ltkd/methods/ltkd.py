"""LTKD: group masses of a biased teacher rebalanced, and every group's ranking weighted alike."""

import logging
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from ltkd.data.batch import Batch
from ltkd.data.groups import tie_around
from ltkd.errors import UserError
from ltkd.losses import ClassGroups, group_mass, ltkd_terms
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative, Positive

logger = logging.getLogger(__name__)

DEFAULT_RUNNING_MOMENTUM = 0.99
STATISTICS_ROWS = 4096  # images at a time when the training set's masses are summed


@register("ltkd")
class LTKD(Method):
    """task_weight * task + warm-up * (alpha * cross + beta * within); the terms are those of `losses.ltkd_terms`.

    rebalancing, the mean teacher group masses that the cross term divides by, all at the temperature of the loss:
        batch     of this batch (the paper): noisy in small batches
        running   exponential moving average of the batch's, which counts before it is used; not updated in eval mode
        dataset   of the whole training set, computed once by `prepare`: each image's loss is independent of its batch
        none      not rebalanced
    running_momentum: weight of the past in "running"; the first batch starts the average.
    within_weights: uniform (the paper) or teacher (each image's own group masses: the plain decomposition of KD).
    groups: "dataset", those of the data set, or k: classes ranked by training images, cut into k nearly equal parts.

    The equation is the paper's, as a published note gives it. The paper's temperature, weights and warm-up are not
    public: those of conf/method/ltkd.yaml were chosen on held-out images.

    Fewer than three groups: with two (step imbalance) both terms are as written. With one (classes of equal counts) the
    cross term is 0 and the within term is KD's divergence: the loss is KD's with the weight beta. Both are said in a
    warning.
    """

    reads_batch = True
    paper = "Kim: Distilling Balanced Knowledge from a Biased Teacher, arXiv:2506.18496 (CVPR 2026)"
    fidelity = "adapted"

    alpha: NonNegative
    beta: NonNegative
    temperature: Positive
    warmup_fraction: Fraction
    rebalancing: Literal["batch", "running", "dataset", "none"]
    within_weights: Literal["uniform", "teacher"]
    groups: Annotated[int, Ge(1)] | Literal["dataset"]
    running_momentum: Annotated[float, Ge(0), Lt(1)] = DEFAULT_RUNNING_MOMENTUM

    @classmethod
    def reads_groups(cls, settings: Mapping[str, Any]) -> bool:
        return settings["groups"] == "dataset"

    def build(self, context: MethodContext) -> None:
        group_of_class = context.groups
        if self.groups != "dataset":
            _warn_of_cut_ties(context.class_counts, self.groups)
            group_of_class = rank_groups(context.class_counts, self.groups)
        layout = ClassGroups.of(group_of_class)
        self._num_ids, self._num_classes = layout.num_ids, layout.num_classes
        # Buffers only so that they follow the module to its device: the data set and the settings determine them.
        self.register_buffer("_members", layout.members, persistent=False)
        self.register_buffer("_padding", layout.padding, persistent=False)
        self.register_buffer("_ids", layout.ids, persistent=False)
        if self.rebalancing in ("running", "dataset"):
            # Zeros: a running mean that has not started. NaN: without `prepare` the loss says so instead of being
            # wrong.
            start = 0.0 if self.rebalancing == "running" else torch.nan
            self.register_buffer("mean_group_mass", torch.full((layout.num_ids,), start))
        self._warn_of_settings_without_effect()
        if self.groups == "dataset" and len(layout.ids) == 2:
            logger.warning("LTKD has the data set's two groups of classes here, not the paper's three")

    @property
    def class_groups(self) -> ClassGroups:
        """The groups in use, on the module's device."""
        return ClassGroups(self._members, self._padding, self._ids, self._num_ids, self._num_classes)

    @property
    def needs_teacher_statistics(self) -> bool:
        return self.rebalancing == "dataset"

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        cross, within = ltkd_terms(
            student.logits,
            teacher.logits,
            self.class_groups,
            temperature=self.temperature,
            rebalancing=self._rebalancing(teacher.logits),
            within_weights=self.within_weights,
        )
        return {"cross": self.alpha * cross, "within": self.beta * within}

    @torch.no_grad()
    def prepare(self, teacher_logits: Tensor, labels: Tensor) -> None:
        if self.rebalancing != "dataset":
            return
        device = self.mean_group_mass.device
        total = sum(self._group_mass(rows.to(device)).sum(dim=0) for rows in teacher_logits.split(STATISTICS_ROWS))
        self.mean_group_mass.copy_(total / len(teacher_logits))

    @torch.no_grad()
    def _rebalancing(self, teacher_logits: Tensor) -> str | Tensor:
        if self.rebalancing in ("batch", "none"):
            return self.rebalancing
        if self.rebalancing == "running" and self.training:
            batch_mean = self._group_mass(teacher_logits).mean(dim=0).to(self.mean_group_mass)
            started = self.mean_group_mass.sum() > 0  # a tensor: the step must not wait for the device
            self.mean_group_mass.lerp_(batch_mean, 1 - self.running_momentum * started)
        return self.mean_group_mass

    def _group_mass(self, teacher_logits: Tensor) -> Tensor:
        return group_mass(teacher_logits, self.class_groups, self._num_ids, temperature=self.temperature)

    def _warn_of_settings_without_effect(self) -> None:
        if self.running_momentum != DEFAULT_RUNNING_MOMENTUM and self.rebalancing != "running":
            logger.warning("method.running_momentum has no effect with method.rebalancing=%s", self.rebalancing)
        num_groups, largest = self._members.shape
        if num_groups == 1 and self.alpha > 0:
            logger.warning(
                "method.alpha has no effect: all classes are in one group, so the cross term is 0; "
                "LTKD is then KD with the weight beta"
            )
        if largest == 1 and self.beta > 0:
            logger.warning("method.beta has no effect: every class is a group of its own, so the within term is 0")


def rank_groups(class_counts: Tensor, num_groups: int) -> Tensor:
    """Group ids [C]: classes by falling number of training images (ties by label), cut into k nearly equal parts."""
    if not 1 <= num_groups <= len(class_counts):
        raise UserError(f"method.groups: should be 1 to {len(class_counts)} (the number of classes), got {num_groups}")
    order = class_counts.argsort(descending=True, stable=True)
    groups = torch.empty_like(order)
    for group, classes in enumerate(order.tensor_split(num_groups)):
        groups[classes] = group
    return groups


def _warn_of_cut_ties(class_counts: Tensor, num_groups: int) -> None:
    counts = class_counts.cpu().numpy()
    sizes = [len(part) for part in class_counts.tensor_split(num_groups)] if num_groups < len(counts) else []
    cut = [cut for cut in accumulate(sizes) if tie_around(counts, cut) is not None]
    if cut:
        logger.warning(
            "method.groups: %d groups cut through classes of equal numbers of training images (after rank %s); "
            "there the order of their labels decides",
            num_groups,
            ", ".join(map(str, cut)),
        )

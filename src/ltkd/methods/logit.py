"""Methods that need logits only, sample by sample."""

from typing import ClassVar

from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, Needs, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative, Positive


@register("ce")
class NoDistillation(Method):
    """The task loss alone, and no teacher: how teachers are trained, and the student's own baseline."""

    paper = "none: training on the labels"
    fidelity = "faithful"
    needs = Needs(teacher=False)

    task_weight: ClassVar[float] = 1.0


@register("kd")
class KD(Method):
    """task_weight * task + weight * KD."""

    paper = "Hinton et al.: Distilling the Knowledge in a Neural Network, arXiv:1503.02531"
    fidelity = "faithful"

    weight: NonNegative
    temperature: Positive

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        return {"kd": self.weight * losses.kd(student.logits, teacher.logits, temperature=self.temperature)}


@register("dkd")
class DKD(Method):
    """task_weight * task + warm-up * (alpha * target-class part + beta * non-target part)."""

    reads_labels = True
    paper = "Zhao et al.: Decoupled Knowledge Distillation, arXiv:2203.08679"
    fidelity = "faithful"

    alpha: NonNegative
    beta: NonNegative
    temperature: Positive
    warmup_fraction: Fraction

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        target, nontarget = losses.dkd_terms(student.logits, teacher.logits, batch.labels, temperature=self.temperature)
        return {"dkd_target": self.alpha * target, "dkd_nontarget": self.beta * nontarget}


@register("nkd")
class NKD(Method):
    """task_weight * task + target-class part + gamma * non-target part, cross-entropies with the teacher."""

    reads_labels = True
    paper = (
        "Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized "
        "Loss and Customized Soft Labels, arXiv:2303.13005"
    )
    fidelity = "faithful"

    gamma: NonNegative
    temperature: Positive

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        loss = losses.nkd(student.logits, teacher.logits, batch.labels, gamma=self.gamma, temperature=self.temperature)
        return {"nkd": loss}


@register("wsl")
class WeightedSoftLabels(Method):
    """task_weight * task + weight * T^2 * mean_b w_b * cross-entropy with the teacher; w_b is logged by group.

    w = 1 - exp(-CE(student) / CE(teacher)) on the labels, without gradient: distillation is taken back on images on
    which the student is better than the teacher.
    """

    reads_labels = True
    paper = (
        "Zhou et al.: Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective, "
        "arXiv:2102.00650"
    )
    fidelity = "faithful"

    weight: NonNegative
    temperature: Positive

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        logits = (student.logits, teacher.logits, batch.labels)
        self.record("soft_label_weight", losses.soft_label_weights(*logits), batch.labels)
        return {"wsl": losses.weighted_soft_labels(*logits, weight=self.weight, temperature=self.temperature)}

"""Hard distillation with deferred re-weighting: the teacher's decision is a second label."""

from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import register
from ltkd.methods.reweighted import DeferredReweighting
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative


@register("deit_lt")
class DeferredHardDistillation(DeferredReweighting):
    """task_weight * task + weight * sum_b w_k CE(s, k) / sum_b w_k, k = argmax of the teacher.

    After the first `deferral_fraction` of the epochs w is the effective-number weight of the teacher's class k, not of
    the label; until then 1. The share of images on which the teacher is right is logged as teacher_correct, by group
    too: a class that the teacher never predicts is not distilled at all.
    The loss is the public code's. There it trains a vision transformer with a token, hence a head, for each of the two
    terms, and mixes images; here any student's one head has both.
    """

    reads_batch = True
    paper = (
        "Rangwani et al.: DeiT-LT: Distillation Strikes Back for Vision Transformer Training on Long-Tailed Datasets, "
        "arXiv:2404.02900 (CVPR 2024)"
    )
    fidelity = "adapted"

    weight: NonNegative

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        decision = teacher.logits.argmax(dim=1)
        self.record("teacher_correct", 100 * (decision == batch.labels), batch.labels)
        loss = losses.weighted_cross_entropy(student.logits, decision, self.class_counts, beta=self.beta)
        return {"hard": self.weight * loss}

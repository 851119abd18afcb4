"""Distillation of the teacher's decision, with class weights that may come late."""

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision
from ltkd.losses.task import weighted_cross_entropy


@full_precision
def deferred_hard_distillation(
    *,
    teacher_logits: Tensor,
    target: Tensor,
    class_counts: Tensor,
    student_logits: Tensor | None = None,
    class_logits: Tensor | None = None,
    distill_logits: Tensor | None = None,
    alpha: float,
    beta: float | Tensor,
    weighted: bool,
) -> Tensor:
    """Hard distillation: (1 - alpha) * CE(class logits, y) + alpha * CE_w(distill logits, k), k = argmax teacher.

    Logits [B, C], target [B] int64, class_counts [C]. Two heads give class_logits and distill_logits, a network of one
    head student_logits, which stands for both. With `weighted`, CE_w is the weighted mean sum_b w_k CE / sum_b w_k with
    the `effective_number_weights` of the teacher's class k, not of the label; else the plain mean.
    Rangwani et al.: DeiT-LT: Distillation Strikes Back for Vision Transformer Training on Long-Tailed Datasets,
    arXiv:2404.02900.
    """
    if student_logits is not None:
        class_logits = distill_logits = student_logits
    decision = teacher_logits.argmax(dim=1)
    hard = weighted_cross_entropy(distill_logits, decision, class_counts, beta=beta if weighted else 0.0)
    return (1 - alpha) * F.cross_entropy(class_logits, target) + alpha * hard

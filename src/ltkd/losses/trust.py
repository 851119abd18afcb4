"""Distillation that trusts the teacher only where it is right, weighted by the accuracy of each class.

The equations are those of a note on TCL (CVPR 2026), which has no public code; one teacher, T and the mean over the
batch are our choice.
"""

import torch
from torch import Tensor

from ltkd.losses.logit import kd_per_image
from ltkd.losses.precision import full_precision

SMALLEST_ERROR = 1e-3  # all accuracies 1 would be weights of 0 / 0


@torch.no_grad()
@full_precision
def accuracy_weights(class_accuracy: Tensor) -> Tensor:
    """Weight of each class, w_c = sqrt(1 - accuracy_c) scaled to sum to C: [C] -> [C].

    class_accuracy: shares in 0 .. 1. An error below 1e-3 counts as 1e-3.
    """
    weights = (1 - class_accuracy).clamp(min=SMALLEST_ERROR).sqrt()
    return weights * (len(weights) / weights.sum())


@full_precision
def trust_gated_kd(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, class_accuracy: Tensor, *, temperature: float
) -> Tensor:
    """Trust-gated KD: T^2 * mean_b 1[argmax t = y] * w_y * KL(softmax(t / T) || softmax(s / T)).

    Logits [B, C], target [B] int64; w: `accuracy_weights` of class_accuracy [C]. The mean divides by B, not by the
    number of open gates. With equal accuracies and a teacher that is always right it is `kd`.
    """
    open_gate = teacher_logits.argmax(dim=1) == target
    weights = accuracy_weights(class_accuracy).to(student_logits.dtype)[target]
    return (open_gate * weights * kd_per_image(student_logits, teacher_logits, temperature=temperature)).mean()

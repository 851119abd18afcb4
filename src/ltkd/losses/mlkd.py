"""Multi-level logit distillation: instances, batches and classes aligned at several temperatures.

Shapes: logits [B, C]. P and Q are the [B, C] matrices of softmax(teacher / T) and softmax(student / T). Gradient flows
to the student only. The second and third loss are statistics of one process's batch.
Jin, Wang, Lin: Multi-Level Logit Distillation, CVPR 2023.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.logit import kd
from ltkd.losses.precision import full_precision


def mlkd_instance(student_logits: Tensor, teacher_logits: Tensor, *, temperatures: Sequence[float]) -> Tensor:
    """Sum over T of T^2 * KL(P || Q), a mean over the batch."""
    return sum(kd(student_logits, teacher_logits, temperature=temperature) for temperature in temperatures)


@full_precision
def mlkd_batch(student_logits: Tensor, teacher_logits: Tensor, *, temperatures: Sequence[float]) -> Tensor:
    """Sum over T of 1/B * ||P P^T - Q Q^T||_F^2: how alike any two images are. No factor T^2."""
    pairs = _probabilities(student_logits, teacher_logits, temperatures)
    return sum((p @ p.T - q @ q.T).square().sum() for q, p in pairs) / len(student_logits)


@full_precision
def mlkd_class(student_logits: Tensor, teacher_logits: Tensor, *, temperatures: Sequence[float]) -> Tensor:
    """Sum over T of 1/C * ||P^T P - Q^T Q||_F^2: how alike any two classes are. No factor T^2."""
    pairs = _probabilities(student_logits, teacher_logits, temperatures)
    return sum((p.T @ p - q.T @ q).square().sum() for q, p in pairs) / student_logits.shape[1]


def _probabilities(
    student_logits: Tensor, teacher_logits: Tensor, temperatures: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    teacher_logits = teacher_logits.detach()
    return [(F.softmax(student_logits / t, dim=1), F.softmax(teacher_logits / t, dim=1)) for t in temperatures]

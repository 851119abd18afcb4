"""Cross-domain empirical risk minimisation: an image learns from the balanced teacher or from its label.

Shapes: logits [B, C], target [B] (int64 class labels), class_counts [C] (training images per class, none 0). T = 1.
Zhu, Niu, Hua, Zhang: Cross-Domain Empirical Risk Minimization for Unbiased Long-tailed Classification,
arXiv:2112.14380.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision

EPSILON = 1e-5  # the public code's: an image that both teachers know by heart learns from its label


@full_precision
def xerm(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, class_counts: Tensor, *, gamma: float
) -> Tensor:
    """xERM: mean_b w_b * CE(softmax(balanced teacher), student) + (1 - w_b) * CE(label, student).

    Balanced teacher: teacher - log pi, w: `xerm_weights`. The value contains the teacher's entropy, the gradient does
    not. Gradient flows to the student only. arXiv:2112.14380.
    """
    balanced = F.softmax(_balanced(teacher_logits.detach(), class_counts), dim=1)
    soft = -(balanced * F.log_softmax(student_logits, dim=1)).sum(dim=1)
    hard = F.cross_entropy(student_logits, target, reduction="none")
    weights = xerm_weights(teacher_logits, target, class_counts, gamma=gamma)
    return (weights * soft + (1 - weights) * hard).mean()


@torch.no_grad()
@full_precision
def xerm_weights(teacher_logits: Tensor, target: Tensor, class_counts: Tensor, *, gamma: float) -> Tensor:
    """xERM's share of the soft label, w = b^gamma / (b^gamma + l^gamma + 1e-5): [B], detached.

    b and l are the cross-entropies on the label of the balanced teacher and of the teacher as it is. w tends to 1 on
    head images, where the correction hurts, and to 0 on tail images, where it helps.
    """
    corrected = _balanced(teacher_logits, class_counts)
    balanced, biased = (
        F.cross_entropy(logits, target, reduction="none") ** gamma for logits in (corrected, teacher_logits)
    )
    return balanced / (balanced + biased + EPSILON)


def _balanced(teacher_logits: Tensor, class_counts: Tensor) -> Tensor:
    return teacher_logits - class_counts.to(teacher_logits.dtype).log()  # N and log(1/C) shift all classes alike

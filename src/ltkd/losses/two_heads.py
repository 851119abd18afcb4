"""A trunk with two classifiers: one learns the labels, the other the teacher."""

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.logit import kd
from ltkd.losses.precision import full_precision


@full_precision
def two_head_distillation(
    hard_logits: Tensor, soft_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float
) -> Tensor:
    """Two-headed distillation: CE(hard_logits, y) + T^2 * KL(softmax(teacher / T) || softmax(soft_logits / T)).

    Logits [B, C], target [B] int64. With one head for both it is CE + `kd`.
    Li, Wang, Wu: Self Supervision to Distillation for Long-Tailed Visual Recognition, arXiv:2109.04075.
    """
    return F.cross_entropy(hard_logits, target) + kd(soft_logits, teacher_logits, temperature=temperature)

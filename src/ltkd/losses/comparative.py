"""Losses on differences of logits between groups of images.

A group has a positive and c negative images; its comparison is D = mean of the positives' logits - mean of the
negatives'. Shapes: positive [G, a, C], negative [G, c, C], labels [G, a] and [G, c] (int64).
Wilf et al.: Comparative Knowledge Distillation, arXiv:2311.02253 (WACV 2025).
"""

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def comparative_kd(
    positive_student: Tensor, negative_student: Tensor, positive_teacher: Tensor, negative_teacher: Tensor
) -> Tensor:
    """(D_s - D_t)^2, mean over groups and classes; gradient to the student only."""
    teacher = _comparison(positive_teacher, negative_teacher).detach()
    return F.mse_loss(_comparison(positive_student, negative_student), teacher)


@full_precision
def comparative_labels(
    positive_student: Tensor, negative_student: Tensor, positive_target: Tensor, negative_target: Tensor
) -> Tensor:
    """(D_s - D_y)^2, mean over groups and classes, D_y the comparison of one-hot labels.

    It asks for logit differences of 1 between classes: right for accuracy, not for calibrated probabilities.
    """
    num_classes = positive_student.shape[2]
    one_hot = [F.one_hot(target, num_classes).to(positive_student) for target in (positive_target, negative_target)]
    return F.mse_loss(_comparison(positive_student, negative_student), _comparison(*one_hot))


def _comparison(positive: Tensor, negative: Tensor) -> Tensor:
    return positive.mean(dim=1) - negative.mean(dim=1)

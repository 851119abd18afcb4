"""ReviewKD's loss and its fusion of two levels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.pooling import average_pool
from ltkd.losses.precision import full_precision


@full_precision
def hcl(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Hierarchical context loss: squared errors of two maps [B, C, H, W] and of their average pools to 4, 2 and 1.

    (MSE(map) + 1/2 MSE(4x4) + 1/4 MSE(2x2) + 1/8 MSE(1x1)) divided by the sum of these weights. Sizes that are not
    below the map's height are left out, and the weights halve from one that is used to the next (as in the authors'
    code). Gradient flows to the student only.
    Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, arXiv:2104.09044.
    """
    teacher_map = teacher_map.detach()
    total, weight, weights = F.mse_loss(student_map, teacher_map), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student_map.shape[2]:
            weight /= 2
            weights += weight
            pooled = (average_pool(feature_map, size) for feature_map in (student_map, teacher_map))
            total = total + weight * F.mse_loss(*pooled)
    return total / weights


def abf_fuse(student: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Attention-based fusion: a_0 * x + a_1 * r, with a = sigmoid(conv1x1([x; r])) of two maps.

    x [B, C, H, W]: the student's level; r: the next deeper level's result [B, C, h, w], which is upsampled to H x W
    (nearest); weight [2, 2 C] and bias [2] of the convolution. arXiv:2104.09044.
    """
    residual = F.interpolate(residual, size=student.shape[2:], mode="nearest")
    attention = F.conv2d(torch.cat((student, residual), dim=1), weight[:, :, None, None], bias).sigmoid()
    return attention[:, :1] * student + attention[:, 1:] * residual

"""Distillation losses on feature maps, image by image.

Shapes: maps [B, C, H, W]; student's and teacher's may differ in C where a loss says so. Gradient flows to the student
only. Where heights differ, the larger map is average-pooled to the smaller one's size before anything else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.pooling import average_pool
from ltkd.losses.precision import full_precision


def to_common_size(student_map: Tensor, teacher_map: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the size of the smaller one: the larger is adaptive-average-pooled."""
    size = (min(student_map.shape[2], teacher_map.shape[2]), min(student_map.shape[3], teacher_map.shape[3]))
    student_map, teacher_map = (
        feature_map if feature_map.shape[2:] == size else average_pool(feature_map, size)
        for feature_map in (student_map, teacher_map)
    )
    return student_map, teacher_map


def unit_vectors(x: Tensor, *, dim: int = -1, epsilon: float = 1e-12) -> Tensor:
    """x divided by its l2 norm along `dim`; a vector of zeros stays one.

    Dividing by max(norm, epsilon) would do for the value, but gives such a vector a gradient of 1 / epsilon.
    """
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(norm > epsilon, norm, 1.0)


@full_precision
def mean_squared_error(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean over all elements of (s - t)^2, of equal shapes: the hint of FitNet (arXiv:1412.6550) and the loss of SimKD
    (arXiv:2203.14001)."""
    return F.mse_loss(student_map, teacher_map.detach())


@full_precision
def attention_transfer(student_map: Tensor, teacher_map: Tensor, *, p: float = 2) -> Tensor:
    """Attention transfer: mean over B * H * W of (A(s) - A(t))^2.

    A(F) = v / ||v||, v [H * W] = mean over the channels of |F|^p. The paper sums the squares; because of this mean the
    weight's effect depends on the map's size. Channels may differ.
    Zagoruyko, Komodakis: Paying More Attention to Attention, arXiv:1612.03928.
    """
    student_map, teacher_map = to_common_size(student_map, teacher_map.detach())
    student, teacher = (
        unit_vectors(feature_map.abs().pow(p).mean(dim=1).flatten(1), dim=1)
        for feature_map in (student_map, teacher_map)
    )
    return F.mse_loss(student, teacher)


@full_precision
def nst(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Neuron selectivity transfer: mean k(t, t') + mean k(s, s') - 2 mean k(s, t), k(a, b) = (a . b)^2.

    s, t: each channel's map, flattened to [H * W] and scaled to unit norm; means over the batch and all pairs of
    channels. Channels may differ. Huang, Wang: Like What You Like, arXiv:1707.01219.
    """
    student_map, teacher_map = to_common_size(student_map, teacher_map.detach())
    s, t = (unit_vectors(feature_map.flatten(2)) for feature_map in (student_map, teacher_map))
    positions, channels = s.shape[2], max(s.shape[1], t.shape[1])
    if positions < channels:
        # Sum over channel pairs of (a . b)^2 = <A^T A, B^T B>: the same with Gram matrices [HW, HW], the smaller ones
        # here (2048 channels at 4 x 4 would need [2048, 2048] for every image).
        difference = s.mT @ s / s.shape[1] - t.mT @ t / t.shape[1]
        return difference.square().sum(dim=(1, 2)).mean()
    return sum(sign * (a @ b.mT).square().mean() for sign, a, b in ((1, t, t), (1, s, s), (-2, s, t)))


def vid_initial_log_scale(init_variance: float, eps: float) -> float:
    """The log-scale a with softplus(a) + eps = init_variance: log(exp(init_variance - eps) - 1)."""
    variance = torch.tensor(init_variance - eps, dtype=torch.float64)
    return variance.expm1().log().item()


@full_precision
def variational_information(
    predicted_mean: Tensor, teacher_feature: Tensor, log_scale: Tensor, *, eps: float
) -> Tensor:
    """Variational information distillation: the mean over all elements of 1/2 ((mu - t)^2 / var + log var).

    mu [B, C, H, W] is predicted from the student; var_c = softplus(a_c) + eps from the trained log-scale a [C]. The
    negative log-likelihood of a Gaussian without its constant: it may be negative. Gradient flows to mu and a.
    Ahn et al.: Variational Information Distillation for Knowledge Transfer, arXiv:1904.05835.
    """
    variance = (F.softplus(log_scale) + eps).view(1, -1, 1, 1)
    squared_error = (predicted_mean - teacher_feature.detach()).square()
    return 0.5 * (squared_error / variance + variance.log()).mean()


@full_precision
def ofd_margin(bn_weight: Tensor, bn_bias: Tensor) -> Tensor:
    """The margin [C] of OFD's margin ReLU: E[x | x < 0] for x ~ N(bias, weight^2), the output of a batch normalisation.

    bias - |g| phi(bias / |g|) / Phi(-bias / |g|); where less than .001 of the values are negative, -3 |g|.
    Heo et al.: A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866.
    """
    mean, scale = bn_bias.detach(), bn_weight.detach().abs()
    safe_scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    share_negative = torch.special.ndtr(-mean / safe_scale)
    density = torch.exp(-0.5 * (mean / safe_scale).square()) / (2 * torch.pi) ** 0.5
    margin = mean - scale * density / share_negative.clamp_min(1e-3)
    return torch.where(share_negative > 1e-3, margin, -3 * scale)


@full_precision
def ofd_partial_l2(student_feature: Tensor, teacher_feature: Tensor, margin: Tensor) -> Tensor:
    """OFD's partial l2: sum over channels and positions, mean over B, of (s - t)^2 where s > t or the teacher is > 0.

    Maps before the activation, of equal shapes, the student's after its connector; t = max(teacher, margin_c) with the
    margin [C]. What the teacher keeps at or below 0 is only asked to be as low there. arXiv:1904.01866.
    """
    teacher_feature = teacher_feature.detach()
    target = torch.maximum(teacher_feature, margin.view(1, -1, 1, 1))
    counts = (student_feature > target) | (teacher_feature > 0)
    return torch.where(counts, student_feature - target, 0.0).square().sum(dim=(1, 2, 3)).mean()


@full_precision
def class_attention(
    student_map: Tensor,
    teacher_map: Tensor,
    student_classifier: Tensor,
    teacher_classifier: Tensor,
    *,
    resolution: int,
    normalise: bool,
) -> Tensor:
    """CAT-KD: mean over B, classes and positions of the squared difference of the class activation maps.

    CAM_k(x, y) = sum_c W[k, c] F_c(x, y), average-pooled to resolution x resolution (a smaller map repeats its values);
    normalise: each class's pooled map is divided by its l2 norm. Classifier weights [classes, C]; sizes and channels
    may differ. Gradient flows to the student's map and classifier.
    Guo et al.: Class Attention Transfer Based Knowledge Distillation, arXiv:2304.12777 (CVPR 2023).
    """
    student = _class_activation(student_map, student_classifier, resolution)
    teacher = _class_activation(teacher_map.detach(), teacher_classifier.detach(), resolution)
    if normalise:
        student, teacher = unit_vectors(student), unit_vectors(teacher)
    return F.mse_loss(student, teacher)


def _class_activation(feature_map: Tensor, classifier: Tensor, resolution: int) -> Tensor:
    """[B, classes, resolution^2]. Pooled before the classifier, which is linear: the same, on fewer positions."""
    return classifier @ average_pool(feature_map, resolution).flatten(2)

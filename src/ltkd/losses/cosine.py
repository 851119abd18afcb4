"""Cosine classifiers: logits that are scale * cos(features, class weights), and distillation between them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.feature import unit_vectors
from ltkd.losses.logit import kd
from ltkd.losses.precision import full_precision


@full_precision
def cosine_logits(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines of features [B, D] with the classes' weight rows [C, D]: [B, C] in -1 .. 1, without a scale."""
    return unit_vectors(features) @ unit_vectors(weight).T


@full_precision
def cosine_kd(student_cosine: Tensor, teacher_cosine: Tensor, *, scale: float, temperature: float) -> Tensor:
    """KD on scaled cosines: T^2 * KL(softmax(scale * teacher / T) || softmax(scale * student / T)).

    Cosines [B, C]; no log prior on either side. Gradient flows to the student only.
    Suh, Seo: Long-Tailed Recognition by Mutual Information Maximization between Latent Features and Ground-Truth
    Labels, arXiv:2305.01160 (GML): scale 30, T 4.
    """
    return kd(scale * student_cosine, scale * teacher_cosine, temperature=temperature)


@full_precision
def class_balanced_distillation(
    student_features: Tensor,
    logits: Tensor,
    teacher_features: list[Tensor] | Tensor,
    target: Tensor,
    *,
    alpha: float,
    beta: float,
) -> Tensor:
    """Class-balanced distillation: (1 - alpha) * CE(logits, y) + alpha * beta * `cosine_distance`.

    arXiv:2104.05279; the batches are drawn evenly over the classes, which is the sampler's part.
    """
    return (1 - alpha) * F.cross_entropy(logits, target) + alpha * beta * cosine_distance(
        student_features, teacher_features
    )


@full_precision
def cosine_distance(student_features: Tensor, teacher_features: list[Tensor] | Tensor) -> Tensor:
    """Mean over the batch of 1 - cos(student_features, t), t the teachers' unit vectors side by side.

    student_features [B, sum D_k]; teacher_features: [B, D_k] of each teacher. Gradient flows to the student only.
    Iscen, Araujo, Gong, Schmid: Class-Balanced Distillation for Long-Tailed Visual Recognition, arXiv:2104.05279.
    """
    units = [unit_vectors(features.detach().to(student_features.dtype)) for features in teacher_features]
    joint = unit_vectors(torch.cat(units, dim=1))
    return (1 - (unit_vectors(student_features) * joint).sum(dim=1)).mean()

"""Distillation losses on the relations between the images of a batch.

All of them depend on who shares the batch: they are statistics of the rows passed. Gradient flows to the student
only, except where a loss says that both embeddings are trained.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.feature import unit_vectors
from ltkd.losses.precision import full_precision


@full_precision
def similarity_preserving(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Similarity-preserving distillation: 1/B^2 ||G_s - G_t||_F^2 for maps [B, ...] of any shapes.

    G = F F^T over the flattened maps [B, B], each row scaled to unit norm. One image alone gives 0.
    Tung, Mori: Similarity-Preserving Knowledge Distillation, arXiv:1907.09682.
    """
    student, teacher = (unit_vectors(x @ x.T) for x in (student_map.flatten(1), teacher_map.detach().flatten(1)))
    return F.mse_loss(student, teacher)


def relational(
    student_embedding: Tensor, teacher_embedding: Tensor, *, distance_weight: float, angle_weight: float
) -> Tensor:
    """Relational distillation: distance_weight * distance + angle_weight * angle of `relational_terms`.

    Park, Kim, Lu, Cho: Relational Knowledge Distillation, arXiv:1904.05068.
    """
    distance, angle = relational_terms(student_embedding, teacher_embedding)
    return distance_weight * distance + angle_weight * angle


@full_precision
def relational_terms(student_embedding: Tensor, teacher_embedding: Tensor) -> tuple[Tensor, Tensor]:
    """The two unweighted parts of RKD (arXiv:1904.05068) for embeddings [B, D_s] and [B, D_t]: (distance, angle).

    distance: smooth l1 between the pairwise l2 distances, each divided by their mean over the positive ones; mean over
    B^2. angle: smooth l1 between cos(e_i - e_j, e_k - e_j) of all triplets; mean over B^3. Equal images have a distance
    of 1e-6 and no direction, so that all gradients are finite. Memory: B^2 * D + B^3.
    """
    student = _differences(student_embedding)
    teacher = _differences(teacher_embedding.detach())
    distance = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    angle = F.smooth_l1_loss(_cosines(student), _cosines(teacher))
    return distance, angle


def _differences(embedding: Tensor) -> Tensor:
    """e_i - e_j: [B, B, D]. Directly, since distances from inner products lose their digits where rows are close."""
    return embedding.unsqueeze(1) - embedding.unsqueeze(0)


def _relative_distances(differences: Tensor) -> Tensor:
    distances = differences.square().sum(dim=2).clamp_min(1e-12).sqrt()  # clamped: the root has no gradient at 0
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    distances = distances.masked_fill(itself, 0)
    number_of_pairs = max(distances.numel() - len(distances), 1)  # all but the diagonal are positive
    mean = distances.sum() / number_of_pairs
    return distances / torch.where(mean > 0, mean, 1.0)  # one image alone has no distance


def _cosines(differences: Tensor) -> Tensor:
    """[j, i, k]: the cosine of the angle at j between i and k."""
    directions = unit_vectors(differences)
    return directions @ directions.mT


@full_precision
def pkt(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Probabilistic knowledge transfer: mean over B^2 of S_t log((S_t + 1e-7) / (S_s + 1e-7)).

    S: (cosine + 1) / 2 between the rows of an embedding [B, D], diagonal included, each row divided by its sum. Norms
    are taken + 1e-7. Because of the mean over B^2 the weight is large.
    Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, arXiv:1803.10837.
    """
    student = _cosine_probabilities(student_embedding)
    teacher = _cosine_probabilities(teacher_embedding.detach())
    return (teacher * ((teacher + 1e-7) / (student + 1e-7)).log()).mean()


def _cosine_probabilities(embedding: Tensor) -> Tensor:
    rows = embedding / (torch.linalg.vector_norm(embedding, dim=1, keepdim=True) + 1e-7)
    similarity = (rows @ rows.T + 1) / 2
    return similarity / similarity.sum(dim=1, keepdim=True)


@full_precision
def correlation_congruence(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Correlation congruence as its authors shared it: mean over neighbours b, b + 1 of sum_k d_b,k d_b+1,k.

    d = |s - t|, both embeddings [B, D]. Not a correlation, and dependent on the order of the batch. Gradient flows to
    both embeddings, which are trained; that both become constant is a trivial solution. One image alone gives 0.
    Peng et al.: Correlation Congruence for Knowledge Distillation, arXiv:1904.01802.
    """
    difference = (student_embedding - teacher_embedding).abs()
    return (difference[:-1] * difference[1:]).sum() / max(len(difference) - 1, 1)


@full_precision
def correlation_congruence_kernel(
    student_embedding: Tensor, teacher_embedding: Tensor, *, gamma: float, order: int
) -> Tensor:
    """Correlation congruence as in the paper: 1/B^2 ||K_s - K_t||_F^2, a Gaussian kernel's Taylor expansion.

    K_ij = exp(-2 gamma) sum_{p = 0 .. order} (2 gamma)^p / p! (x_i . x_j)^p on the l2-normalised rows of an embedding
    [B, D]. Gradient flows to both embeddings, which are trained. arXiv:1904.01802.
    """
    student, teacher = (_gaussian_kernel(x, gamma, order) for x in (student_embedding, teacher_embedding))
    return F.mse_loss(student, teacher)


def _gaussian_kernel(embedding: Tensor, gamma: float, order: int) -> Tensor:
    rows = unit_vectors(embedding)
    cosine = rows @ rows.T
    terms = ((2 * gamma) ** p / math.factorial(p) * cosine.pow(p) for p in range(order + 1))
    return math.exp(-2 * gamma) * sum(terms)

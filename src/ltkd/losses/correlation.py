"""Correlations of outputs: Pearson's, and Spearman's through differentiable ranks.

Shapes: logits [B, C]. Values are means over the batch. Gradient flows to the student only.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.logit import kd_per_image, standardize
from ltkd.losses.precision import full_precision

PRODUCT_EPSILON = 1e-8  # DIST's public code: added to the product of the two norms
PROBABILITY_FLOOR = 1e-8  # scale-free DIST: a class column with a smaller norm is noise of the last digit
RANK_FLOOR = 1e-3  # ranks differ by about 1: a smaller norm means equal values, whose order has no meaning


@full_precision
def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float,
    gamma: float,
    temperature: float,
    scale_free: bool = False,
) -> Tensor:
    """DIST: T^2 * [beta * (1 - mean_b r(p_b, q_b)) + gamma * (1 - mean_c r(p_:c, q_:c))], r = `pearson` on
    p = softmax(teacher / T), q = softmax(student / T).

    The first part compares each image over the classes, the second each class over the images of the batch (of one
    process): undefined for one image, where it is the constant gamma. With the public code's r a class whose
    probabilities stay below about 1e-5 in the whole batch correlates with nothing; `scale_free` counts it fully.
    Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536.
    """
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    q = F.softmax(student_logits / temperature, dim=1)
    floor = PROBABILITY_FLOOR if scale_free else None
    between, within = (1 - pearson(q, p, dim=dim, floor=floor).mean() for dim in (1, 0))
    return temperature**2 * (beta * between + gamma * within)


@full_precision
def pearson(first: Tensor, second: Tensor, *, dim: int = 1, floor: float | None = None) -> Tensor:
    """Pearson's correlation along `dim`: sum of products of the centred values / (product of their norms + 1e-8).

    With a `floor` the denominator is the product of the norms, each at least `floor`: exact above it.
    """
    return _cosine(*(values - values.mean(dim=dim, keepdim=True) for values in (first, second)), dim=dim, floor=floor)


def _cosine(first: Tensor, second: Tensor, *, dim: int, floor: float | None) -> Tensor:
    if floor is not None:
        return (F.normalize(first, dim=dim, eps=floor) * F.normalize(second, dim=dim, eps=floor)).sum(dim=dim)
    norms = torch.linalg.vector_norm(first, dim=dim) * torch.linalg.vector_norm(second, dim=dim)
    return (first * second).sum(dim=dim) / (norms + PRODUCT_EPSILON)


@full_precision
def soft_rank(values: Tensor, *, strength: float, mask: Tensor | None = None) -> Tensor:
    """Differentiable ranks of each row, ascending: [B, n] -> [B, n], the largest value near n, the smallest near 1.

    The projection of values / strength onto the permutahedron of (n, ..., 1), Euclidean: values closer than about
    `strength` share the mean of their ranks plus their distance from their mean / strength, all others have their hard
    rank. Its derivative is 1 / strength * (identity - mean over the values that share): 0 for a value by itself.
    Where all values are close compared with the strength, the map is affine and keeps the distances themselves. Equal
    values share the mean of their ranks.
    mask: bool [B, n]; the values outside are not counted, and the ranks at their places have no meaning.

    Computed in float64, for all rows at once in n passes over [B, n]: memory O(B n), and nothing depends on the values.
    Blondel, Teboul, Berthet, Djolonga: Fast Differentiable Sorting and Ranking, arXiv:2002.08871.
    """
    exact = values.double() / strength
    size = values.shape[1]
    count = torch.full_like(exact[:, :1], size) if mask is None else mask.sum(dim=1, keepdim=True).double()
    if mask is not None:
        # far below every counted value: it can neither be ranked above one nor share with one
        lowest = exact.detach().masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
        exact = torch.where(mask, exact, lowest - 3 * size)
    ordered, order = exact.sort(dim=1, descending=True)
    hard = count - torch.arange(size, device=values.device)
    start, end = _blocks(ordered.detach() - hard)
    ranks = ordered - _BlockMean.apply(ordered - hard, start, end)
    return ranks.gather(1, order.argsort(dim=1)).to(values.dtype)


def soft_spearman(student_logits: Tensor, teacher_logits: Tensor, *, strength: float) -> Tensor:
    """1 - Spearman's correlation of each image's logits, mean over the batch; ranks by `soft_rank` at `strength`.

    With a strength that is large beside the gaps between neighbouring logits (1, for 100 logits of size 3) the soft
    ranks are affine in the logits and this is Pearson's correlation of the logits.
    """
    return (1 - _soft_spearman_per_image(student_logits, teacher_logits.detach(), strength)).mean()


@full_precision
def _soft_spearman_per_image(first: Tensor, second: Tensor, strength: float, mask: Tensor | None = None) -> Tensor:
    twice = None if mask is None else torch.cat((mask, mask))
    ranks = soft_rank(torch.cat((first, second)), strength=strength, mask=twice).chunk(2)
    if mask is None:
        return pearson(*ranks, floor=RANK_FLOOR)
    inside = mask.to(first.dtype)
    mean = (mask.sum(dim=1, keepdim=True) + 1) / 2  # of ranks, soft ones too: the projection keeps their sum
    return _cosine(*((values - mean) * inside for values in ranks), dim=1, floor=RANK_FLOOR)


@full_precision
def correlation_matching(
    student_logits: Tensor, teacher_logits: Tensor, difficulty: Tensor, *, temperature: float, rank_strength: float
) -> Tensor:
    """CMKD's loss: mean_b (1 - d_b) * (1 - r(p_b, q_b)) + d_b * (1 - rho(z_t, z_s)), all on standardised logits z.

    r: Pearson's correlation of p = softmax(z_t / T) and q = softmax(z_s / T); rho: Spearman's of z_t and z_s by soft
    ranks of strength `rank_strength` / C, since neighbours among C standardised logits are about 1 / C apart.
    difficulty: d [B] in 0 .. 1, without gradient. No factor T^2: a correlation has no scale.
    Niu et al.: Efficient and Robust Knowledge Distillation from A Stronger Teacher Based on Correlation Matching,
    arXiv:2410.06561.
    """
    student, teacher = standardize(student_logits), standardize(teacher_logits.detach())
    values = pearson(F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1))
    ranks = _soft_spearman_per_image(student, teacher, rank_strength / student.shape[1])
    return ((1 - difficulty) * (1 - values) + difficulty * (1 - ranks)).mean()


@full_precision
def normalized_entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Entropy of softmax(logits / T) divided by log C: [B, C] -> [B] in 0 .. 1, without gradient."""
    log_p = F.log_softmax(logits.detach() / temperature, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1) / math.log(logits.shape[1])


@full_precision
def ranking_loss(student_logits: Tensor, teacher_logits: Tensor, *, k: int, strength: float) -> Tensor:
    """RLKD's loss: 1 - Spearman's correlation over u, the union of the k largest logits of teacher and student; mean
    over the batch.

    u differs between images (k to 2k classes) and is chosen without gradient; ranks within it by `soft_rank`.
    Of fewer than k classes all are taken.
    Peng, Zhang: Enhancing Knowledge Distillation of Large Language Models through Efficient Multi-Modal Distribution
    Alignment, arXiv:2409.12545.
    """
    student_top, teacher_top = _top(student_logits, k), _top(teacher_logits, k)
    classes = torch.cat((teacher_top, student_top), dim=1)
    repeated = _shared(student_top, teacher_top)
    mask = torch.cat((torch.ones_like(teacher_top, dtype=torch.bool), ~repeated), dim=1)
    student, teacher = (logits.gather(1, classes) for logits in (student_logits, teacher_logits.detach()))
    return (1 - _soft_spearman_per_image(student, teacher, strength, mask)).mean()


@full_precision
def overlap_weighted_kd(student_logits: Tensor, teacher_logits: Tensor, *, k: int, temperature: float) -> Tensor:
    """RLKD's dynamic variant of the loss beside it: mean_b |top k of teacher and of student| / k * KD_b."""
    shared = _shared(_top(student_logits, k), _top(teacher_logits, k))
    overlap = shared.to(student_logits.dtype).mean(dim=1)
    return (overlap * kd_per_image(student_logits, teacher_logits, temperature=temperature)).mean()


def _top(logits: Tensor, k: int) -> Tensor:
    return logits.detach().topk(min(k, logits.shape[1]), dim=1).indices


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """Bool, as `first` [B, k]: the entry is also in the row of `second`."""
    return (first.unsqueeze(2) == second.unsqueeze(1)).any(dim=2)


@torch.no_grad()
def _blocks(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the blocks on which the non-increasing regression of each row [B, n] is constant: first and last + 1.

    The regression is the slope of the least concave majorant of the points (k, sum of the first k values), k = 0 .. n.
    It bends at the points from which all slopes to the left are above all slopes to the right.
    """
    size = rows.shape[1]
    sums = F.pad(rows.cumsum(dim=1), (1, 0))
    left, right = torch.full_like(sums, torch.inf), torch.full_like(sums, -torch.inf)
    for distance in range(1, size + 1):
        slope = (sums[:, distance:] - sums[:, :-distance]) / distance
        torch.minimum(left[:, distance:], slope, out=left[:, distance:])
        torch.maximum(right[:, :-distance], slope, out=right[:, :-distance])
    bends = left > right  # both ends do

    position = torch.arange(size + 1, device=rows.device)
    start = torch.where(bends[:, :-1], position[:-1], 0).cummax(dim=1).values
    end = torch.where(bends[:, 1:], position[1:], size).flip(1).cummin(dim=1).values.flip(1)
    return start, end


class _BlockMean(torch.autograd.Function):
    """Mean over each value's block (rows [B, n]; blocks as from `_blocks`). Its matrix is symmetric: the gradient is
    the block mean of the gradient, without sums in an order that a GPU chooses."""

    @staticmethod
    def forward(ctx, rows: Tensor, start: Tensor, end: Tensor) -> Tensor:
        ctx.save_for_backward(start, end)
        sums = F.pad(rows.cumsum(dim=1), (1, 0))
        return (sums.gather(1, end) - sums.gather(1, start)) / (end - start)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _BlockMean.apply(gradient, *ctx.saved_tensors), None, None

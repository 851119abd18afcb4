"""Losses on the labels, plain and corrected for long-tailed class counts.

Shapes: logits [B, C], target [B] (int64 class labels), class_counts [C] (training images per class). Values are means
over the batch. A class without images has a prior of 0, no adjusted logit and no weight: callers refuse such data
beforehand. `beta` may be a 0-dimensional tensor, which a captured training step reads anew each time; it should be
float64, since beta^n is lost to the rounding of a float32 beta.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


def effective_number_weights(class_counts: Tensor, *, beta: float | Tensor) -> Tensor:
    """Weight of each class by its effective number of images, [C] -> [C] float64: w = (1 - beta) / (1 - beta^n),
    scaled to sum to C.

    beta = 0 weighs all classes by 1; towards beta = 1 the weights are those of 1 / n.
    Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555.
    """
    log_beta = beta.log() if isinstance(beta, Tensor) else math.log(beta) if beta > 0 else -math.inf
    weights = -1 / torch.expm1(class_counts.double() * log_beta)  # the factor 1 - beta cancels
    return weights * (len(weights) / weights.sum())


@full_precision
def cross_entropy(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of softmax(logits), in full precision whatever the type of the logits.

    label_smoothing: e of the targets (1 - e) * one-hot + e / C (Szegedy et al., arXiv:1512.00567).
    """
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


@full_precision
def balanced_softmax(logits: Tensor, target: Tensor, class_counts: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Balanced softmax: cross-entropy of softmax(z + log n); label_smoothing as in `cross_entropy`.

    Ren et al.: Balanced Meta-Softmax for Long-Tailed Visual Recognition, arXiv:2007.10740.
    """
    return F.cross_entropy(logits + class_counts.to(logits.dtype).log(), target, label_smoothing=label_smoothing)


@full_precision
def logit_adjusted(
    logits: Tensor, target: Tensor, class_counts: Tensor, *, tau: float, label_smoothing: float = 0.0
) -> Tensor:
    """Logit-adjusted cross-entropy, of softmax(z + tau * log pi) with the class priors pi = n / sum(n).

    tau = 1 is the balanced softmax, tau = 0 plain cross-entropy.
    Menon et al.: Long-Tail Learning via Logit Adjustment, arXiv:2007.07314.
    """
    prior = class_counts.to(logits.dtype) / class_counts.sum()
    return F.cross_entropy(logits + tau * prior.log(), target, label_smoothing=label_smoothing)


@full_precision
def class_balanced_cross_entropy(
    logits: Tensor, target: Tensor, class_counts: Tensor, *, beta: float | Tensor
) -> Tensor:
    """Class-balanced cross-entropy: mean_b w_y * CE, with the weights of `effective_number_weights`.

    Divided by the number of images, as in the paper: a batch of rare classes has a larger gradient. beta = 0 is plain
    cross-entropy. Cui et al.: Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555.
    """
    weights = _weights_of_images(logits, target, class_counts, beta)
    return (weights * F.cross_entropy(logits, target, reduction="none")).mean()


@full_precision
def weighted_cross_entropy(logits: Tensor, target: Tensor, class_counts: Tensor, *, beta: float | Tensor) -> Tensor:
    """Cross-entropy as a weighted mean: sum_b w_y * CE / sum_b w_y, with the weights of `effective_number_weights`.

    What torch's weighted cross-entropy and the code of LDAM-DRW (arXiv:1906.07413) compute: the size of the gradient
    does not depend on which classes share the batch. beta = 0 is plain cross-entropy.
    """
    weights = _weights_of_images(logits, target, class_counts, beta)
    return (weights * F.cross_entropy(logits, target, reduction="none")).sum() / weights.sum()


@full_precision
def focal(
    logits: Tensor, target: Tensor, class_counts: Tensor | None = None, *, gamma: float, beta: float | Tensor = 0.0
) -> Tensor:
    """Focal loss of a softmax: mean_b w_y * (1 - q_y)^gamma * CE with q = softmax(logits).

    Without class_counts all w are 1, else they are those of `effective_number_weights`. The weight stands outside of
    the power (the code of LDAM-DRW has it inside of q). gamma = 0 is (class-balanced) cross-entropy.
    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, arXiv:1708.02002, with a softmax.
    """
    log_q = F.log_softmax(logits, dim=1)
    # as a logarithm, summed over the other classes: 1 - q_y would be 0 for a certain network, and its power's slope nan
    log_others = log_q.masked_fill(_is_target(logits, target), -torch.inf).logsumexp(dim=1)
    losses = (gamma * log_others).exp() * F.nll_loss(log_q, target, reduction="none")
    if class_counts is not None:
        losses = losses * _weights_of_images(logits, target, class_counts, beta)
    return losses.mean()


@full_precision
def class_balanced_focal(
    logits: Tensor, target: Tensor, class_counts: Tensor, *, beta: float | Tensor, gamma: float
) -> Tensor:
    """Class-balanced focal loss of sigmoids: mean_b w_y * sum_c (1 - p_c)^gamma * -log p_c.

    Each class is a yes-or-no question: p_c = sigmoid(z_c) for the target and sigmoid(-z_c) for the others; the weight
    w_y of the image's own class (`effective_number_weights`) multiplies all C of them. gamma = 0 is the class-balanced
    sigmoid cross-entropy. Cui et al.: Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555.
    """
    towards_target = torch.where(_is_target(logits, target), logits, -logits)
    losses = -(gamma * F.logsigmoid(-towards_target)).exp() * F.logsigmoid(towards_target)
    return (_weights_of_images(logits, target, class_counts, beta) * losses.sum(dim=1)).mean()


@full_precision
def ldam(
    logits: Tensor, target: Tensor, class_counts: Tensor, *, max_margin: float, scale: float,
    beta: float | Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Label-distribution-aware margin loss: cross-entropy of scale * (z - m_y at the target's place).

    logits: cosines of embedding and class weights, -1 .. 1: on unbounded logits the margins m_c = max_margin *
    n_c^(-1/4) / max_k n_k^(-1/4) mean nothing. With `beta` the mean over the batch is weighted as in
    `weighted_cross_entropy`: what deferred re-weighting (DRW) changes to; beta = 0 is the plain mean.
    Cao, Wei, Gaidon, Arechiga, Ma: Learning Imbalanced Datasets with LDAM Loss, arXiv:1906.07413.
    """
    margins = class_counts.to(logits.dtype) ** -0.25
    margins = margins * (max_margin / margins.max())
    adjusted = scale * (logits - _is_target(logits, target) * margins)
    if beta is None:
        return F.cross_entropy(adjusted, target)
    return weighted_cross_entropy(adjusted, target, class_counts, beta=beta)


def _is_target(logits: Tensor, target: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device) == target.unsqueeze(1)


def _weights_of_images(logits: Tensor, target: Tensor, class_counts: Tensor, beta: float | Tensor) -> Tensor:
    """[B], the effective-number weight of each image's class."""
    return effective_number_weights(class_counts, beta=beta).to(logits.dtype)[target]

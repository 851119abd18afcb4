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
def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of softmax(logits), in full precision whatever the type of the logits."""
    return F.cross_entropy(logits, target)


@full_precision
def balanced_softmax(logits: Tensor, target: Tensor, class_counts: Tensor) -> Tensor:
    """Balanced softmax: cross-entropy of softmax(z + log n).

    Ren et al.: Balanced Meta-Softmax for Long-Tailed Visual Recognition, arXiv:2007.10740.
    """
    return F.cross_entropy(logits + class_counts.to(logits.dtype).log(), target)


@full_precision
def logit_adjusted(logits: Tensor, target: Tensor, class_counts: Tensor, *, tau: float) -> Tensor:
    """Logit-adjusted cross-entropy, of softmax(z + tau * log pi) with the class priors pi = n / sum(n).

    tau = 1 is the balanced softmax, tau = 0 plain cross-entropy.
    Menon et al.: Long-Tail Learning via Logit Adjustment, arXiv:2007.07314.
    """
    prior = class_counts.to(logits.dtype) / class_counts.sum()
    return F.cross_entropy(logits + tau * prior.log(), target)

"""Losses on the labels, plain and corrected for long-tailed class counts.

Shapes: logits [B, C], target [B] (int64 class labels), class_counts [C] (training images per class). Values are means
over the batch. A class without images has a prior of 0 and no adjusted logit: callers refuse such data beforehand.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


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


def effective_number_weights(class_counts: Tensor, *, beta: float | Tensor) -> Tensor:
    """Class weights [C] by the effective number of images, (1 - beta) / (1 - beta^n), scaled to sum to C. float64.

    beta in [0, 1), a number or a 0-dim tensor: 0 gives 1 for every class, near 1 the weights approach 1 / n.
    Cui et al.: Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555.
    """
    counts = class_counts.to(torch.float64)
    log_beta = (beta.to(counts) if isinstance(beta, Tensor) else counts.new_full((), beta)).log()
    # The factor 1 - beta is common to all classes; expm1 keeps the digits that 1 - beta^n loses for beta near 1.
    weights = -1 / torch.expm1(counts * log_beta)
    return weights * (len(weights) / weights.sum())

"""Corrections of a trained classifier for long-tailed class counts: no training, the features stay as they are."""

import torch
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def posthoc_logit_adjustment(logits: Tensor, class_counts: Tensor, *, tau: float) -> Tensor:
    """Logits [B, C] of a network trained with cross-entropy, adjusted at test time: z - tau * log pi, pi = n / sum(n).

    tau = 1 by theory, tau = 0 changes nothing. A class without images would win every time: callers refuse it.
    Menon et al.: Long-Tail Learning via Logit Adjustment, arXiv:2007.07314.
    """
    prior = class_counts.to(logits.dtype) / class_counts.sum()
    return logits - tau * prior.log()


@full_precision
def tau_normalise(weight: Tensor, *, tau: float) -> Tensor:
    """Classifier weights [C, D] with each class's norm tempered: w_k / ||w_k||^tau, to be used without the bias.

    tau = 0 leaves the weights, tau = 1 gives all classes the same norm.
    Kang et al.: Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217.
    """
    return weight / _norms(weight)[:, None] ** tau


@full_precision
def tau_normalised_logits(logits: Tensor, weight: Tensor, bias: Tensor | None, *, tau: float) -> Tensor:
    """The logits of a linear classifier (weight [C, D], bias [C]) after `tau_normalise`, from its logits [B, C] before.

    Since z = W h + b, the new logits are (z - b) / ||w_k||^tau: the embedding itself is not needed.
    """
    return (logits if bias is None else logits - bias) / _norms(weight) ** tau


@full_precision
def learnable_weight_scaling(logits: Tensor, class_scale: Tensor) -> Tensor:
    """(W x + b)_k * s_k for logits [B, C] and one trained number per class [C], which starts at 1; all else is fixed.

    Kang et al.: Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217.
    """
    return logits * class_scale


def _norms(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=1).clamp_min(torch.finfo(weight.dtype).tiny)

"""Sharpness-aware minimisation of a linear classifier, in full: the reference of what a SAM step is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision

EPSILON = 1e-12  # added to the norm of the gradient


@full_precision
def sam(
    images: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    rho: float,
    lr: float,
    momentum: float,
    weight_decay: float,
    steps: int,
) -> Tensor:
    """The weight [C, D] after `steps` of SAM with SGD on mean CE(x W^T, y), images [B, D], target [B].

        g = grad L(W);  G = grad L(W + rho g / (||g|| + 1e-12)) + weight_decay * W
        v = momentum * v + G (v = G at first);  W <- W - lr * v

    The decay acts on W and is in neither gradient; the momentum collects G. rho = 0 is SGD.
    Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization, arXiv:2010.01412; on long tails Rangwani et al.,
    arXiv:2212.13827.
    """
    gradient = torch.func.grad(lambda w: F.cross_entropy(images @ w.T, target))
    velocity = torch.zeros_like(weight)
    for _ in range(steps):
        first = gradient(weight)
        second = gradient(weight + rho * first / (first.norm() + EPSILON))
        velocity = momentum * velocity + second + weight_decay * weight
        weight = weight - lr * velocity
    return weight

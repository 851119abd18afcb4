"""The gradient of sharpness-aware minimisation (SAM): recipe.sam."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltkd.losses.sharpness import EPSILON


def sharpness_aware_gradient(
    differentiate: Callable[[], Any], optimizer: Optimizer, modules: Sequence[nn.Module], *, radius: float
) -> Any:
    """Compute the gradient at theta + radius * g / ||g||, g the gradient at theta; return what the first pass returned.

    differentiate: adds the gradient of the objective to those of the optimizer's parameters, which are 0 or None.
    Both passes see the same random numbers and start from the same buffers of `modules`; what stays in these (running
    statistics, queues, counts) is of the first pass. One norm over all parameters, those of the method included.
    Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization, arXiv:2010.01412.
    """
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before, random = [buffer.clone() for buffer in buffers], _random_state()
    returned = differentiate()
    after = [buffer.clone() for buffer in buffers]

    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    weights = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
        for parameter in parameters:
            parameter.add_(parameter.grad * (radius / (norm + EPSILON)))
    optimizer.zero_grad(set_to_none=True)

    _copy(buffers, before)
    _set_random_state(random)
    differentiate()
    _copy(parameters, weights)
    _copy(buffers, after)
    return returned


@torch.no_grad()
def _copy(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])

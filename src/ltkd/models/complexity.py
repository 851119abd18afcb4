"""The size of a network: its parameters, and the multiply-adds of one image."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ltkd.models.mode import evaluating


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image of shape (channels, height, width) in evaluation mode.

    The field's convention: convolutions, linear layers and attention count; normalisation, activations, pooling and
    biases do not. The model is left as it was, each module in its own mode.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2

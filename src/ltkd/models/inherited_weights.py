"""Starts a network from the weights of a larger one of its family.

Weight selection: Initializing Models with Larger Ones, arXiv 2311.18823.
"""

import torch
from torch import Tensor, nn

from ltkd.errors import UserError

LEAST = 0.5  # of a network's parameters: with fewer, two networks have little more than names in common


def inherit_weights(model: nn.Module, larger: nn.Module) -> float:
    """Give `model` the weights of `larger`, in place. Returns the share of its parameters that come from there.

    A parameter or buffer comes from that of the same name, where layers and the blocks around them are of one kind and
    no dimension is smaller; kernels of convolutions must be of one size. Of n channels, number floor(i * n / k) becomes
    number i of k, in every layer alike. So a residual network starts as the first blocks of each stage of a deeper one,
    and a narrower network with every second, third, ... channel. What has no counterpart stays as it is. Behind
    concatenated or grouped channels (DenseNet, ResNeXt of another width) numbers do not say which channels belong
    together, and such a start is a poor one.

    UserError, with `model` unchanged, where less than half of its parameters have a counterpart.
    """
    own, others = model.state_dict(), larger.state_dict()
    inherited = {
        name: _selected(others[name], tensor.shape)
        for name, tensor in own.items()
        if name in others and _comparable(model, larger, name) and _holds(others[name].shape, tensor.shape)
    }
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    share = sum(size for name, size in sizes.items() if name in inherited) / sum(sizes.values())
    if share < LEAST:
        raise UserError(
            f"only {share:.0%} of its parameters have a counterpart there; take a teacher of the same family, deeper "
            "or wider, or choose random"
        )
    with torch.no_grad():
        for name, value in inherited.items():
            own[name].copy_(value)
    return share


def _comparable(model: nn.Module, larger: nn.Module, name: str) -> bool:
    """True where the layers that a tensor of this name belongs to, and all blocks around them, are of one kind."""
    path = name.split(".")
    inside = [".".join(path[:depth]) for depth in range(1, len(path))]
    return all(type(model.get_submodule(part)) is type(larger.get_submodule(part)) for part in inside)


def _holds(larger: torch.Size, shape: torch.Size) -> bool:
    if len(larger) != len(shape) or (len(shape) == 4 and larger[2:] != shape[2:]):
        return False
    return all(size >= wanted for size, wanted in zip(larger, shape, strict=True))


def _selected(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Evenly spaced entries of each dimension, as many as `shape` says."""
    for dimension, (size, wanted) in enumerate(zip(tensor.shape, shape, strict=True)):
        if size != wanted:
            places = torch.arange(wanted, device=tensor.device) * size // wanted
            tensor = tensor.index_select(dimension, places)
    return tensor

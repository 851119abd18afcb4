"""Shared by the tests of networks."""

from torch import nn


def load_in_order(target: nn.Module, source: nn.Module) -> None:
    """Give `target` the weights and buffers of `source`, another writing of the same network, one after the other."""
    values = list(source.state_dict().values())
    target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)))


def after_training(model: nn.Module) -> nn.Module:
    """In evaluation mode, normalisation as after some training: no scale is 1, no shift and mean 0."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model.eval()

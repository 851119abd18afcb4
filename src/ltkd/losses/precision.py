"""The floating-point contract of every loss: float32 at least, whatever the networks ran in."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a loss so that it computes in float32 or better.

    float16 and bfloat16 tensor arguments become float32 (the gradient returns in the argument's own type), float64
    stays float64, and autocast is off inside: sums of exponentials lose all their digits in half precision.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        device_type = next(tensors).device.type
        with torch.autocast(device_type, enabled=False):
            return function(*map(_promoted, args), **{key: _promoted(value) for key, value in kwargs.items()})

    return wrapped


def _promoted(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value

"""Images as given weights expect them: of another mean, deviation or size than the data set's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class OwnInput:
    """A forward pre-hook that turns normalised images [B, C, H, W] into those of the network's own normalisation.

    (p - mean) / std becomes (p - own_mean) / own_std for pixels p in 0 .. 1; with a `size` the images are then scaled
    to `size` pixels a side (bilinear, antialiased). A hook leaves names and number of the weights as they are.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        own_mean: Sequence[float],
        own_std: Sequence[float],
        size: int | None,
        device: torch.device,
    ) -> None:
        means, stds, own_means, own_stds = (
            torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std, own_mean, own_std)
        )
        self.scale = (stds / own_stds).float().to(device)
        self.shift = ((means - own_means) / own_stds).float().to(device)
        self.size = size

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images, *other_inputs = inputs
        return (self._converted(images), *other_inputs)

    def _converted(self, images: Tensor) -> Tensor:
        images = images * self.scale + self.shift
        if self.size in (None, images.shape[-1]):
            return images
        return interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)

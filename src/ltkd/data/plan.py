"""The random choices of one epoch, drawn before its first step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class EpochPlan:
    """All random choices of one epoch; entry i of each [N] tensor belongs to the i-th image in the epoch's order.

    drawn: the choices of what recipe.augmentation adds to crop and flip, by name. pixels: of a part of the plan, the
    images themselves, uint8 [B, H, W, C], cropped and augmented, where they were fetched ahead of the step. own: of a
    part, the rows that are there for themselves; none means all, and the others are there for the next one to be mixed
    with. ahead: pixels of steps to come, by data set, step and batch size; a part of the plan begins with none.
    """

    permutation: Tensor  # row of the data set
    offsets_y: Tensor  # top edge of the crop in the padded image, 0 .. 2 * padding; `padding` is no shift
    offsets_x: Tensor  # left edge
    flips: Tensor  # bool: mirror the crop
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    pixels: Tensor | None = None
    own: tuple[slice, ...] = ()
    ahead: dict[tuple[object, int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def take(self, where: slice | Tensor) -> "EpochPlan":
        """The choices at some positions of the epoch."""
        choices = (self.permutation, self.offsets_y, self.offsets_x, self.flips)
        drawn = {name: choice[where] for name, choice in self.drawn.items()}
        pixels = None if self.pixels is None else self.pixels[where]
        return EpochPlan(*(choice[where] for choice in choices), drawn=drawn, pixels=pixels)

    def take_all(self, parts: Sequence[slice]) -> "EpochPlan":
        """The choices at several parts of the epoch, one after the other."""
        if len(parts) == 1:
            return self.take(parts[0])
        plans = [self.take(part) for part in parts]
        choices = zip(*((plan.permutation, plan.offsets_y, plan.offsets_x, plan.flips) for plan in plans), strict=True)
        drawn = {name: torch.cat([plan.drawn[name] for plan in plans]) for name in self.drawn}
        return EpochPlan(*map(torch.cat, choices), drawn=drawn)

    def tensors(self) -> list[Tensor]:
        """All of them, always in the same order."""
        pixels = [] if self.pixels is None else [self.pixels]
        return [self.permutation, self.offsets_y, self.offsets_x, self.flips, *self.drawn.values(), *pixels]

    def clone(self) -> "EpochPlan":
        choices = (self.permutation, self.offsets_y, self.offsets_x, self.flips)
        drawn = {name: choice.clone() for name, choice in self.drawn.items()}
        pixels = None if self.pixels is None else self.pixels.clone()
        return EpochPlan(*(choice.clone() for choice in choices), drawn=drawn, pixels=pixels)

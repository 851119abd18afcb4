"""Sums over the images of an epoch, kept on the device so that no step waits for it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Totals:
    """Sums each metric over the images of an epoch and remembers the first step at which it was not finite.

    All figures together are one vector: a step costs a handful of operations, however many figures it has. It stays at
    its place in memory as long as the figures have the same names, so that a captured step can add to it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shapes: dict[str, torch.Size] = {}
        self._sums = self._broken_at = torch.empty(0, device=device)
        self._step = torch.zeros((), device=device)

    def start_epoch(self, step: int = 0) -> None:
        """Nothing seen yet in this epoch, which goes on at `step`."""
        self._sums.zero_()
        self._broken_at.fill_(math.inf)
        self._step.fill_(step)

    @torch.no_grad()
    def add(self, figures: Mapping[str, Tensor], num_images: int) -> None:
        """The figures of one step, each a mean over its images."""
        shapes = {name: value.shape for name, value in figures.items()}
        if shapes != self._shapes:
            self._lay_out(shapes)
        values = torch.cat([value.reshape(-1).float() for value in figures.values()])
        self._sums.add_(values * num_images)
        self._broken_at.copy_(torch.minimum(self._broken_at, torch.where(values.isfinite(), math.inf, self._step)))
        self._step.add_(1)

    def sums(self) -> dict[str, Tensor]:
        return self._split(self._sums)

    def sums_on_cpu(self) -> dict[str, Tensor]:
        return self._split(self._sums.cpu())

    def broken_at(self) -> dict[str, float]:
        """The first step, from 0, at which any number of the figure was not finite, or infinity."""
        return {name: value.min().item() for name, value in self._split(self._broken_at.cpu()).items()}

    def tensors(self) -> list[Tensor]:
        """All that a step changes."""
        return [self._sums, self._broken_at, self._step]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums(), "broken_at": self._split(self._broken_at), "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        shapes = {name: value.shape for name, value in state["sums"].items()}
        if not shapes.items() <= self._shapes.items():
            self._lay_out(shapes)
        self.start_epoch()
        for mine, theirs in ((self.sums(), state["sums"]), (self._split(self._broken_at), state["broken_at"])):
            for name, value in theirs.items():
                mine[name].copy_(value)
        self._step.copy_(state["step"])

    def _lay_out(self, shapes: dict[str, torch.Size]) -> None:
        """Room for figures of these shapes; what is known of them is kept."""
        sums, broken_at = self.sums(), self._split(self._broken_at)
        self._shapes = shapes
        size = sum(shape.numel() for shape in shapes.values())
        self._sums = torch.zeros(size, device=self._device)
        self._broken_at = torch.full((size,), math.inf, device=self._device)
        for new, old in ((self.sums(), sums), (self._split(self._broken_at), broken_at)):
            for name in new.keys() & old.keys():
                new[name].copy_(old[name])

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        """Its parts by name, as views."""
        parts = vector.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

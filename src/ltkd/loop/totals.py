"""Sums metrics over the images of an epoch, on the device so that no step waits for it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ltkd.data import LongTailSplit
from ltkd.loop.evaluate import named_groups

LOSS = "loss/"  # the names of the objective's terms begin so


class Totals:
    """Sums each metric over the images of an epoch and remembers the first step at which it was not finite.

    All metrics together are one vector: a step costs a handful of operations, however many metrics it has. It stays at
    its place in memory as long as the metrics have the same names, so that a captured step can add to it. A sum is
    finite up to the first value that is not: the number of such steps says which one that was.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shapes: dict[str, torch.Size] = {}
        self._sums = self._finite_steps = torch.empty(0, device=device)
        self._step = torch.zeros((), device=device)

    def start_epoch(self, step: int | Tensor = 0) -> None:
        """Forget what was seen before this epoch, which goes on at `step`."""
        self._sums.zero_()
        self._finite_steps.fill_(step)
        self._step.fill_(step)

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor], num_images: int) -> None:
        """Add the metrics of one step, each a mean over its images."""
        shapes = {name: value.shape for name, value in metrics.items()}
        if shapes != self._shapes:
            self._lay_out(shapes)
        values = torch.cat([value.reshape(-1).float() for value in metrics.values()])
        self._sums.add_(values * num_images)
        self._finite_steps.add_(self._sums.abs() < math.inf)  # isfinite is four operations
        self._step.add_(1)

    def sums(self) -> dict[str, Tensor]:
        return self._split(self._sums)

    def sums_on_cpu(self) -> dict[str, Tensor]:
        return self._split(self._sums.cpu())

    def metrics(self, num_images: int, split: LongTailSplit) -> dict[str, float]:
        """Means over the epoch's `num_images` images, named as in the metrics file.

        train/<name>, train/<name>/<group> for each group that has a value, and train/loss, the mean objective.
        """
        named = {}
        for name, sums in self.sums_on_cpu().items():
            mean = sums / num_images
            if mean.ndim == 2:  # a method's metric: sum over the images of each group, and their number
                totals, counts = mean.unbind(1)
                named[f"train/{name}"] = (totals.sum() / counts.sum()).item()
                mean = totals / counts  # nan for a group of which no image was seen
            if mean.ndim:
                by_group = named_groups(split, mean).items()
                named |= {f"train/{name}/{group}": v for group, v in by_group if v is not None and math.isfinite(v)}
            else:
                named[f"train/{name}"] = mean.item()
        return named | {"train/loss": sum(v for name, v in named.items() if name.startswith(f"train/{LOSS}"))}

    def loss_terms(self, num_images: int) -> dict[str, float]:
        """The mean of each loss term over `num_images` images, by the term's name; empty before the first image."""
        if not num_images:
            return {}
        sums = self.sums_on_cpu().items()
        return {name.removeprefix(LOSS): value.item() / num_images for name, value in sums if name.startswith(LOSS)}

    def first_broken(self, terms: Iterable[str]) -> tuple[list[str], int]:
        """Find the loss terms that were not finite first, and the step of it, from 0.

        One broken term breaks the weights and with them all terms of the next step: the first one is the cause.
        """
        broken_at = self.broken_at()
        steps = {name: broken_at[f"{LOSS}{name}"] for name in terms}
        first = min(steps.values())
        return [name for name, step in steps.items() if step == first], int(first)

    def broken_at(self) -> dict[str, float]:
        """The first step, from 0, at which any number of each metric was not finite, or infinity."""
        return {name: value.min().item() for name, value in self._split(self._broken_at().cpu()).items()}

    def _broken_at(self) -> Tensor:
        return torch.where(self._finite_steps < self._step, self._finite_steps, math.inf)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        return [self._sums, self._finite_steps, self._step]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums(), "broken_at": self._split(self._broken_at()), "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        shapes = {name: value.shape for name, value in state["sums"].items()}
        if not shapes.items() <= self._shapes.items():
            self._lay_out(shapes)
        self.start_epoch(state["step"])
        sums, finite_steps = self.sums(), self._split(self._finite_steps)
        for name, value in state["sums"].items():
            sums[name].copy_(value)
            finite_steps[name].copy_(state["broken_at"][name].to(self._step.device).minimum(self._step))

    def _lay_out(self, shapes: dict[str, torch.Size]) -> None:
        """Make room for metrics of these shapes; what is known of them is kept."""
        sums, finite_steps = self.sums(), self._split(self._finite_steps)
        self._shapes = shapes
        size = sum(shape.numel() for shape in shapes.values())
        self._sums = torch.zeros(size, device=self._device)
        self._finite_steps = self._step.expand(size).clone()
        for new, old in ((self.sums(), sums), (self._split(self._finite_steps), finite_steps)):
            for name in new.keys() & old.keys():
                new[name].copy_(old[name])

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        """Split it into its parts by name, which are views."""
        parts = vector.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

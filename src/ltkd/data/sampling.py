"""Samplers choose the images of an epoch, which is as many images as the data set has, however they are drawn.

Every sampler draws an epoch's order from the generator it is given and keeps no state: an epoch that is drawn again is
the same. Classes are drawn by their probability p_c, proportional to n_c^q (Kang et al.: Decoupling Representation and
Classifier for Long-Tailed Recognition, arXiv:1910.09217); a class's own images come in shuffled rounds, so that none
comes twice before all came once. A class without images is not drawn.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ltkd.choices import look_up, name_and_settings
from ltkd.ranges import NonNegative
from ltkd.settings import Settings


def sampling_probabilities(class_counts: Tensor, *, q: float) -> Tensor:
    """p_c = n_c^q / sum n^q, [C] -> [C] float64: q = 1 draws images alike, 0 classes alike, 1/2 is between them."""
    counts = class_counts.double()
    weights = torch.where(counts > 0, counts**q, 0.0)
    return weights / weights.sum()


def progressive_sampling(class_counts: Tensor, *, epoch: int, epochs: int) -> Tensor:
    """Progressively balanced, [C] -> [C] float64: (1 - e/E) images alike + (e/E) classes alike, e from 1 to E."""
    share = epoch / epochs
    by_image, by_class = (sampling_probabilities(class_counts, q=q) for q in (1.0, 0.0))
    return (1 - share) * by_image + share * by_class


class Sampler(Settings):
    """Draws the order of an epoch's images. labels: [N], of the training images."""

    def __init__(self, labels: Tensor, **settings: Any) -> None:
        super().__init__(**settings)
        self.labels = labels.cpu()
        self.class_counts = self.labels.bincount()
        self._rows = self.labels.argsort(stable=True).split(self.class_counts.tolist())  # of each class

    def order(self, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Rows of the data set [N] in the order of `epoch`, from 1 to `epochs`. `generator` is on the CPU."""
        probabilities = self.probabilities(epoch, epochs)
        classes = torch.repeat_interleave(_quotas(probabilities, len(self.labels), generator))
        return self._fill(classes, generator)[torch.randperm(len(self.labels), generator=generator)]

    def probabilities(self, epoch: int, epochs: int) -> Tensor:
        """The probability of each class [C] to be drawn."""
        raise NotImplementedError

    def repeats(self, order: Tensor, groups: np.ndarray) -> dict[int, float]:
        """Average times that an image of each group is shown in an epoch: {group: repeats}, for groups with images.

        order [N]: of the epoch; groups [C]: id of each class.
        """
        of_class = torch.as_tensor(groups)[: len(self.class_counts)]
        images = of_class.bincount(weights=self.class_counts)
        shown = of_class.bincount(weights=self.labels[order].bincount(minlength=len(of_class)))
        return {group: (shown[group] / images[group]).item() for group in images.nonzero().flatten().tolist()}

    def _fill(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """An image of each of the classes [N]."""
        images = [
            _rounds(self._rows[label], number, generator) for label, number in enumerate(classes.bincount().tolist())
        ]
        order = torch.empty_like(self.labels)
        order[classes.argsort(stable=True)] = torch.cat(images)
        return order


def _rounds(values: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """`number` of the values: all of them in random order, then all in another, and so on."""
    rounds = -(-number // max(len(values), 1))
    shuffled = [values[torch.randperm(len(values), generator=generator)] for _ in range(rounds)]
    return torch.cat([values[:0], *shuffled])[:number]


def _quotas(probabilities: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Counts each class among `number` draws: the expected number, rounded up or down by chance.

    One common offset decides all roundings (systematic sampling), so that the quotas add up to `number`.
    """
    edges = (probabilities.cumsum(0) * number).round(decimals=6)  # whole numbers are whole, whatever the rounding
    edges[-1] = number
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    return (edges + offset).floor().diff(prepend=torch.zeros(1, dtype=torch.float64)).long()


class Instance(Sampler):
    """Every image once: a class comes as often as it has images."""

    def order(self, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self.labels), generator=generator)

    def repeats(self, order: Tensor, groups: np.ndarray) -> dict[int, float]:
        return {}  # once, always: nothing to tell


class Power(Sampler):
    """Class probabilities n_c^q."""

    q: NonNegative

    def probabilities(self, epoch: int, epochs: int) -> Tensor:
        return sampling_probabilities(self.class_counts, q=self.q)


class SquareRoot(Power):
    """Class probabilities sqrt(n_c)."""

    q: ClassVar[float] = 0.5


class Progressive(Sampler):
    """From images alike to classes alike over the epochs."""

    def probabilities(self, epoch: int, epochs: int) -> Tensor:
        return progressive_sampling(self.class_counts, epoch=epoch, epochs=epochs)


class ClassBalanced(Sampler):
    """Every class alike: the classes come in shuffled rounds too, so that a batch has each about equally often."""

    def order(self, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        present = self.class_counts.nonzero().flatten()
        return self._fill(_rounds(present, len(self.labels), generator), generator)

    def probabilities(self, epoch: int, epochs: int) -> Tensor:
        return sampling_probabilities(self.class_counts, q=0.0)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "instance": Instance,
    "square_root": SquareRoot,
    "class_balanced": ClassBalanced,
    "progressive": Progressive,
    "power": Power,
}


def sampler_class(name: str) -> Callable[..., Sampler]:
    """The sampler of that name; it takes the labels and its own settings. UserError if unknown."""
    return look_up("recipe.sampling", name, SAMPLERS)


def build_sampler(choice: str | Mapping[str, Any], labels: Tensor) -> Sampler:
    """The sampler for a name or {name: ..., its settings}; labels [N] are those of the training images."""
    name, settings = name_and_settings(choice)
    return sampler_class(name)(labels, **settings)

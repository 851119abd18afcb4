"""AutoAugment, RandAugment and TrivialAugment: which operation an image gets, and torchvision's functions for it.

A choice is a number in a table of (operation, magnitude). The images of a batch that share one are changed together, on
their device, by torchvision's own function, so that an image becomes what torchvision makes of it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

Operation = tuple[str, float]  # name, magnitude

IDENTITY: Operation = ("Identity", 0.0)
BINS = 31  # magnitudes of RandAugment and TrivialAugment; AutoAugment's policies count in ten
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
PLAIN = ("AutoContrast", "Equalize", "Invert", "Identity")  # without a magnitude
CHOICES = ("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")  # of the two without a policy

# (operation, probability, magnitude of 0 .. 9) twice; one line of a policy is drawn for an image
Policy = list[tuple[tuple[str, float, int | None], tuple[str, float, int | None]]]

CIFAR10: Policy = [
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
]
IMAGENET: Policy = [
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
]
POLICIES = {"cifar10": CIFAR10, "imagenet": IMAGENET}


class OperationChoice:
    """Draws operations for images, as numbers in a table."""

    def operations_at(self, size: int) -> list:
        """Nested lists of all operations that may be drawn for images of `size` pixels a side."""
        raise NotImplementedError

    def table(self, size: int) -> list[Operation]:
        """The different ones among these operations; the first is the identity."""
        return _numbered(self, size)[0]

    def draw(self, number: int, size: int, random: np.random.RandomState) -> Tensor:
        """Numbers in the table, [number, operations of an image] int64 on the CPU, applied from left to right."""
        raise NotImplementedError


class AutoAugment(OperationChoice):
    """One line of a learned policy, arXiv:1805.09501; CIFAR-100 uses CIFAR-10's policy."""

    def __init__(self, *, policy: Literal["cifar10", "imagenet"] = "cifar10") -> None:
        self.lines = POLICIES[policy]

    def operations_at(self, size: int) -> list[list[list[Operation]]]:
        """The operation with either sign: [line][first, second][sign]."""
        return [
            [_both_signs(name, _magnitude(name, level, 10, size)) for name, _, level in line] for line in self.lines
        ]

    def draw(self, number: int, size: int, random: np.random.RandomState) -> Tensor:
        _, places = _numbered(self, size)
        probabilities = np.array([[probability for _, probability, _ in line] for line in self.lines])
        lines = random.randint(len(self.lines), size=number)
        applied = random.random_sample((number, 2)) < probabilities[lines]
        signs = random.randint(2, size=(number, 2))
        return torch.from_numpy(np.where(applied, places[lines[:, None], np.arange(2), signs], 0))


class _AnyOperation(OperationChoice):
    """`operations` of fourteen, each at one of the magnitudes `levels` of 0 .. 30."""

    def __init__(self, operations: int, levels: Sequence[int], *, wide: bool) -> None:
        self.operations, self.levels, self.wide = operations, levels, wide

    def operations_at(self, size: int) -> list[list[Operation]]:
        """[name][level and sign]"""
        return [
            [
                operation
                for level in self.levels
                for operation in _both_signs(name, _magnitude(name, level, BINS, size, self.wide))
            ]
            for name in CHOICES
        ]

    def draw(self, number: int, size: int, random: np.random.RandomState) -> Tensor:
        _, places = _numbered(self, size)
        shape = (number, self.operations)
        return torch.from_numpy(
            places[random.randint(len(places), size=shape), random.randint(len(places[0]), size=shape)]
        )


class RandAugment(_AnyOperation):
    """`operations` of fourteen, each at `magnitude` of 0 .. 30, arXiv:1909.13719."""

    def __init__(self, *, operations: Annotated[int, Ge(1)] = 2, magnitude: Annotated[int, Ge(0), Le(30)] = 9) -> None:
        super().__init__(operations, [magnitude], wide=False)


class TrivialAugment(_AnyOperation):
    """One of fourteen at a magnitude drawn from 31, in the wide space, arXiv:2103.10158."""

    def __init__(self) -> None:
        super().__init__(1, range(BINS), wide=True)


@functools.cache  # a table is needed for each batch, and TrivialAugment's takes milliseconds
def _numbered(choice: OperationChoice, size: int) -> tuple[list[Operation], np.ndarray]:
    """The table, and the nested lists of operations as an array of numbers in it."""
    numbers = {IDENTITY: 0}
    places = _places(numbers, choice.operations_at(size))
    return list(numbers), places


def _both_signs(name: str, magnitude: float) -> list[Operation]:
    """Two that are equally likely; they are the same where the operation has no sign."""
    return [(name, magnitude), (name, -magnitude if name in SIGNED else magnitude)]


def _places(numbers: dict[Operation, int], operations: list | Operation) -> np.ndarray:
    """The operations, nested lists of them, as numbers; one that has none yet gets the next."""
    if isinstance(operations, tuple):
        return np.array(numbers.setdefault(operations, len(numbers)))
    return np.stack([_places(numbers, nested) for nested in operations])


def _magnitude(name: str, level: int | None, bins: int, size: int, wide: bool = False) -> float:
    """Number `level` of `bins` equal steps; 0 for an operation that has none."""
    if name in PLAIN:
        return 0.0
    if name == "Posterize":  # the number of bits that are kept
        return float((8 - torch.arange(bins) / ((bins - 1) / (6 if wide else 4))).round().int()[level])
    ends = {
        "ShearX": 0.3,
        "ShearY": 0.3,
        "TranslateX": 150 / 331 * size,
        "TranslateY": 150 / 331 * size,
        "Rotate": 30.0,
    }
    if wide:
        ends = {"ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32.0, "TranslateY": 32.0, "Rotate": 135.0}
    start, end = (1.0, 0.0) if name == "Solarize" else (0.0, ends.get(name, 0.99 if wide else 0.9))
    return float(torch.linspace(start, end, bins)[level])


def apply(images: Tensor, chosen: Tensor, table: list[Operation]) -> Tensor:
    """uint8 images [B, C, H, W] on any device, each after its operations; chosen [B, operations] on the CPU.

    Pixels that come from outside are black. On a GPU the host waits where torchvision copies numbers there: in affine,
    rotation and sharpness.
    """
    images = images.clone(memory_format=torch.contiguous_format)
    for operations in chosen.numpy().T:
        for number in np.unique(operations[operations > 0]):
            rows = torch.from_numpy(np.flatnonzero(operations == number)).to(images.device, non_blocking=True)
            images.index_copy_(0, rows, changed(images[rows], *table[number]))
    return images


def changed(images: Tensor, name: str, magnitude: float) -> Tensor:
    """uint8 [B, C, H, W] after one operation of torchvision, as its own AutoAugment calls it."""
    from torchvision.transforms.v2 import functional  # takes a while to import

    if name in ("ShearX", "ShearY"):
        # the paper's shear is a factor, torchvision's an angle; its corner stays
        angle = math.degrees(math.atan(magnitude))
        shear = [angle, 0.0] if name == "ShearX" else [0.0, angle]
        return functional.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, center=[0, 0])
    if name in ("TranslateX", "TranslateY"):
        shift = [int(magnitude), 0] if name == "TranslateX" else [0, int(magnitude)]
        return functional.affine(images, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0])
    return _functions()[name](images, magnitude)


@functools.cache
def _functions() -> dict[str, Callable[[Tensor, float], Tensor]]:
    from torchvision.transforms.v2 import functional as f

    return {
        "Rotate": lambda images, m: f.rotate(images, angle=m),
        "Brightness": lambda images, m: f.adjust_brightness(images, 1.0 + m),
        "Color": lambda images, m: f.adjust_saturation(images, 1.0 + m),
        "Contrast": lambda images, m: f.adjust_contrast(images, 1.0 + m),
        "Sharpness": lambda images, m: f.adjust_sharpness(images, 1.0 + m),
        "Posterize": lambda images, m: f.posterize(images, bits=int(m)),
        "Solarize": lambda images, m: f.solarize(images, threshold=255.0 * m),
        "AutoContrast": lambda images, m: f.autocontrast(images),
        "Equalize": lambda images, m: f.equalize(images),
        "Invert": lambda images, m: f.invert(images),
    }

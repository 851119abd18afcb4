"""recipe.augmentation: a kind of crop and what comes on top of it, written crop_flip+autoaugment+cutout.

In this order, whatever the order in the setting: crop and flip, an operation on the pixels, cutout, then the mixture
with another image of the batch. All choices are drawn with the epoch's plan, from the generator of its crops.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ltkd.data.operations import AutoAugment, OperationChoice, RandAugment, TrivialAugment
from ltkd.errors import UserError, unknown_name

KEY = "recipe.augmentation"
DEFAULT = "crop_flip"


class CropFlip:
    """dataset.crop_padding zeros on each side, a crop of the image's size, a flip: the CIFAR recipes'."""


class ResizedCropFlip:
    """A crop of a share of the area between `smallest` and 1 and an aspect ratio of 3/4 .. 4/3, scaled to the image's
    size, and a flip: ImageNet's (Szegedy et al., arXiv:1409.4842).

    Image files are cut at their full size. In evaluation the shorter side is scaled to 8/7 of the size (256 for 224)
    and the centre is cut out; an image that has the size already is taken whole.
    """

    def __init__(self, *, smallest: Annotated[float, Gt(0), Le(1)] = 0.08) -> None:
        self.smallest = smallest


class Cutout:
    """Zeros in a square of `length` pixels round a random one, before normalisation, arXiv:1708.04552.

    At the border less than the whole square is left; of an odd length it is a pixel less. Masks in the raw image, as
    the long-tail field's code has it.
    """

    def __init__(self, *, length: Annotated[int, Ge(1)] = 16) -> None:
        self.length = length

    def covers_all(self, size: int) -> bool:
        """True where nothing is left of an image of `size` pixels a side, whatever the square's place."""
        return self.length // 2 >= size

    def draw(self, number: int, size: int, random: np.random.RandomState) -> Tensor:
        """Boxes [number, 4]: first row, row behind the last, first column, column behind the last."""
        centre, half = random.randint(size, size=(number, 2)), self.length // 2
        first, behind = (centre - half).clip(0), (centre + half).clip(max=size)
        return torch.from_numpy(np.stack([first, behind], axis=2).reshape(number, 4))


class MixUp:
    """w x + (1 - w) x', labels alike, w from Beta(alpha, alpha); arXiv:1710.09412."""

    def __init__(self, *, alpha: Annotated[float, Gt(0)] = 1.0) -> None:
        self.alpha = alpha

    def draw(self, number: int, size: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(weight of the own pixels [number], box of the other's [number, 4], share of the own label [number])"""
        weight = random.beta(self.alpha, self.alpha, number).astype(np.float32)
        return weight, np.zeros((number, 4), np.int64), weight


class CutMix:
    """A box of x' in x, labels by their areas, w from Beta(alpha, alpha) for the box's; arXiv:1905.04899."""

    def __init__(self, *, alpha: Annotated[float, Gt(0)] = 1.0) -> None:
        self.alpha = alpha

    def draw(self, number: int, size: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As MixUp's."""
        centre = random.randint(size, size=(number, 2))
        half = (0.5 * np.sqrt(1 - random.beta(self.alpha, self.alpha, number)) * size).astype(np.int64)[:, None]
        first, behind = (centre - half).clip(0), (centre + half).clip(max=size)
        share = 1 - (behind - first).prod(axis=1) / size**2
        box = np.stack([first, behind], axis=2).reshape(number, 4)
        return np.ones(number, np.float32), box, share.astype(np.float32)


CHOICES: dict[str, Callable[..., Any]] = {
    "crop_flip": CropFlip,
    "resized_crop_flip": ResizedCropFlip,
    "autoaugment": AutoAugment,
    "randaugment": RandAugment,
    "trivialaugment": TrivialAugment,
    "cutout": Cutout,
    "mixup": MixUp,
    "cutmix": CutMix,
}
_CROPS = ("crop_flip", "resized_crop_flip")
RESIZED = 256 / 224  # the shorter side in evaluation, of the size that is cut out, after resized crops in training
_ONE_OF = (_CROPS, ("autoaugment", "randaugment", "trivialaugment"))


@dataclass(frozen=True)
class Augmentation:
    """The parts of a setting; None or empty where it has none of the kind."""

    resized_crop: ResizedCropFlip | None = None
    operations: OperationChoice | None = None
    cutout: Cutout | None = None
    mixing: Sequence[MixUp | CutMix] = field(default=())

    @property
    def is_crop_flip(self) -> bool:
        """Nothing but crop and flip: an image has few views, which a cache can hold."""
        return self == Augmentation()

    def shorter_side(self, size: int) -> int:
        """Pixels to which an image's shorter side is scaled in evaluation, before the centre of `size` is cut out."""
        return size if self.resized_crop is None else round(size * RESIZED)

    def draw(self, number: int, size: int, random: np.random.RandomState) -> dict[str, Tensor]:
        """Choices [number, ...] for images of `size` pixels a side.

        A batch is mixed in one way, which is that of its first image: with a permuted order as good as any.
        """
        drawn = {}
        if self.resized_crop is not None:
            drawn["crop_seeds"] = torch.from_numpy(random.randint(2**62, size=number, dtype=np.int64))
        if self.operations is not None:
            drawn["operations"] = self.operations.draw(number, size, random)
        if self.cutout is not None:
            drawn["cutout"] = self.cutout.draw(number, size, random)
        if self.mixing:
            kinds = [kind.draw(number, size, random) for kind in self.mixing]
            kind_of_image, image = random.randint(len(kinds), size=number), np.arange(number)
            weight, box, share = (
                torch.from_numpy(np.stack(values)[kind_of_image, image]) for values in zip(*kinds, strict=True)
            )
            drawn |= {"mix_weight": weight, "mix_box": box, "mix_share": share}
        return drawn


def split_choice(choice: str | Sequence[Any]) -> list[dict[str, Any]]:
    """The setting as [{name: ..., arguments}], the crop first. UserError where it is of another form."""
    parts = [part.strip() for part in choice.split("+")] if isinstance(choice, str) else choice
    entries = [{"name": part} if isinstance(part, str) else part for part in parts]
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise UserError(f"{KEY}: should be names joined by + or a list of them, got {choice!r}")
        if entry["name"] not in CHOICES:
            raise unknown_name(KEY, entry["name"], CHOICES)
    names = [entry["name"] for entry in entries]
    for kinds in (*_ONE_OF, *((name,) for name in CHOICES)):
        if sum(name in kinds for name in names) > 1:
            raise UserError(f"{KEY}: at most one of {', '.join(kinds)}, got {'+'.join(names)}")
    if not set(names) & set(_CROPS):
        entries = [{"name": DEFAULT}, *entries]
    order = list(CHOICES)
    return [dict(entry) for entry in sorted(entries, key=lambda entry: order.index(entry["name"]))]


def joined_choice(entries: Sequence[Mapping[str, Any]]) -> str | list[Any]:
    """The setting in its one canonical form: a string where no entry has arguments."""
    names = [entry["name"] if len(entry) == 1 else dict(entry) for entry in entries]
    return "+".join(names) if all(isinstance(name, str) for name in names) else names


def build_augmentation(choice: str | Sequence[Any]) -> Augmentation:
    """The parts for a setting. UserError for an unknown name."""
    parts = [CHOICES[entry.pop("name")](**entry) for entry in split_choice(choice)]

    def only(kind: type) -> Any:
        return next((part for part in parts if isinstance(part, kind)), None)

    mixing = tuple(part for part in parts if isinstance(part, MixUp | CutMix))
    return Augmentation(only(ResizedCropFlip), only(OperationChoice), only(Cutout), mixing)


def is_inside(boxes: Tensor, size: int) -> Tensor:
    """[B, size, size] bool: the pixels of each box [B, 4] of rows and columns; waits for no device."""
    along = torch.arange(size, device=boxes.device)
    first_row, behind_row, first_column, behind_column = boxes[:, :, None].unbind(1)  # [B, 1] each
    rows = (along >= first_row) & (along < behind_row)
    columns = (along >= first_column) & (along < behind_column)
    return rows[:, :, None] & columns[:, None, :]

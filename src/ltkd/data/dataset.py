"""A data set's settings, and the arrays that come of them."""

import logging
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from ltkd.data.groups import make_groups
from ltkd.data.image_files import ImageFiles
from ltkd.data.long_tail import LongTailSplit
from ltkd.data.manifest import data_sha256
from ltkd.data.sources import PACK, reader
from ltkd.errors import UserError

_log = logging.getLogger(__name__)

# Where the files come from is no property of the data: the manifest's pixel hashes tell what was in them.
_WHEREABOUTS = (
    "source", "download", "path", "list", "train_list", "validation_list", "test_list", "class_names", "duplicates",
    "storage", "workers",
)  # fmt: skip
# Left out of the settings while they have their default, so that runs of before these came keep their identity.
_NEW = ("test_share", "on_bad_image", "content")


def check_normalisation(key: str, values: list[float], channels: int) -> None:
    """UserError, beginning with `key`, unless there is a value in 0 .. 1 for each channel."""
    if len(values) != channels:
        raise UserError(f"{key}: {values} must have one value for each of {channels} channels")
    outside = [value for value in values if not 0 <= value <= 1]
    if outside:
        raise UserError(
            f"{key}: {outside[0]:g} is not of pixel values in 0 .. 1; values of 0 .. 255 are to be divided by 255"
        )


@dataclass(frozen=True)
class DatasetConfig:
    """The `dataset` section of the configuration; conf/dataset/*.yaml say why each value is what it is."""

    name: str
    source: str  # a registered source, or "pack"
    num_classes: Annotated[int, Ge(2)]
    image_size: Annotated[int, Ge(1)]  # pixels per side
    channels: Literal[1, 3]
    imbalance: Literal["exponential", "step", "none"]
    imbalance_factor: Annotated[float, Ge(1)]  # largest class / smallest class
    split_seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    validation_per_class: Annotated[int, Ge(0)]
    groups: str | dict[str, Any]
    mean: list[float]  # per channel, of pixel values in 0 .. 1
    std: list[Annotated[float, Gt(0)]]
    crop_padding: Annotated[int, Ge(0)]  # pixels on each side; 0: no random crop
    horizontal_flip: bool
    download: bool
    path: str | None  # the pack file, or the folder of the images
    train_list: str | None = None  # text files with a line "path label" for each image
    validation_list: str | None = None
    test_list: str | None = None
    class_names: str | None = None  # a text file with a line for each class
    test_share: Annotated[float, Gt(0), Lt(1)] | None = None  # drawn for testing where the data has no test part
    on_bad_image: Literal["error", "skip"] = "error"  # damaged image files
    duplicates: Literal["warn", "error"] = "warn"  # images that two parts have in common, pixel by pixel
    storage: Literal["auto", "memory", "stream"] = "auto"  # all images on the device, or read batch by batch
    content: str | None = None  # hash of a pack, folder or list: whose settings do not say what its images are
    workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto"  # processes that decode streamed files; auto: the cores
    list: str | None = None  # a long tail's text file; the last field, since it hides Python's list from here on

    def __post_init__(self):
        for key in ("mean", "std"):
            check_normalisation(f"dataset.{key}", getattr(self, key), self.channels)
        self._check_whereabouts()
        if self.imbalance == "none" and self.imbalance_factor != 1:
            _log.warning("dataset.imbalance_factor=%g has no effect with imbalance=none", self.imbalance_factor)

    def _check_whereabouts(self) -> None:
        """UserError for a path or list that the source does not read, or lacks."""
        if self.source == PACK:
            used = ["path"]
            if self.path is None:
                raise UserError("dataset.path: missing; it names the pack file")
        else:
            used = reader(self.source).settings
        for key in ("path", "list", "train_list", "validation_list", "test_list", "class_names", "test_share"):
            if getattr(self, key) is not None and key not in used:
                raise UserError(f"dataset.{key}: has no use with source={self.source}; leave it out")
        if self.validation_list is not None and self.validation_per_class:
            raise UserError("dataset.validation_per_class: leave it at 0, dataset.validation_list names the images")

    @property
    def holds_out(self) -> bool:
        """True where there are validation images, taken from those of training or listed."""
        return self.validation_per_class > 0 or self.validation_list is not None

    def settings(self) -> dict[str, Any]:
        """Everything but where the files come from, as plain values for the manifest."""
        default = {setting.name: setting.default for setting in fields(self) if setting.name in _NEW}
        values = asdict(self).items()
        return {key: value for key, value in values if key not in _WHEREABOUTS and value != default.get(key, MISSING)}


@dataclass(frozen=True)
class LongTailData:
    """The images of a split: uint8 [N, C, H, W], int64 labels [N]; training rows in the order of `split.indices`.

    Images are an array, or files that are decoded when they are needed (whose hash is in `sha256`).
    """

    name: str
    config: DatasetConfig
    split: LongTailSplit
    class_names: list[str]
    train_images: np.ndarray | ImageFiles
    train_labels: np.ndarray
    validation_images: np.ndarray | ImageFiles
    validation_labels: np.ndarray
    test_images: np.ndarray | ImageFiles
    test_labels: np.ndarray
    files: dict[str, Any] | None = None  # what the manifest says of image files: hashes of their names, those skipped
    sha256: Mapping[str, str] = field(default_factory=dict)  # of pixels and labels of the parts that are not decoded

    def manifest(self) -> dict[str, Any]:
        """The split's manifest, and hashes of the pixels and labels, so that changed data is noticed."""
        return {
            **self.split.to_manifest(self.config.settings()),
            "test_size": len(self.test_labels),
            **{f"{part}_data_sha256": self._part_sha256(part) for part in ("train", "validation", "test")},
            **({} if self.files is None else {"files": self.files}),
        }

    def in_groups(self, policy: str | dict[str, Any]) -> "LongTailData":
        """The same data with its classes in groups of that policy."""
        groups, names = make_groups(policy, self.split.canonical_counts)
        split = replace(self.split, groups=groups, group_names=names)
        return replace(self, config=replace(self.config, groups=policy), split=split)

    def decoded(self) -> "LongTailData":
        """The same data with all images as arrays: in memory, or mapped from a file that is kept beside the data."""
        parts = {name: getattr(self, name) for name in ("train_images", "validation_images", "test_images")}
        files = {name: images for name, images in parts.items() if isinstance(images, ImageFiles)}
        return replace(self, **{name: images.load()[0] for name, images in files.items()})

    def _part_sha256(self, part: str) -> str:
        images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
        if isinstance(images, ImageFiles):
            return self.sha256.get(part) or images.survey(labels).sha256
        return data_sha256(images, labels)

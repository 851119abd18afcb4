"""The registry of data sets: each source reads whole, not yet cut training and test data from its files.

A further source is a function below `@register_source("name")`. Its first parameter is the data root, its keyword-only
parameters are the settings of the `dataset` section that it uses; conf/dataset/*.yaml has their values.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltkd.data.image_files import ImageFiles
from ltkd.errors import UserError, unknown_name

PACK = "pack"  # a split that is cut already: load.py reads it


@dataclass(frozen=True)
class Source:
    """A whole data set: uint8 images [N, C, H, W], in memory or in files that are decoded when rows are taken."""

    train_images: np.ndarray | ImageFiles
    train_labels: np.ndarray  # [N] int64
    test_images: np.ndarray | ImageFiles
    test_labels: np.ndarray
    class_names: list[str]
    balanced: bool = True  # else a class may own fewer images than the long tail asks of it, and gives what it has
    validation_images: ImageFiles | None = None  # where the data set has a validation part of its own
    validation_labels: np.ndarray | None = None
    notes: list[tuple[int, str]] = field(
        default_factory=list
    )  # level of logging, and what a run should say of the files


@dataclass(frozen=True)
class Reader:
    """A source's function, and what is known of its files before they are read."""

    read: Callable[..., Source]
    folder: str | None  # name of the data set's folder under the data root; dataset.path may name another one
    count_classes: Callable[..., int] | None  # from the settings' path or lists, where dataset.num_classes is null
    own_images: bool  # files of the user's, of which the settings say nothing: their content is part of the settings

    @property
    def settings(self) -> list[str]:
        """Names of the `dataset` settings that the source uses."""
        return list(inspect.signature(self.read).parameters)[1:]


_READERS: dict[str, Reader] = {}


def register_source(
    name: str, *, folder: str | None = None, count_classes: Callable[..., int] | None = None, own_images: bool = False
) -> Callable[[Callable[..., Source]], Callable[..., Source]]:
    """Makes a function the reader for `dataset.source=name`."""

    def register(read: Callable[..., Source]) -> Callable[..., Source]:
        _READERS[name] = Reader(read, folder, count_classes, own_images)
        return read

    return register


def list_sources() -> list[str]:
    """All values of `dataset.source`."""
    return sorted([*_READERS, PACK])


def reader(name: str) -> Reader:
    """The reader of that name. UserError if unknown."""
    if name not in _READERS:
        raise unknown_name("dataset.source", name, list_sources())
    return _READERS[name]


def load_source(name: str, data_root: Path, /, **settings: Any) -> Source:
    """The whole data set of that name, its files under `data_root`; of `settings` the source takes those it uses.

    UserError where a file cannot be read.
    """
    source = reader(name)
    try:
        return source.read(Path(data_root), **{key: settings[key] for key in source.settings if key in settings})
    except OSError as error:
        raise UserError(f"data set {name}: {error.filename or data_root}: {error.strerror or error}") from error

"""Files to arrays: the full, balanced data sets from which long tails are cut."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltkd.data.cifar import read_cifar
from ltkd.data.dataset import DatasetConfig
from ltkd.errors import UserError, unknown_name

_DIGITS_TEST_PER_CLASS = 50
_DIGITS_TEST_SEED = 1797  # its own, so that the test set is the same whatever the split seed


@dataclass(frozen=True)
class Source:
    """A whole data set: uint8 images [N, C, H, W], int64 labels [N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]


def _digits(data_root: Path, *, download: bool) -> Source:
    """scikit-learn's handwritten digits, 8x8 grey: 124 training and 50 test images per class; ships with scikit-learn.

    The smallest class has 174 images; after the test images every class is cut to the first 124 of the rest, because
    the long tail is cut from balanced data.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # 0 .. 16 to 0 .. 255
    labels = digits.target.astype(np.int64)
    per_class = np.bincount(labels).min() - _DIGITS_TEST_PER_CLASS
    generator = np.random.RandomState(_DIGITS_TEST_SEED)
    train, test = [], []
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        test_rows = generator.permutation(rows)[:_DIGITS_TEST_PER_CLASS]
        test.append(test_rows)
        train.append(np.setdiff1d(rows, test_rows)[:per_class])
    train_rows, test_rows = np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
    names = [str(name) for name in digits.target_names]
    return Source(images[train_rows], labels[train_rows], images[test_rows], labels[test_rows], names)


def _cifar10(data_root: Path, *, download: bool) -> Source:
    return Source(*read_cifar("cifar10", data_root, download=download))


def _cifar100(data_root: Path, *, download: bool) -> Source:
    return Source(*read_cifar("cifar100", data_root, download=download))


_SOURCES: dict[str, Callable[..., Source]] = {"digits": _digits, "cifar10": _cifar10, "cifar100": _cifar100}
_SETTINGS_ONLY = ("tiny_imagenet", "imagenet")  # tables can be planned with them; nothing reads their files yet


def load_source(name: str, data_root: Path, *, download: bool) -> Source:
    """The whole data set of that name, its files under `data_root`; `download` fetches what is absent."""
    if name in _SETTINGS_ONLY:
        raise UserError(f"dataset.source: {name} is not available yet; choose one of: {', '.join([*_SOURCES, 'pack'])}")
    if name not in _SOURCES:
        raise unknown_name("dataset.source", name, [*_SOURCES, "pack"])
    return _SOURCES[name](Path(data_root), download=download)


def why_unavailable(dataset: DatasetConfig) -> str | None:
    """One line when no run on this data set can begin, whatever lies under `data_root`."""
    return f"data set {dataset.name}: not available yet" if dataset.source in _SETTINGS_ONLY else None

"""The content of a data set whose settings do not say what its images are, for the identity of its runs."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

from ltkd.data.dataset import DatasetConfig
from ltkd.data.pack import pack_content
from ltkd.data.sources import PACK, Source, load_source, reader
from ltkd.errors import UserError

_DIGITS = 16  # hexadecimal


def with_content(dataset: DatasetConfig, data_root: Path) -> DatasetConfig:
    """The settings with a hash of what a pack, an image folder or an image list holds; others as they are.

    No image is decoded. Where nothing is at the data set's path, a content that was asked for is believed: a table can
    then be read where its images are not. UserError where files cannot be read, or hold another content.
    """
    if dataset.content is not None and dataset.path is not None and not Path(dataset.path).exists():
        return dataset
    if dataset.source == PACK:
        digest = _digest(pack_content(Path(dataset.path)))
    elif reader(dataset.source).own_images:
        digest = _digest(_own_images(load_source(dataset.source, data_root, **vars(dataset)), dataset))
    else:
        return dataset
    if dataset.content not in (None, digest):
        raise UserError(f"dataset.content: {dataset.content} is asked for, but {dataset.path} holds {digest}")
    return replace(dataset, content=digest)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _own_images(source: Source, dataset: DatasetConfig) -> list:
    """Names, labels and bytes of all files, before the long tail is cut: the same for every split of them."""
    parts = {"train": (source.train_images, source.train_labels), "test": (source.test_images, source.test_labels)}
    if source.validation_images is not None:
        parts["validation"] = source.validation_images, source.validation_labels
    rows = sorted(
        ("all" if dataset.test_share else part, path, int(label))  # the settings say which of them are for testing
        for part, (files, labels) in parts.items()
        for path, label in zip(files.paths, labels, strict=True)
    )
    table = "\n".join(f"{part} {label} {path}" for part, path, label in rows)
    paths = [path for _, path, _ in rows]
    files = replace(source.train_images, paths=paths, names=paths)
    return [hashlib.sha256(os.fsencode(table)).hexdigest(), files.bytes_sha256(), source.class_names]

"""The parts of a split from image files: damaged files, and images that are in the training and in the test part."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ltkd.data.dataset import DatasetConfig, LongTailData
from ltkd.data.long_tail import LongTailSplit
from ltkd.data.sources import Source
from ltkd.errors import UserError

_log = logging.getLogger(__name__)


def names_sha256(source: Source, split: LongTailSplit) -> dict[str, Any]:
    """Fields of the manifest that identify the chosen files without reading them, damaged ones included."""
    test_labels = hashlib.sha256(source.test_labels.astype("<i8")).hexdigest()
    return {
        "files.train_names_sha256": source.train_images.take(split.indices).names_sha256,
        "files.test_names_sha256": source.test_images.names_sha256,
        "files.test_labels_sha256": test_labels,
    }


def load_files(dataset: DatasetConfig, source: Source, split: LongTailSplit) -> LongTailData:
    """Decodes the split's files and no others. Damaged ones are left out of it where the settings say so."""
    if source.validation_images is None:
        validation = source.train_images.take(split.validation_indices), source.train_labels[split.validation_indices]
    else:
        validation = source.validation_images, source.validation_labels
    parts = {
        "train": (source.train_images.take(split.indices), source.train_labels[split.indices]),
        "validation": validation,
        "test": (source.test_images, source.test_labels),
    }
    about = {key.removeprefix("files."): value for key, value in names_sha256(source, split).items()}
    arrays, skipped = {}, {}
    for part, (files, labels) in parts.items():
        pixels, bad = files.load(skip_bad=dataset.on_bad_image == "skip")
        good = np.setdiff1d(np.arange(len(files)), list(bad))
        if bad:
            skipped[part] = [files.names[row] for row in bad]
            _log.warning(
                "%d damaged image files are left out of the %s part, e.g. %s", len(bad), part, skipped[part][0]
            )
            pixels, labels = pixels[good], labels[good]
            if part == "train":
                counts = np.bincount(labels, minlength=dataset.num_classes)
                if counts.min() == 0:
                    name = source.class_names[int(counts.argmin())]
                    raise UserError(f"dataset.on_bad_image: skip leaves class {name} no image to train on")
                split = replace(split, indices=split.indices[good], class_counts=counts)
            elif part == "validation" and source.validation_images is None:
                split = replace(split, validation_indices=split.validation_indices[good])
        arrays |= {f"{part}_images": pixels, f"{part}_labels": labels}
    repeated = _repeated_in_test(arrays["train_images"], arrays["test_images"])
    if repeated:
        _report_duplicates(dataset, parts, repeated, skipped)
        about["test_images_also_in_training"] = len(repeated)
    if skipped:
        about["skipped"] = skipped
    return LongTailData(dataset.name, dataset, split, source.class_names, **arrays, files=about)


def _repeated_in_test(train: np.ndarray, test: np.ndarray) -> list[int]:
    """Rows of the test images whose pixels are exactly those of a training image."""
    known = {hashlib.sha256(image).digest() for image in train}
    return [row for row, image in enumerate(test) if hashlib.sha256(image).digest() in known]


def _report_duplicates(dataset: DatasetConfig, parts: Mapping, repeated: list[int], skipped: Mapping) -> None:
    left_out = set(skipped.get("test", ()))
    names = [name for name in parts["test"][0].names if name not in left_out]
    first = ", ".join(names[row] for row in repeated[:3])
    message = f"{len(repeated)} of {len(names)} test images are training images too, pixel by pixel: {first}"
    message += f" and {len(repeated) - 3} more" if len(repeated) > 3 else ""
    if dataset.duplicates == "error":
        raise UserError(f"dataset.duplicates: {message}")
    _log.warning("%s; accuracy on them measures memory (dataset.duplicates=error refuses them)", message)

"""The parts of a split from image files: damaged files, and images that are in the training and in the test part."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ltkd.data.augmentation import RESIZED
from ltkd.data.dataset import DatasetConfig, LongTailData
from ltkd.data.groups import make_groups
from ltkd.data.image_files import ImageFiles, image_digests
from ltkd.data.long_tail import LongTailSplit
from ltkd.data.sources import Source
from ltkd.data.storage import is_streamed
from ltkd.errors import UserError, first_few, printable

_log = logging.getLogger(__name__)


def names_sha256(source: Source, split: LongTailSplit) -> dict[str, Any]:
    """Fields of the manifest that identify the chosen files without reading them, damaged ones included."""
    test_labels = hashlib.sha256(source.test_labels.astype("<i8")).hexdigest()
    return {
        "files.train_names_sha256": source.train_images.take(split.indices).names_sha256,
        "files.test_names_sha256": source.test_images.names_sha256,
        "files.test_labels_sha256": test_labels,
    }


def load_files(
    dataset: DatasetConfig, source: Source, split: LongTailSplit, *, device: torch.device, resized_crops: bool
) -> LongTailData:
    """Decodes the split's files and no others. Damaged ones are left out of it where the settings say so.

    A part that is streamed is decoded once too, so that damaged files and duplicates are known before anything is
    trained; its digests are kept and its pixels are not.
    """
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
    arrays, skipped, digests, sha256 = {}, {}, {}, {}
    for part, (files, labels) in parts.items():
        if resized_crops:
            files = replace(files, shorter=round(files.size * RESIZED))
        streamed = _is_streamed(dataset, part, files, device, resized_crops)
        images, bad = _opened(files, labels, streamed, dataset.on_bad_image == "skip")
        if bad:
            good = np.setdiff1d(np.arange(len(files)), list(bad))
            skipped[part] = [files.names[row] for row in bad]
            _log.warning(
                "%d damaged image files are left out of the %s part, e.g. %s",
                len(bad),
                part,
                printable(skipped[part][0]),
            )
            images, labels = images[good], labels[good]
            if part == "train":
                counts = np.bincount(labels, minlength=dataset.num_classes)
                if counts.min() == 0:
                    name = source.class_names[int(counts.argmin())]
                    raise UserError(f"dataset.on_bad_image: skip leaves class {name} no image to train on")
                split = replace(split, indices=split.indices[good], class_counts=counts)
                groups, group_names = make_groups(dataset.groups, split.canonical_counts)
                split = replace(split, groups=groups, group_names=group_names)
            elif not len(labels):
                raise UserError(f"dataset.on_bad_image: skip leaves no image of the {part} part")
            elif part == "validation" and source.validation_images is None:
                split = replace(split, validation_indices=split.validation_indices[good])
        if streamed:
            survey = images.survey(labels)
            digests[part], sha256[part] = survey.digests, survey.sha256
        else:
            digests[part] = image_digests(images)
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    names = {part: _without(files.names, skipped.get(part, [])) for part, (files, _) in parts.items()}
    if in_test := _report_repeated(dataset, digests, names):
        about["test_images_also_in_training"] = in_test
    _warn_of_two_labels(digests["train"], arrays["train_labels"], names["train"])
    if skipped:
        about["skipped"] = skipped
    return LongTailData(dataset.name, dataset, split, source.class_names, **arrays, files=about, sha256=sha256)


def _is_streamed(
    dataset: DatasetConfig, part: str, files: ImageFiles, device: torch.device, resized_crops: bool
) -> bool:
    training = part == "train"
    padding, flip = dataset.crop_padding if training else 0, dataset.horizontal_flip and training
    why = "resized_crop_flip cuts from whole files" if training and resized_crops else None
    return is_streamed(dataset, part, len(files), device, padding=padding, flip=flip, why=why)


def _opened(
    files: ImageFiles, labels: np.ndarray, streamed: bool, skip_bad: bool
) -> tuple[np.ndarray | ImageFiles, dict[int, str]]:
    """(images, the reason for each that cannot be decoded)"""
    if streamed:
        return files, files.survey(labels, skip_bad=skip_bad).bad
    return files.load(skip_bad=skip_bad)


def _without(names: list[str], skipped: list[str]) -> list[str]:
    left_out = set(skipped)
    return [name for name in names if name not in left_out]


def _report_repeated(dataset: DatasetConfig, digests: Mapping[str, np.ndarray], names: Mapping[str, list[str]]) -> int:
    """Tells of images that two parts have in common, pixel by pixel. Returns how many test images training has too.

    digests: [N, 32] of each part's images. UserError where dataset.duplicates is error.
    """
    in_test = 0
    for one, other, harm in (
        ("train", "test", "accuracy on them measures memory"),
        ("train", "validation", "what is chosen by them rewards memory"),
        ("validation", "test", "what is chosen by them is chosen by test images"),
    ):
        known = {digest.tobytes() for digest in digests[one]}
        repeated = [
            name for name, digest in zip(names[other], digests[other], strict=True) if digest.tobytes() in known
        ]
        if not repeated:
            continue
        if (one, other) == ("train", "test"):
            in_test = len(repeated)
        called = "training" if one == "train" else one
        message = f"{len(repeated)} of {len(names[other])} {other} images are {called} images too, pixel by pixel"
        message += f": {first_few(repeated)}"
        if dataset.duplicates == "error":
            raise UserError(f"dataset.duplicates: {message}")
        _log.warning("%s; %s (dataset.duplicates=error refuses them)", message, harm)
    return in_test


def _warn_of_two_labels(digests: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    """Warns of training images that are equal pixel by pixel and of different classes."""
    label_of = dict(zip(map(np.ndarray.tobytes, digests), labels.tolist(), strict=True))
    pairs = zip(digests, labels.tolist(), names, strict=True)
    contradicted = [name for digest, label, name in pairs if label_of[digest.tobytes()] != label]
    if contradicted:
        message = "%d training images are there under another class too, pixel by pixel: %s"
        _log.warning(message, len(contradicted), first_few(contradicted))

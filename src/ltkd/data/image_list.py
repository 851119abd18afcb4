"""Text files with a line "path label" per image: ImageNet-LT, Places-LT, iNaturalist 2018, ImageNet-100-LT."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from ltkd.data.image_files import ImageFiles
from ltkd.data.image_folder import checked_folder
from ltkd.data.sources import Source, register_source
from ltkd.errors import UserError, first_few, printable

_DIGITS = 6  # of a label: more classes than any list has


def count_classes(train_list: str | None) -> int:
    """One more than the largest label of the training list."""
    return max(label for _, label in read_lines("train_list", train_list)) + 1


@register_source("image_list", count_classes=count_classes, own_images=True)
def read_image_list(
    data_root: Path,
    *,
    path: str | None,
    train_list: str | None,
    validation_list: str | None,
    test_list: str | None,
    class_names: str | None,
    channels: int,
    image_size: int,
) -> Source:
    """The images that the lists name, relative to the folder `path`.

    class_names: a text file with the name of class i in line i; by default a class is called by its number. UserError,
    naming list and line, for a line of another form, a gap in the labels, a label that training has not, or an image
    that a list names twice. Whether the files exist is seen when they are read, all at once.
    """
    root = checked_folder(path)
    train, labels = _images("train_list", train_list, root, channels, image_size)
    test, test_labels = _images("test_list", test_list, root, channels, image_size)
    present = np.unique(labels)
    num_classes = int(present[-1]) + 1
    gaps = np.setdiff1d(np.arange(len(present)), present).tolist()
    if gaps:
        raise UserError(
            f"dataset.train_list: {train_list} has labels up to {num_classes - 1}, but no image of {first_few(gaps)}; "
            "labels count from 0 without gaps"
        )
    _check_known("test_list", test_list, test_labels, num_classes)
    validation = validation_labels = None
    if validation_list is not None:
        validation, validation_labels = _images("validation_list", validation_list, root, channels, image_size)
        _check_known("validation_list", validation_list, validation_labels, num_classes)
    names = _class_names(class_names, num_classes)
    return Source(train, labels, test, test_labels, names, False, validation, validation_labels)


def read_lines(key: str, path: str | Path | None) -> list[tuple[str, int]]:
    """(image, label) of each line; empty lines are passed over.

    UserError names the line that has another form, or an image that is named twice.
    """
    lines = []
    for number, line in enumerate(_text_lines(key, path), start=1):
        if not line.strip():
            continue
        parts = line.rsplit(maxsplit=1)  # the image's path may have spaces
        if len(parts) != 2 or "\0" in line or not (parts[1].isascii() and parts[1].isdecimal()):
            shown = f"{line.strip()!r} is not a path and a label, a whole number from 0 on"
            raise UserError(f"dataset.{key}: {path}, line {number}: {shown}")
        if len(parts[1]) > _DIGITS:
            raise UserError(f"dataset.{key}: {path}, line {number}: a label has at most {_DIGITS} digits")
        lines.append((parts[0].strip(), int(parts[1])))
    if not lines:
        raise UserError(f"dataset.{key}: {path} names no image")
    times = Counter(os.path.normpath(name) for name, _ in lines)
    if len(times) < len(lines):
        raise UserError(f"dataset.{key}: {path} names {max(times, key=times.__getitem__)} more than once")
    return lines


def _text_lines(key: str, path: str | Path | None) -> list[str]:
    if path is None:
        raise UserError(f"dataset.{key}: missing; it names a text file")
    try:
        return Path(path).read_text(encoding="utf-8-sig").split("\n")  # not at a form feed within a name
    except OSError as error:
        raise UserError(f"dataset.{key}: {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"dataset.{key}: {path} is no text file in UTF-8 ({error.reason})") from error


def _images(key: str, path: str | None, root: Path, channels: int, size: int) -> tuple[ImageFiles, np.ndarray]:
    lines = read_lines(key, path)
    names = [name for name, _ in lines]
    return ImageFiles(root, names, names, channels, size), np.array([label for _, label in lines], dtype=np.int64)


def _check_known(key: str, path: str | None, labels: np.ndarray, num_classes: int) -> None:
    unknown = np.unique(labels[labels >= num_classes])
    if len(unknown):
        raise UserError(f"dataset.{key}: {path} has labels that training has not: {first_few(unknown.tolist())}")


def _class_names(path: str | None, num_classes: int) -> list[str]:
    if path is None:
        return [str(label) for label in range(num_classes)]
    names = [line.strip() for line in _text_lines("class_names", path)]
    while names and not names[-1]:
        names.pop()
    if len(names) != num_classes:
        raise UserError(f"dataset.class_names: {path} has {len(names)} lines for {num_classes} classes")
    if "" in names:
        raise UserError(f"dataset.class_names: {path}, line {names.index('') + 1} is empty")
    if twice := [name for name, lines in Counter(names).items() if lines > 1]:
        raise UserError(f"dataset.class_names: {path} has {printable(twice[0])} more than once")
    return names

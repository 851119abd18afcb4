"""A folder of your own images: one subfolder per class.

    PATH/train/CLASS/*   and   PATH/test/CLASS/* or PATH/val/CLASS/*
    PATH/train/CLASS/*   or    PATH/CLASS/*          and   dataset.test_share=.2

Classes are numbered in the sorted order of their names. Images lie in the class's folder or below it, in sorted order.
Hidden files and folders are passed over, links are followed.
"""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ltkd.data.decoding import ENDINGS
from ltkd.data.image_files import ImageFiles
from ltkd.data.sources import Source, register_source
from ltkd.errors import UserError, first_few

_PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")  # names that folders of parts have

Notes = list[tuple[int, str]]  # of a Source; those that find something add to them


def count_classes(path: str | None) -> int:
    """Subfolders of the training part."""
    return len(class_folders(_train_folder(checked_folder(path)), []))


@register_source("image_folder", count_classes=count_classes, own_images=True)
def read_image_folder(
    data_root: Path, *, path: str | None, channels: int, image_size: int, test_share: float | None, split_seed: int
) -> Source:
    """The images of a folder; `test_share` of each class is drawn for testing where there is no test part.

    Of n images of a class round(n * test_share) are drawn, at least one and at most n - 1; a class of one image has
    none for testing. UserError where the layout is none of the above, a class is empty, or the classes of the parts
    differ.
    """
    root = checked_folder(path)
    notes: Notes = []
    train, test = _train_folder(root), _test_folder(root, notes)
    beside = _beside_train(root) if test is None and train != root else []
    if test is None and test_share is None:
        layout = "class folders and no train/"
        if train != root:
            layout = "neither test/ nor val/ beside train/" + (f" (but {first_few(beside)})" if beside else "")
        raise UserError(
            f"dataset.path: {root} has {layout}; dataset.test_share=.2 draws a fifth of each class for testing"
        )
    if beside:
        notes.append((logging.WARNING, f"{root}: beside train/, and not used: {first_few(beside)}"))
    if test is not None and test_share is not None:
        raise UserError(f"dataset.test_share: {test} is there already; leave test_share out, or move that folder away")
    classes = class_folders(train, notes)
    for spellings in _look_alikes(classes):
        message = f"{train}: classes whose names differ in case or Unicode form alone: {first_few(spellings)}"
        notes.append((logging.WARNING, message))
    images, labels = read_class_folders(root, train, classes, notes, channels=channels, size=image_size)
    if test is not None:
        _check_same_classes(classes, class_folders(test, notes), test)
        test_images, test_labels = read_class_folders(root, test, classes, notes, channels=channels, size=image_size)
        return Source(images, labels, test_images, test_labels, classes, balanced=False, notes=notes)
    for_test = _draw_test(labels, classes, test_share, split_seed, notes)
    train_rows, test_rows = np.flatnonzero(~for_test), np.flatnonzero(for_test)
    parts = images.take(train_rows), labels[train_rows], images.take(test_rows), labels[test_rows]
    return Source(*parts, classes, balanced=False, notes=notes)


def checked_folder(path: str | Path | None) -> Path:
    """The folder of dataset.path. UserError where it is not set or no folder."""
    if path is None:
        raise UserError("dataset.path: missing; it names the folder of the images")
    if not Path(path).is_dir():
        raise UserError(f"dataset.path: {path} is {'no folder' if Path(path).exists() else 'not there'}")
    return Path(path)


def class_folders(folder: Path, notes: Notes) -> list[str]:
    """Names of the class folders, sorted. UserError where there are fewer than two, or a name is no line of text."""
    try:
        with os.scandir(folder) as entries:
            entries = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted(entry.name for entry in entries if entry.is_dir())
            images = {entry.name for entry in entries if entry.name.lower().endswith(ENDINGS)}
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    if len(names) < 2:
        raise UserError(f"{folder}: {len(names)} class folder(s) in it; at least 2 are needed, one for each class")
    if beside := sorted(images - set(names)):
        message = f"{folder}: images beside the class folders are of no class and passed over: {first_few(beside)}"
        notes.append((logging.INFO, message))
    if odd := [name for name in names if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name)]:
        raise UserError(f"{folder}: the name of a class folder is no text in UTF-8 of one line: {first_few(odd)}")
    return names


def _look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case or in the composition of their letters (Unicode's NFC, NFD) and in nothing else."""
    alike = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    return [spellings for spellings in alike.values() if len(spellings) > 1]


def read_class_folders(
    root: Path, part: Path, classes: list[str], notes: Notes, *, channels: int, size: int, below: str = ""
) -> tuple[ImageFiles, np.ndarray]:
    """The images of part/CLASS/below for each class, and their labels [N] int64.

    UserError that names all classes without images.
    """
    paths, names, labels, empty, passed_over = [], [], [], [], set()
    start = part.relative_to(root).as_posix()
    for label, name in enumerate(classes):
        folder = part / name / below
        files = sorted(images_below(folder, passed_over))
        if not files:
            empty.append(name)
        inside = "/".join(filter(None, [start.strip("."), name, below]))
        paths += [f"{inside}/{file}" for file in files]
        names += [f"{name}/{file}" for file in files]
        labels += [label] * len(files)
    if empty:
        endings = ", ".join(ENDINGS)
        raise UserError(
            f"{part}: no image in {len(empty)} of {len(classes)} class folders: {first_few(empty)} (files that end in "
            f"{endings} are images)"
        )
    if passed_over:
        message = f"{part}: files with other endings than an image's are passed over: {first_few(sorted(passed_over))}"
        notes.append((logging.INFO, message))
    return ImageFiles(root, paths, names, channels, size), np.array(labels, dtype=np.int64)


def images_below(
    folder: Path, passed_over: set[str] | None = None, above: frozenset = frozenset(), prefix: str = ""
) -> Iterator[str]:
    """Paths of the images in a folder and below it, relative to it and in no order; hidden ones are left out.

    Links are followed, but for those back to a folder above. passed_over: is given the endings of all other files.
    UserError where a folder cannot be read.
    """
    above |= {_place(folder)}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if _place(entry.path) not in above:
                        yield from images_below(Path(entry.path), passed_over, above, f"{prefix}{entry.name}/")
                elif entry.name.lower().endswith(ENDINGS):
                    yield prefix + entry.name
                elif passed_over is not None:
                    passed_over.add(os.path.splitext(entry.name)[1] or entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _place(folder: str | Path) -> tuple[int, int]:
    """The folder itself, whatever the path or link to it. UserError where it is not there."""
    try:
        stat = os.stat(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return stat.st_dev, stat.st_ino


def _train_folder(root: Path) -> Path:
    """The folder of the training part's classes. UserError where it would be one whose classes look like parts."""
    if (root / "train").is_dir():
        return root / "train"
    parts = [name for name in _folders_in(root) if name.lower() in _PARTS]
    if len(parts) > 1:
        raise UserError(
            f"dataset.path: {root} has no train/, and {first_few(parts)} look like parts and not like "
            "classes; call them train/ and test/ (or val/)"
        )
    return root


def _beside_train(root: Path) -> list[str]:
    return [name for name in _folders_in(root) if name != "train"]


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders in it that are not hidden, sorted. UserError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _test_folder(root: Path, notes: Notes) -> Path | None:
    if not (root / "train").is_dir():
        return None
    folders = [root / name for name in ("test", "val") if (root / name).is_dir()]
    if len(folders) == 2:
        notes.append((logging.INFO, f"{folders[0]} is the test part, {folders[1]} is not used"))
    return folders[0] if folders else None


def _check_same_classes(train: list[str], test: list[str], folder: Path) -> None:
    lacking, unknown = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if lacking:
        look_alikes = _look_alikes([*lacking, *unknown])
        hint = f"; it has {look_alikes[0][1]!a} for {look_alikes[0][0]!a}" if look_alikes else ""
        raise UserError(
            f"{folder}: lacks {len(lacking)} of the {len(train)} classes of train/: {first_few(lacking)}{hint}"
        )
    if unknown:
        raise UserError(f"{folder}: has {len(unknown)} classes that train/ has not: {first_few(unknown)}")


def _draw_test(labels: np.ndarray, classes: list[str], test_share: float, split_seed: int, notes: Notes) -> np.ndarray:
    """Marks the images [N] that are drawn for testing, class by class in label order."""
    generator = np.random.RandomState(split_seed)
    for_test, without = np.zeros(len(labels), dtype=bool), []
    for label, name in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        number = min(max(round(len(rows) * test_share), 1), len(rows) - 1)
        for_test[generator.permutation(rows)[:number]] = True
        if number == 0:
            without.append(name)
    if without:
        message = f"{len(without)} classes have one image and none for testing: {first_few(without)}"
        notes.append((logging.WARNING, message))
    return for_test

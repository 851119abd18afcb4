"""TinyImageNet and ImageNet (ILSVRC 2012) in the layouts in which they are published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltkd.data.image_files import ImageFiles
from ltkd.data.image_folder import Notes, class_folders, read_class_folders
from ltkd.data.image_list import read_lines
from ltkd.data.sources import Source, register_source
from ltkd.errors import UserError

_TINY_FOLDER = "tiny-imagenet-200"
_FOLDER = "imagenet"


@register_source("tiny_imagenet", folder=_TINY_FOLDER)
def read_tiny_imagenet(data_root: Path, *, path: str | None, channels: int, image_size: int) -> Source:
    """TinyImageNet as unpacked: train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt, wnids.txt.

    Classes in the order of their sorted WNIDs, files of a class in sorted order; `val` is the test part, in the order
    of its file names.
    """
    get = "tiny-imagenet-200.zip from cs231n.stanford.edu, unpacked"
    root = _found_folder(data_root, path, _TINY_FOLDER, get)
    wnids = sorted(_lines(root / "wnids.txt", get))
    notes: Notes = []
    train, labels = read_class_folders(
        root, root / "train", wnids, notes, channels=channels, size=image_size, below="images"
    )
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    annotations = root / "val" / "val_annotations.txt"
    pairs = []
    for number, line in enumerate(_lines(annotations, get), start=1):
        name, wnid = [*line.split("\t"), "", ""][:2]
        if wnid not in label_of:
            raise UserError(f"{annotations}, line {number}: {wnid!r} is not among the classes of wnids.txt")
        pairs.append((name, label_of[wnid]))
    pairs.sort()
    names = [name for name, _ in pairs]
    test = ImageFiles(root, [f"val/images/{name}" for name in names], names, channels, image_size)
    return Source(train, labels, test, np.array([label for _, label in pairs], dtype=np.int64), wnids, notes=notes)


@register_source("imagenet", folder=_FOLDER)
def read_imagenet(
    data_root: Path, *, path: str | None, list: str | None, test_list: str | None, imbalance: str, channels: int,
    image_size: int,
) -> Source:  # fmt: skip
    """ImageNet: train/WNID/*.JPEG and val/WNID/*.JPEG, or a flat val/ with `test_list`, lines "FILE WNID".

    Classes in the order of their sorted WNIDs, files of a class in sorted order; `val` is the test part. A class owns
    732 to 1,300 images, fewer than an early class may be asked for, and then gives what it has.
    list: lines "train/WNID/FILE LABEL", such as those of Liu et al. (arXiv:1904.05160): the long tail already. The list
    of their test part has the same form.
    """
    get = "train/ and val/ of ILSVRC 2012, from image-net.org"
    root = _found_folder(data_root, path, _FOLDER, get)
    train, val = root / "train", root / "val"
    notes: Notes = []
    wnids = class_folders(train, notes)
    if list is None:
        images, labels = read_class_folders(root, train, wnids, notes, channels=channels, size=image_size)
    elif imbalance != "none":
        raise UserError(
            f"dataset.imbalance: {imbalance} cuts what dataset.list names, which is a long tail already; leave it out"
        )
    else:
        images, labels = _listed(root, list, wnids, channels, image_size)
    if test_list is None:
        if not val.is_dir() or not any(entry.is_dir() for entry in val.iterdir()):
            raise UserError(
                f"{val}: has no class folders; for a flat one dataset.test_list names a text file, lines 'FILE WNID'"
            )
        test, test_labels = read_class_folders(root, val, wnids, notes, channels=channels, size=image_size)
    else:
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        names, chosen = [], []
        for number, line in enumerate(_lines(Path(test_list), "lines 'FILE WNID'"), start=1):
            name, wnid = [*line.split(), "", ""][:2]
            label = label_of.get(wnid, int(wnid) if wnid.isascii() and wnid.isdecimal() else len(wnids))
            if label >= len(wnids):
                raise UserError(f"dataset.test_list: {test_list}, line {number}: {wnid!r} is no class of {train}")
            names.append(name.removeprefix("val/"))
            chosen.append(label)
        test = ImageFiles(root, [f"val/{name}" for name in names], names, channels, image_size)
        test_labels = np.array(chosen, dtype=np.int64)
    return Source(images, labels, test, test_labels, wnids, balanced=False, notes=notes)


def _listed(root: Path, path: str, wnids: Sequence[str], channels: int, size: int) -> tuple[ImageFiles, np.ndarray]:
    """The images of a list, and their labels. UserError where a label is not the position of the path's class."""
    lines = read_lines("list", path)
    for name, label in lines:
        if label >= len(wnids) or Path(name).parent.name != wnids[label]:
            raise UserError(f"dataset.list: {path}: {name} is not of class {label}, a place among the sorted WNIDs")
    names = [name for name, _ in lines]
    return ImageFiles(root, names, names, channels, size), np.array([label for _, label in lines], dtype=np.int64)


def _found_folder(data_root: Path, path: str | None, name: str, get: str) -> Path:
    folder = Path(path) if path is not None else Path(data_root) / name
    if not folder.is_dir():
        raise UserError(f"{folder}: not there; put {get}, or point data_root or dataset.path at it")
    return folder


def _lines(path: Path, get: str) -> list[str]:
    """Lines that are not empty. UserError where the file cannot be read."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); needed: {get}") from error

"""Broken folders, lists and files: each is one line that names what is wrong, before anything is trained."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ltkd.data import load_data
from ltkd.errors import UserError
from tests.data.pictures import pixels, write, write_folder

CLASSES = ["ape", "bee", "cow"]


@pytest.fixture
def root(tmp_path):
    """A whole folder, and lists that name its images by their places."""
    root = tmp_path / "own"
    write_folder(root / "train", {"ape": 4, "bee": 3, "cow": 2})
    write_folder(root / "test", {"ape": 1, "bee": 1, "cow": 1}, first=100)
    lines = [
        f"train/{name}/{number}.png {label}" for label, name in enumerate(["ape", "bee", "cow"]) for number in (0, 1)
    ]
    (root / "train.txt").write_text("\n".join(lines))
    (root / "test.txt").write_text("test/ape/0.png 0\ntest/bee/0.png 1\n")
    return root


def remove(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def claims_many_pixels(path):
    """A PNG file whose head promises 100,000 x 100,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def claims_many_pixels_as_jpeg(path):
    """A JPEG file of 600 bytes whose head promises 65,000 x 65,000 pixels."""
    Image.fromarray(pixels(9)).save(path)
    content = bytearray(path.read_bytes())
    size = content.index(b"\xff\xc0") + 5
    content[size : size + 4] = 2 * (65_000).to_bytes(2, "big")
    path.write_bytes(content)


def cut_jpeg(path):
    Image.fromarray(pixels(9, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def write_gif(path):
    Image.fromarray(pixels(9)).save(path, "GIF")


def damage_all(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")


# (what is done to the folder, changed settings, the error)
FOLDERS = {
    "no path": (None, {"path": None}, r"dataset\.path: missing"),
    "absent": (None, {"path": "/nowhere/at all"}, r"dataset\.path: /nowhere/at all is not there"),
    "a file": (None, {"path": "train.txt"}, r"dataset\.path: .*train\.txt is no folder"),
    "nothing in it": (lambda root: [remove(root / "train" / name) for name in CLASSES], {}, "0 class folder"),
    "one class": (lambda root: [remove(root / "train" / name) for name in ("ape", "bee")], {}, "1 class folder"),
    "no test part": (lambda root: (root / "test").rename(root / "spare"), {}, r"neither test/ nor val/.*test_share"),
    "a test part of another name": (
        lambda root: (root / "test").rename(root / "valid"), {}, r"neither test/ nor val/ beside train/ \(but valid",
    ),
    "parts of other names": (
        lambda root: [(root / "train").rename(root / "Train"), (root / "test").rename(root / "Test")], {},
        r"has no train/, and Test, Train look like parts",
    ),
    "parts of other names, a share to draw": (
        lambda root: [(root / "train").rename(root / "training"), (root / "test").rename(root / "valid")],
        {"test_share": 0.2}, r"has no train/, and training, valid look like parts",
    ),
    "two test parts": (None, {"test_share": 0.2}, r"dataset\.test_share: .*test is there already"),
    "class without images": (
        lambda root: [remove(root / "train/bee"), (root / "train/bee").mkdir()], {}, "no image in 1 of 3 .*: bee",
    ),
    "class not in test": (lambda root: remove(root / "test/cow"), {}, r"test: lacks 1 of the 3 classes .*: cow"),
    "class only in test": (
        lambda root: write(root / "test/dog/0.png", 1), {}, "has 1 classes that train/ has not: dog",
    ),
    "number of classes": (None, {"num_classes": 5}, r"dataset\.num_classes: 5 classes .* the data has 3"),
    "too imbalanced": (
        None, {"imbalance": "exponential", "imbalance_factor": 100}, r"dataset\.imbalance_factor: with 100 class 1",
    ),
    "too much validation": (None, {"validation_per_class": 2}, r"dataset\.validation_per_class: 2 leaves class 2"),
    "a setting of others": (None, {"train_list": "train.txt"}, r"dataset\.train_list: has no use with source=image_f"),
    "unknown source": (None, {"source": "image_foldr"}, r"dataset\.source: unknown .*did you mean 'image_folder'"),
    "duplicates": (
        lambda root: write(root / "test/ape/1.png", 0), {"duplicates": "error"}, r"duplicates: 1 of 4 .*ape/1\.png",
    ),
    "too large": (None, {"image_size": 200_000}, r"dataset\.image_size: 64 images .* GB are free"),
    "empty file": (lambda root: (root / "train/ape/2.png").write_bytes(b""), {}, r"ape/2\.png \(empty file\)"),
    "cut off": (lambda root: cut_jpeg(root / "train/ape/2.jpg"), {}, r"ape/2\.jpg \(.*truncated.*\)"),
    "no picture": (lambda root: (root / "train/ape/2.png").write_text("hello"), {}, r"ape/2\.png \(no image"),
    "another format": (lambda root: write_gif(root / "train/ape/2.png"), {}, r"ape/2\.png \(no image"),
    "bomb": (lambda root: claims_many_pixels(root / "train/ape/2.png"), {}, r"ape/2\.png \(Image size .* exceeds"),
    "bomb in JPEG": (
        lambda root: claims_many_pixels_as_jpeg(root / "train/ape/2.jpg"), {}, r"ape/2\.jpg \(Image size .* exceeds",
    ),
    "a thread": (
        lambda root: Image.new("L", (1, 60_000)).save(root / "train/ape/2.png"), {"image_size": 64}, "too long for its",
    ),
    "a pipe": (lambda root: os.mkfifo(root / "train/ape/p.png"), {}, r"1 of 10 .*p\.png \(no regular file\)"),
    "line break in a name": (
        lambda root: (root / "train/ape/a\nb.png").write_bytes(b""), {}, r"train/ape/a\\nb\.png \(empty file\)",
    ),
    "line break in a class": (lambda root: (root / "train/a\nb").mkdir(), {}, r"no text in UTF-8 .*: a\\nb"),
    "another Unicode form": (
        lambda root: [write(root / "train/\xfc/0.png", 1), write(root / "test/u\u0308/0.png", 2)], {},
        r"test: lacks 1 of the 4 .*; it has 'u\\u0308' for '\\xfc'",
    ),
    "no test image left": (
        lambda root: [damage_all(root / "test" / name) for name in CLASSES], {"on_bad_image": "skip"},
        "skip leaves no image of the test part",
    ),
    "floating point": (
        lambda root: Image.fromarray(np.ones((8, 8), np.float32)).save(root / "train/ape/f.tif"), {}, r"f\.tif \(flo",
    ),
    "link to nothing": (
        lambda root: (root / "train/ape/l.png").symlink_to(root / "gone.png"), {}, r"1 of 10 .*l\.png \(No such file",
    ),
    "all of many": (
        lambda root: [damage_all(root / "train" / name) for name in ("ape", "bee")], {}, r"7 of 9 image .* and 4 more",
    ),
    "nothing left": (
        lambda root: damage_all(root / "train/cow"), {"on_bad_image": "skip"}, "leaves class cow no image to train on",
    ),
}  # fmt: skip

# (the list that is written anew, its content, the error)
LISTS = {
    "absent": ("train_list", None, r"dataset\.train_list: .* cannot be read \(No such file"),
    "empty": ("train_list", b"\n\n", r"dataset\.train_list: .* names no image"),
    "no label": ("train_list", b"train/ape/0.png 0\ntrain/bee/0.png\n", r"line 2: 'train/bee/0\.png' is not a path"),
    "negative label": ("train_list", b"train/ape/0.png -1\n", r"line 1: .* is not a path and a label"),
    "label that is no number": ("test_list", b"test/ape/0.png ape\n", r"test_list: .*line 1: .* is not a path and a"),
    "gap": ("train_list", b"train/ape/0.png 0\ntrain/cow/0.png 2\n", "labels up to 2, but no image of 1"),
    "unknown label": ("test_list", b"test/ape/0.png 7\n", "has labels that training has not: 7"),
    "twice": ("test_list", b"test/ape/0.png 0\ntest/ape/0.png 1\n", r"names test/ape/0\.png more than once"),
    "absent images": (
        "test_list", b"".join(b"gone/%d.png 0\n" % n for n in range(9)), r"9 of 9 image .*gone/0\.png .* and 6 more",
    ),
    "a head": ("train_list", b"path label\ntrain/ape/0.png 0\n", r"line 1: 'path label' is not a path and a label"),
    "commas": ("train_list", b"train/ape/0.png,0\n", r"line 1: 'train/ape/0\.png,0' is not a path and a label"),
    "labels from 1": ("train_list", b"train/ape/0.png 1\ntrain/bee/0.png 2\n", "no image of 0; labels count from 0"),
    "huge label": ("test_list", b"test/ape/0.png 99999999999999999999\n", "line 1: a label has at most 6 digits"),
    "zero byte": ("train_list", b"train/ape/0\0.png 0\n", r"line 1: 'train/ape/0\\x00\.png 0' is not a path and"),
    "twice, written otherwise": (
        "test_list", b"test/ape/0.png 0\n./test//ape/0.png 0\n", r"names test/ape/0\.png more than once",
    ),
    "a folder": ("test_list", b"test/ape 0\n", r"1 of 1 image .*test/ape \(no regular file\)"),
    "empty name": ("class_names", b"ape\n\ncow\n", r"dataset\.class_names: .*, line 2 is empty"),
    "no text": ("train_list", b"\xff\xfe\x00\x01", "is no text file in UTF-8"),
    "a class name twice": ("class_names", b"ape\nbee\nape\n", r"dataset\.class_names: .* has ape more than once"),
    "names": ("class_names", b"ape\nbee\n", r"dataset\.class_names: .* has 2 lines for 3 classes"),
}  # fmt: skip


def refused(read, match):
    with pytest.raises(UserError, match=match) as error:
        read()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("case", FOLDERS)
def test_broken_folder(own_images, root, tmp_path, case):
    spoil, changes, match = FOLDERS[case]
    if spoil:
        spoil(root)
    changes = {"path": root} | changes
    if changes["path"] == "train.txt":
        changes["path"] = root / "train.txt"
    refused(lambda: load_data(own_images(**changes), tmp_path), match)


@pytest.mark.parametrize("case", LISTS)
def test_broken_list(own_images, root, tmp_path, case):
    key, content, match = LISTS[case]
    lists = {"path": root, "train_list": root / "train.txt", "test_list": root / "test.txt"}
    load_data(own_images("image_list", **lists), tmp_path)  # whole before
    lists[key] = root / "spoilt.txt"
    if content is not None:
        lists[key].write_bytes(content)
    refused(lambda: load_data(own_images("image_list", **lists), tmp_path), match)


def test_published_data_sets_that_are_not_there(dataset_config, tmp_path):
    for name, folder in (("tiny_imagenet_lt", "tiny-imagenet-200"), ("imagenet_lt", "imagenet")):
        message = refused(lambda name=name: load_data(dataset_config(name), tmp_path), f"{folder}: not there; put ")
        assert "dataset.path" in message
    write_folder(tmp_path / "imagenet/train", {"n1": 1, "n2": 1})
    (tmp_path / "imagenet/val").mkdir()
    (tmp_path / "tiny-imagenet-200").mkdir()
    flat = dataset_config("imagenet_lt", num_classes=2, image_size=8)
    refused(lambda: load_data(flat, tmp_path), r"val: has no class folders; .*dataset\.test_list")
    refused(lambda: load_data(dataset_config("tiny_imagenet_lt"), tmp_path), r"wnids\.txt: cannot be read")

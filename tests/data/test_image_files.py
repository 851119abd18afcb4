"""Image files decoded once, kept, and mapped again."""

import os
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from ltkd.data import device_data, image_files, load_data
from ltkd.data.image_files import ImageFiles
from tests.data.pictures import pixels, write, write_folder

COUNTED = Counter()
COUNTING = []


def _count(event, arguments):
    if COUNTING and event in ("open", "os.scandir", "os.listdir"):
        COUNTED[event, str(arguments[0]).endswith(".bmp")] += 1


sys.addaudithook(_count)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_MANY", 5)
    for number in range(12):
        write(tmp_path / f"{number}.png", number)
    names = [f"{number}.png" for number in range(12)]
    return ImageFiles(tmp_path, names, names, 3, 8)


def decoded(files):
    return sorted((files.root / image_files.DECODED).glob("*.npy"))


def test_decoded_file_is_mapped_with_equal_pixels(files, monkeypatch):
    first, bad = files.load()
    assert bad == {}
    assert np.array_equal(first[7], pixels(7).transpose(2, 0, 1))
    monkeypatch.setattr(image_files, "decode", None)  # would fail
    again, _ = files.load()
    assert np.array_equal(first, again)
    assert len(decoded(files)) == 1


def test_changed_images_are_decoded_again(files):
    files.load()
    write(files.root / "3.png", 99)
    os.utime(files.root / "3.png", ns=(1, 1))
    assert np.array_equal(files.load()[0][3], pixels(99).transpose(2, 0, 1))


def test_damaged_decoded_file_is_made_anew(files, caplog):
    first = np.array(files.load()[0])  # what is mapped would change with the file
    [path] = decoded(files)
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    assert np.array_equal(files.load()[0], first)
    assert "damaged" in caplog.text
    path.write_bytes(b"")
    assert np.array_equal(files.load()[0], first)
    path.with_suffix(".json").write_text("[]")
    assert np.array_equal(files.load()[0], first)


def test_damaged_images_are_remembered(files):
    (files.root / "4.png").write_bytes(b"")
    for _ in range(2):
        pixels_, bad = files.load(skip_bad=True)
        assert bad == {4: "empty file"}
        assert pixels_[4].max() == 0


def test_a_folder_that_cannot_be_written_is_decoded_every_time(files, caplog):
    (files.root / image_files.DECODED).write_text("in the way")
    assert np.array_equal(files.load()[0][5], pixels(5).transpose(2, 0, 1))
    assert "decoded images are not kept" in caplog.text


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_20000_files_are_opened_once_each(own_images, tmp_path, storage):
    """The first run opens each image once, the next none; each folder is listed once. An epoch opens each once more."""
    root = tmp_path / "own"
    write_folder(root / "test", {f"{label:02}": 1 for label in range(20)}, first=100)
    for label in range(20):
        path = write(root / f"train/{label:02}/0.bmp", label, side=2)
        for number in range(1, 1000):
            os.link(path, path.with_name(f"{number}.bmp"))
    config = own_images(path=root, image_size=2, crop_padding=0, storage=storage, workers=0)
    opened = []
    for _ in range(2):
        COUNTED.clear()
        COUNTING.append(True)
        data = load_data(config, tmp_path)
        COUNTING.clear()
        opened.append(COUNTED["open", True])
        # train/ and test/ with their 20 classes each; neither number grows with the images.
        assert COUNTED["os.scandir", False] + COUNTED["os.listdir", False] <= 50
        assert COUNTED["open", False] <= 100
        assert len(data.train_labels) == 20000
    assert opened == [20000, 0]
    if storage == "stream":
        train = device_data(data, "train", device="cpu")
        plan = train.draw_epoch(torch.Generator())
        COUNTED.clear()
        COUNTING.append(True)
        for step in range(len(train.steps(500))):
            train.fetch(plan, step, 500)
        COUNTING.clear()
        assert COUNTED["open", True] == 20000

"""Text files with a path and a label in each line."""

import numpy as np
import pytest

from ltkd.data import load_data
from tests.data.pictures import pixels, write


@pytest.fixture
def lists(tmp_path):
    """Labels 1, 0, 2, 0 for training, one image of each class for validation and testing.

    Files of other systems: with a byte order mark, with tabs and two characters at the line's end, without a last end.
    """
    for number in range(10):
        write(tmp_path / f"images/some where/{number}.png", number)
    lines = "".join(f"some where/{i}.png {k}\n" for i, k in enumerate([1, 0, 2, 0]))
    (tmp_path / "train.txt").write_text(lines, encoding="utf-8-sig")
    (tmp_path / "test.txt").write_text("".join(f"some where/{i}.png\t{k}\r\n" for i, k in [(4, 2), (5, 0), (6, 1)]))
    (tmp_path / "val.txt").write_text("\n".join(f"some where/{i}.png {k}" for i, k in [(7, 0), (8, 1), (9, 2)]))
    (tmp_path / "names.txt").write_text("ape\nbee\ncow\n\n")
    return {
        "path": tmp_path / "images", "train_list": tmp_path / "train.txt", "test_list": tmp_path / "test.txt",
    }  # fmt: skip


def test_lists_are_read(own_images, lists, tmp_path):
    names = tmp_path / "names.txt"
    data = load_data(
        own_images("image_list", **lists, validation_list=tmp_path / "val.txt", class_names=names), tmp_path
    )
    assert data.class_names == ["ape", "bee", "cow"]
    assert data.split.class_counts.tolist() == [2, 1, 1]
    assert data.train_labels.tolist() == [0, 0, 1, 2]
    assert data.test_labels.tolist() == [2, 0, 1]
    assert np.array_equal(data.test_images[0], pixels(4).transpose(2, 0, 1))
    assert data.validation_labels.tolist() == [0, 1, 2]
    assert np.array_equal(data.validation_images[2], pixels(9).transpose(2, 0, 1))
    assert np.array_equal(data.train_images[2], pixels(0).transpose(2, 0, 1))


def test_classes_are_called_by_their_number_without_names(own_images, lists, tmp_path):
    assert load_data(own_images("image_list", **lists), tmp_path).class_names == ["0", "1", "2"]

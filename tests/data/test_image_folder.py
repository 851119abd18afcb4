"""A folder of images as people have it."""

import numpy as np
import pytest

from ltkd.data import load_data
from ltkd.errors import UserError
from tests.data.pictures import pixels, write, write_folder


@pytest.fixture
def folder(tmp_path):
    """Three classes of 5, 3 and 1 images, two of each for testing."""
    write_folder(tmp_path / "own/train", {"cat": 5, "dog": 3, "eel": 1})
    write_folder(tmp_path / "own/val", {"cat": 2, "dog": 2, "eel": 2}, first=100)
    return tmp_path / "own"


def test_natural_tail_as_it_is(own_images, folder, tmp_path):
    data = load_data(own_images(path=folder), tmp_path)
    assert data.class_names == ["cat", "dog", "eel"]
    assert data.split.class_counts.tolist() == [5, 3, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.test_images[1], pixels(101).transpose(2, 0, 1))
    # The first stored training image is the one that the split names.
    assert np.array_equal(data.train_images[0], pixels(int(data.split.indices[0])).transpose(2, 0, 1))


def test_a_class_with_too_few_images_for_the_cut_gives_what_it_has(own_images, folder, tmp_path):
    write_folder(folder / "train", {"eel": 4}, first=200)
    data = load_data(own_images(path=folder, imbalance="exponential", imbalance_factor=2), tmp_path)
    assert data.split.class_counts.tolist() == [4, 2, 2]  # n_max 12 // 3, int(4 / sqrt 2) = 2, 4 / 2
    write_folder(folder / "train", {"dog": 12}, first=300)
    data = load_data(own_images(path=folder, imbalance="exponential", imbalance_factor=2), tmp_path)
    assert data.split.class_counts.tolist() == [5, 4, 3]  # n_max 7, of which cat has 5


def test_odd_names_and_places(own_images, folder, tmp_path, caplog):
    caplog.set_level("INFO")
    cat = folder / "train/cat"
    for name in ("B.PNG", "nested/deep/c.Png", "ünïcode 名.png", "with space.png"):
        write(cat / name, 50)
    write(folder / "train/beside.png", 52)
    write_folder(folder / "train", {"Dog": 1}, first=53)
    write_folder(folder / "val", {"Dog": 1}, first=153)
    for name in (".hidden.png", "notes.txt", ".hidden/d.png", "Thumbs.db"):
        (cat / name).parent.mkdir(exist_ok=True)
        (cat / name).write_bytes(b"no picture")
    (cat / "link.png").symlink_to(cat / "0.png")
    (folder / "train/.cache").mkdir()
    (cat / "loop").symlink_to(cat)
    linked = write(tmp_path / "elsewhere/e.png", 51).parent
    (folder / "train/dog/more").symlink_to(linked)
    data = load_data(own_images(path=folder), tmp_path)
    assert data.class_names == ["Dog", "cat", "dog", "eel"]
    assert data.split.class_counts.tolist() == [1, 10, 4, 1]  # the loop is not followed
    assert "classes whose names differ in case or Unicode form alone: Dog, dog" in caplog.text
    assert "images beside the class folders are of no class and passed over: beside.png" in caplog.text
    assert "other endings than an image's are passed over: .db, .txt" in caplog.text
    said = caplog.text
    caplog.clear()
    load_data(own_images(path=folder), tmp_path)
    assert caplog.text.count("passed over") == said.count("passed over") == 2, "each run says it once"
    assert len({image.tobytes() for image in data.train_images[data.train_labels == 1]}) == 6


def test_test_share_is_drawn_by_class_and_split_seed(own_images, tmp_path):
    write_folder(tmp_path / "own", {"a": 10, "b": 4, "c": 2, "d": 1})
    parts = {}
    for seed in (0, 0, 1):
        data = load_data(own_images(path=tmp_path / "own", test_share=0.3, split_seed=seed), tmp_path)
        assert np.bincount(data.test_labels, minlength=4).tolist() == [3, 1, 1, 0]
        assert data.split.class_counts.tolist() == [7, 3, 1, 1]
        train, test = ({image.tobytes() for image in part} for part in (data.train_images, data.test_images))
        assert not train & test
        assert parts.setdefault(seed, data.manifest()) == data.manifest()
    assert parts[0]["test_data_sha256"] != parts[1]["test_data_sha256"]
    assert parts[0]["settings"]["test_share"] == 0.3


def test_images_in_both_parts_are_counted_and_named(own_images, folder, tmp_path, caplog):
    write(folder / "val/dog/again.png", 0)
    data = load_data(own_images(path=folder), tmp_path)
    assert "1 of 7 test images are training images too, pixel by pixel: dog/again.png" in caplog.text
    assert data.manifest()["files"]["test_images_also_in_training"] == 1
    with pytest.raises(UserError, match=r"dataset\.duplicates: 1 of 7 .*again\.png"):
        load_data(own_images(path=folder, duplicates="error"), tmp_path)


def test_images_that_validate_and_train_or_test_are_named(own_images, tmp_path, caplog):
    root = write_folder(tmp_path / "own", {"a": 6, "b": 6})
    for number in range(6):  # each image of class a twice: whichever is held out, its copy is trained on
        (root / f"a/copy{number}.png").write_bytes((root / f"a/{number}.png").read_bytes())
    load_data(own_images(path=root, test_share=0.1, validation_per_class=3), tmp_path)
    assert "validation images are training images too, pixel by pixel: a/" in caplog.text
    with pytest.raises(UserError, match=r"dataset\.duplicates: . of 6 validation images are training images too"):
        load_data(own_images(path=root, test_share=0.1, validation_per_class=3, duplicates="error"), tmp_path)


def test_an_image_under_two_classes_is_named(own_images, folder, tmp_path, caplog):
    load_data(own_images(path=folder), tmp_path)
    assert "under another class" not in caplog.text
    (folder / "train/cat/odd.png").write_bytes((folder / "train/dog/0.png").read_bytes())
    load_data(own_images(path=folder), tmp_path)
    assert "1 training images are there under another class too, pixel by pixel: cat/odd.png" in caplog.text


def test_what_lies_unused_beside_train_is_named(own_images, folder, tmp_path, caplog):
    (folder / "val").rename(folder / "valid")
    load_data(own_images(path=folder, test_share=0.3), tmp_path)
    assert "beside train/, and not used: valid" in caplog.text


def test_groups_are_those_of_the_images_that_are_left(own_images, tmp_path):
    write_folder(tmp_path / "own/train", {"a": 5, "b": 4, "c": 3})
    write_folder(tmp_path / "own/test", {"a": 1, "b": 1, "c": 1}, first=100)
    for number in range(3):
        (tmp_path / f"own/train/a/{number}.png").write_bytes(b"")
    data = load_data(own_images(path=tmp_path / "own", on_bad_image="skip"), tmp_path)
    regrouped = data.in_groups(data.config.groups)
    assert data.split.class_counts.tolist() == [2, 4, 3]
    assert data.split.groups.tolist() == regrouped.split.groups.tolist() == [2, 0, 1]


def test_damaged_files_are_left_out_on_request(own_images, folder, tmp_path):
    before = load_data(own_images(path=folder), tmp_path).manifest()
    (folder / "train/cat/3.png").write_bytes(b"")
    (folder / "val/eel/0.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=r"1 of 9 image files: \S+/train/cat/3\.png \(empty file\) cannot be decoded"):
        load_data(own_images(path=folder), tmp_path)
    data = load_data(own_images(path=folder, on_bad_image="skip"), tmp_path)
    assert data.split.class_counts.tolist() == [4, 3, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1, 2]
    manifest = data.manifest()
    assert manifest["files"]["skipped"] == {"train": ["cat/3.png"], "test": ["eel/0.png"]}
    assert manifest["sha256"] != before["sha256"]
    assert not (data.train_images == 0).all(axis=(1, 2, 3)).any()


def test_the_identity_does_not_know_where_the_files_are(own_images, folder, tmp_path):
    config = own_images(path=folder)
    assert set(config.settings()) == set(own_images(path=folder, num_classes=3).settings())
    new = {"path", "test_share", "on_bad_image", "duplicates", "train_list", "class_names"}
    assert not new & set(config.settings())

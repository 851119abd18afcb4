"""TinyImageNet and ImageNet in their published layouts, in miniature, and the published hashes of the split."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.data import class_counts, identifying_hashes, load_data, make_split
from ltkd.errors import UserError
from tests.data.pictures import pixels, write

WNIDS = ["n02", "n01", "n03"]  # in the order of wnids.txt, which is not sorted


@pytest.fixture
def tiny(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        for number in range(8):
            write(root / f"train/{wnid}/images/{wnid}_{number}.JPEG", 10 * label + number)
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    lines = []
    for number, wnid in enumerate(["n03", "n01", "n02", "n01"]):
        write(root / f"val/images/val_{number}.JPEG", 100 + number)
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62")
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def test_tiny_imagenet(dataset_config, tiny, tmp_path):
    small = {"num_classes": 3, "image_size": 8, "imbalance_factor": 4}
    data = load_data(dataset_config("tiny_imagenet_lt", **small), tmp_path)
    assert data.class_names == ["n01", "n02", "n03"]
    assert data.split.class_counts.tolist() == [8, 4, 2]
    assert data.test_labels.tolist() == [2, 0, 1, 0]
    names = [f"{WNID}/{WNID}_{number}.JPEG" for WNID in sorted(WNIDS) for number in range(8)]
    chosen = hashlib.sha256("\n".join(names[row] for row in data.split.indices).encode()).hexdigest()
    assert data.manifest()["files"]["train_names_sha256"] == chosen
    hashes = identifying_hashes(data.config, tmp_path)
    assert hashes["files.train_names_sha256"] == chosen
    assert hashes != identifying_hashes(replace(data.config, split_seed=1), tmp_path)


@pytest.mark.parametrize(
    ("imbalance_factor", "number", "sha256"),
    [
        (10, 39072, "eb868346601712e13b488130175f1c59c4553679d8d767f57f4d9a26010a2a5a"),
        (20, 31711, "680e9d6105cfebe9875867d6f2cf54689eae58f95806ebf3d22cc82d25b6feef"),
        (100, 21549, "6538a11a004101a70339e6726f3d0a49a571a616282f07cbcd8ef21a82464590"),
    ],
)
def test_split_of_the_whole_tiny_imagenet(imbalance_factor, number, sha256):
    """The rows depend on the number of images alone: 200 classes of 500."""
    split = make_split(
        np.repeat(np.arange(200), 500), num_classes=200, imbalance="exponential", imbalance_factor=imbalance_factor,
        split_seed=0, validation_per_class=0, groups="rank_thirds",
    )  # fmt: skip
    assert len(split.indices) == number
    assert split.sha256 == sha256


def test_files_of_the_whole_tiny_imagenet(dataset_config):
    """The published list of files, where the whole data set is there. Nothing is decoded."""
    root = Path(os.environ.get("LTKD_DATA", Path(__file__).resolve().parents[2] / "data"))
    folder = root / "tiny-imagenet-200/train"
    if not folder.is_dir() or len(os.listdir(folder)) < 200 or len(os.listdir(folder / "n01443537/images")) < 500:
        pytest.skip(f"the whole TinyImageNet not found under {root}")
    hashes = identifying_hashes(dataset_config("tiny_imagenet_lt"), root)
    expected = "8dd2170180c274109196544a083506b10fc20837066eb76b55de5533d66e3507"
    assert hashes["files.train_names_sha256"] == expected


@pytest.fixture
def imagenet(tmp_path):
    for label, count in enumerate([3, 9, 6]):
        for number in range(count):
            write(tmp_path / f"imagenet/train/n{label}/n{label}_{number}.JPEG", 20 * label + number)
        write(tmp_path / f"imagenet/val/n{label}/v{label}.JPEG", 200 + label)
    return tmp_path / "imagenet"


def test_imagenet_takes_what_a_class_has(dataset_config, imagenet, tmp_path, caplog):
    caplog.set_level("INFO")
    small = {"num_classes": 3, "image_size": 8, "crop_padding": 1, "imbalance_factor": 2}
    data = load_data(dataset_config("imagenet_lt", **small), tmp_path)
    assert data.split.class_counts.tolist() == [3, 4, 3]  # asked for 6, 4, 3
    assert "1 of 3 classes have fewer images than n_i" in caplog.text
    assert data.test_labels.tolist() == [0, 1, 2]

    for label in range(3):
        (imagenet / f"val/n{label}/v{label}.JPEG").rename(imagenet / f"val/v{label}.JPEG")
        (imagenet / f"val/n{label}").rmdir()
    (tmp_path / "val.txt").write_text("v2.JPEG n2\nv0.JPEG n0\n")
    flat = load_data(dataset_config("imagenet_lt", **small, test_list=str(tmp_path / "val.txt")), tmp_path)
    assert flat.test_labels.tolist() == [2, 0]
    assert np.array_equal(flat.test_images[1], data.test_images[0])
    assert not np.array_equal(flat.test_images[1], pixels(200).transpose(2, 0, 1))  # JPEG is lossy


def test_imagenet_by_a_list(dataset_config, imagenet, tmp_path):
    """The list of Liu et al., in its form, alone on the command line; labels are places in the sorted classes."""
    (tmp_path / "train.txt").write_text("train/n1/n1_4.JPEG 1\ntrain/n0/n0_2.JPEG 0\ntrain/n2/n2_0.JPEG 2\n")
    for label in range(3):
        (imagenet / f"val/n{label}/v{label}.JPEG").rename(imagenet / f"val/v{label}.JPEG")
    (tmp_path / "test.txt").write_text("val/v2.JPEG 2\nval/v0.JPEG 0\n")
    settings = [
        "dataset=imagenet_lt", f"dataset.list={tmp_path}/train.txt", f"dataset.test_list={tmp_path}/test.txt",
        f"data_root={tmp_path}", "dataset.num_classes=3", "dataset.image_size=8", "dataset.crop_padding=1",
    ]  # fmt: skip
    config = load_config(compose_values(*settings)).dataset
    assert (config.name, config.imbalance, config.imbalance_factor) == ("imagenet_lt_list", "none", 1)
    data = load_data(config, tmp_path)
    assert data.split.class_counts.tolist() == [1, 1, 1]
    assert data.test_labels.tolist() == [2, 0]
    expected = hashlib.sha256(b"train/n0/n0_2.JPEG\ntrain/n1/n1_4.JPEG\ntrain/n2/n2_0.JPEG").hexdigest()
    assert data.manifest()["files"]["train_names_sha256"] == expected
    with pytest.raises(UserError, match=r"dataset\.imbalance: exponential cuts what dataset\.list names"):
        load_data(load_config(compose_values(*settings, "dataset.imbalance=exponential")).dataset, tmp_path)
    (tmp_path / "train.txt").write_text("train/n1/n1_4.JPEG 0\n")
    with pytest.raises(UserError, match=r"train\.txt: train/n1/n1_4\.JPEG is not of class 0"):
        load_data(config, tmp_path)


@pytest.mark.parametrize(("imbalance_factor", "last"), [(5, 256), (10, 128), (20, 64)])
def test_counts_of_the_whole_imagenet(imbalance_factor, last):
    """1,281,167 images in 1,000 classes: n_max is 1281."""
    counts = class_counts("exponential", imbalance_factor, 1_281_167 // 1000, 1000)
    assert counts[[0, -1]].tolist() == [1281, last]
    assert counts[500] == int(1281 * (1 / imbalance_factor) ** (500 / 999))

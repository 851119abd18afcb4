"""A pack gives back exactly what went in, or says that the file is damaged."""

import json
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from ltkd.data import DatasetConfig, file_names, load_data, pack, pack_dataset_config, read_pack, write_pack
from ltkd.errors import UserError
from tests.data.pictures import write_folder


@pytest.fixture
def packed(digits, tmp_path):
    path = tmp_path / "digits.ltpack"
    write_pack(path, digits)
    return path


def assert_same_data(data, other):
    for field in fields(data):
        if field.type is np.ndarray:
            first, second = getattr(data, field.name), getattr(other, field.name)
            assert first.dtype == second.dtype
            assert np.array_equal(first, second), field.name
    assert (data.name, data.class_names) == (other.name, other.class_names)
    assert data.manifest() == other.manifest()


def test_round_trip(digits, packed, tmp_path):
    config = DatasetConfig(**pack_dataset_config(packed))
    assert (config.source, config.path, config.imbalance_factor) == ("pack", str(packed), 20)
    data = load_data(config, tmp_path / "no data here")
    assert_same_data(digits, data)
    assert data.split.group_names == digits.split.group_names
    assert np.array_equal(data.split.groups, digits.split.groups)
    write_pack(tmp_path / "again.ltpack", data)
    assert (tmp_path / "again.ltpack").read_bytes() == packed.read_bytes()


def test_a_pack_of_files_has_no_whole_images_to_cut_from_and_no_names(own_images, tmp_path):
    write_folder(tmp_path / "own/train", {"a": 3, "b": 2})
    write_folder(tmp_path / "own/test", {"a": 1, "b": 1}, first=100)
    write_pack(tmp_path / "own.ltpack", load_data(own_images(path=tmp_path / "own"), tmp_path))
    config = DatasetConfig(**pack_dataset_config(tmp_path / "own.ltpack"))
    data = load_data(config, tmp_path)
    assert file_names(data, tmp_path) == {}
    with pytest.raises(UserError, match=r"recipe\.augmentation: resized_crop_flip cuts from whole files.*own\.ltpack"):
        load_data(config, tmp_path, resized_crops=True)


def test_colour_mosaics_with_a_short_last_one(digits, tmp_path, monkeypatch):
    """Several mosaics per part, none of them full, of tiles that do not fill the width."""
    monkeypatch.setattr(pack, "_MAX_SIDE", 5 * 8 + 3)
    monkeypatch.setattr(pack, "_MAX_PIXELS", 5 * 8 * 8 * 4)
    images = np.random.RandomState(0).randint(0, 256, (len(digits.train_labels), 3, 8, 8)).astype(np.uint8)
    config = replace(digits.config, channels=3, mean=[0.5] * 3, std=[0.2] * 3)
    empty = np.empty((0, 3, 8, 8), dtype=np.uint8)
    data = replace(
        digits,
        config=config,
        train_images=images,
        test_images=images[:21],
        test_labels=digits.train_labels[:21],
        validation_images=empty,
        validation_labels=digits.validation_labels[:0],
    )
    write_pack(tmp_path / "colour.ltpack", data)
    with zipfile.ZipFile(tmp_path / "colour.ltpack") as archive:
        names = archive.namelist()
    assert sum(name.startswith("train") for name in names) == -(-len(images) // 20)
    assert not any(name.startswith("validation") for name in names)
    assert_same_data(data, read_pack(tmp_path / "colour.ltpack"))


def test_what_can_be_chosen_anew(packed, tmp_path):
    settings = pack_dataset_config(packed)
    data = load_data(DatasetConfig(**{**settings, "groups": "oltr", "crop_padding": 0}), tmp_path)
    assert (
        data.split.groups.tolist() == [0] + [1] * 5 + [2] * 4
    )  # by the 124 images of class 0, not by the 94 left of them
    assert data.config.crop_padding == 0
    with pytest.raises(UserError, match=r"dataset\.imbalance_factor: 50 .*packed with 20"):
        load_data(DatasetConfig(**{**settings, "imbalance_factor": 50}), tmp_path)


def test_a_damaged_pack_is_named_or_harmless(digits, packed):
    content = packed.read_bytes()
    refused = 0
    for position in np.linspace(0, len(content) - 1, 60).astype(int):
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        packed.write_bytes(damaged)
        try:
            data = read_pack(packed)
        except UserError:
            refused += 1
        else:  # a byte that carries no data, such as a date
            assert_same_data(digits, data)
    assert refused >= 55
    for length in (0, 100, len(content) // 2, len(content) - 1):
        packed.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"digits\.ltpack: damaged, cut off or no pack"):
            read_pack(packed)


def test_checksums_of_members_are_verified(packed):
    """The zip's own CRC is right after somebody repacks it with other content."""
    with zipfile.ZipFile(packed) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["test_0.webp"], members["train_0.webp"] = members["train_0.webp"], members["test_0.webp"]
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="checksum of train_0"):
        read_pack(packed)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="no such pack file"):
        pack_dataset_config(tmp_path / "none.ltpack")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": "something"}))
    with pytest.raises(UserError, match=r"other\.zip: .*'something'"):
        pack_dataset_config(tmp_path / "other.zip")

"""manifest.json notices other settings, other pixels and damage."""

import json
from dataclasses import replace

import pytest

from ltkd.data import check_manifest, write_manifest
from ltkd.errors import UserError


def test_manifest_tells_what_the_split_is(digits, tmp_path):
    path = tmp_path / "run" / "manifest.json"
    write_manifest(path, digits.manifest())
    check_manifest(path, digits.manifest())
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.json"]
    stored = json.loads(path.read_text())
    assert stored["dataset"] == "digits_lt"
    assert stored["class_counts"] == [94, 88, 63, 45, 32, 23, 16, 12, 8, 6]
    assert stored["validation_from_training"] == [30] + [0] * 9
    assert stored["validation_from_left_out"] == [0] + [30] * 9
    assert stored["sha256"] == digits.split.sha256
    assert stored["test_size"] == 500
    assert not {"path", "download", "source"} & set(stored["settings"])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_one_changed_pixel_or_label_is_noticed(digits, tmp_path, part):
    path = tmp_path / "manifest.json"
    write_manifest(path, digits.manifest())
    images, labels = getattr(digits, f"{part}_images").copy(), getattr(digits, f"{part}_labels").copy()
    images[-1, 0, 7, 7] ^= 1
    labels[0] += 1
    for changed in ({f"{part}_images": images}, {f"{part}_labels": labels}):
        with pytest.raises(UserError, match=rf"manifest\.json: .*other data.*: {part}_data_sha256"):
            check_manifest(path, replace(digits, **changed).manifest())


def test_differing_fields_are_named(digits, tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, digits.manifest())
    config = replace(digits.config, split_seed=1)
    with pytest.raises(UserError, match=r"settings\.split_seed: 0 there, 1 now$"):
        check_manifest(path, replace(digits, config=config).manifest())


@pytest.mark.parametrize("content", ["", "[1]", '{"schema": 1, "dat', "\xff"])
def test_damaged_manifest(digits, tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=r"manifest\.json: not a readable manifest"):
        check_manifest(path, digits.manifest())

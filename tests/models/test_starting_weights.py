"""Files and published weights that a network starts from are part of what makes its numbers."""

import importlib.metadata

import pytest

from ltkd.errors import UserError
from ltkd.models import starting_weights


def test_a_file_changed_in_place_is_another(tmp_path):
    path = tmp_path / "w.pth"
    seen = []
    for content in (b"one", b"two"):
        path.write_bytes(content)
        seen.append(starting_weights("timm/resnet10t", False, {"checkpoint_path": str(path)}))
    assert [list(weights) for weights in seen] == [["checkpoint_path"]] * 2
    assert seen[0] != seen[1]


def test_files_of_overlays_are_found(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    weights = starting_weights("timm/resnet18", True, {"pretrained_cfg_overlay": {"file": str(path)}})
    assert set(weights) == {"pretrained_cfg_overlay.file", "library", "published"}


def test_every_file_counts_and_an_address_of_a_file_is_refused(tmp_path):
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    first.write_bytes(b"one")
    arguments = {"pretrained_cfg_overlay": {"file": str(first)}, "checkpoint_path": str(second)}
    seen = []
    for content in (b"two", b"three"):
        second.write_bytes(content)
        seen.append(starting_weights("timm/resnet18", True, arguments))
    assert seen[0]["pretrained_cfg_overlay.file"] == seen[1]["pretrained_cfg_overlay.file"]
    assert seen[0]["checkpoint_path"] != seen[1]["checkpoint_path"]
    with pytest.raises(UserError, match=r"pretrained_cfg_overlay\.url: names a file.*write \{file: PATH\}"):
        starting_weights("timm/resnet18", True, {"pretrained_cfg_overlay": {"url": f"file://{first}"}})


def test_published_weights_are_their_tag_and_the_librarys_version():
    version = importlib.metadata.version
    assert starting_weights("timm/resnet18", True, {}) == {
        "library": f"timm {version('timm')}", "published": "resnet18.a1_in1k",
    }  # fmt: skip
    assert starting_weights("timm/resnet18.tv_in1k", True, {})["published"] == "resnet18.tv_in1k"
    assert starting_weights("torchvision/resnet50", True, {}) == {
        "library": f"torchvision {version('torchvision')}", "published": "ResNet50_Weights.IMAGENET1K_V2",
    }  # fmt: skip


def test_a_network_that_starts_at_random_has_none():
    assert starting_weights("resnet8", False, {}) == {}
    assert starting_weights("timm/resnet18", False, {"drop_rate": 0.1, "checkpoint_path": ""}) == {}


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"w\.pth: cannot be read"):
        starting_weights("timm/resnet18", False, {"checkpoint_path": str(tmp_path / "w.pth")})

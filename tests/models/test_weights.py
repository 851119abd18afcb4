import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ltkd.errors import UserError
from ltkd.models import build_model, load_weights, save_weights


def resnet8(num_classes=5):
    return build_model("resnet8", num_classes)


def assert_same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_round_trip(tmp_path, memory_format):
    path = tmp_path / "new folder" / "teacher.safetensors"
    model, other = resnet8().to(memory_format=memory_format), resnet8()
    model(torch.randn(2, 3, 8, 8))  # batch statistics that are not the initial ones
    save_weights(model, path, {"dataset": "digits_lt"})
    assert load_weights(other, path) == {"dataset": "digits_lt"}
    assert_same_weights(model, other)
    assert [file.name for file in path.parent.iterdir()] == ["teacher.safetensors"]


def test_tied_weights_are_written_and_read(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    save_weights(model, tmp_path / "tied.safetensors")
    load_weights(other, tmp_path / "tied.safetensors")
    assert_same_weights(model, other)


def test_library_networks_are_written_under_the_library_names(tmp_path):
    path = tmp_path / "net.safetensors"
    model = build_model("timm/resnet10t", 3)
    save_weights(model, path)
    model.network.load_state_dict(load_file(path))
    other = build_model("timm/resnet10t", 3)
    load_weights(other, path)
    assert_same_weights(model, other)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(resnet8(), path)
    before = path.read_bytes()

    def stop(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(UserError, match=r"w\.safetensors: cannot be written \(disk full\)"):
        save_weights(resnet8(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_of_others(tmp_path, wrap, prefix):
    path = tmp_path / "best.pth"
    model, other = resnet8(), resnet8()
    torch.save(wrap({prefix + name: tensor for name, tensor in model.state_dict().items()}), path)
    assert load_weights(other, path) == {}
    assert_same_weights(model, other)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("size", [0, 20, 100_000])
def test_truncated_file_is_named(tmp_path, suffix, size):
    path = tmp_path / f"cut.{suffix}"
    if suffix == "pt":
        torch.save(resnet8().state_dict(), path)
    else:
        save_weights(resnet8(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"cut\.{suffix}: "):
        load_weights(resnet8(), path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path, new_format):
    path = tmp_path / "evil.pt"
    content = {**resnet8().state_dict(), "x": Malicious(tmp_path / "executed")}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match=r"evil\.pt: refused"):
        load_weights(resnet8(), path)
    assert not (tmp_path / "executed").exists()


def test_weights_of_other_classes_say_so_and_change_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(resnet8(100), path)
    model = resnet8(10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"w\.safetensors: .*classifier has 100 classes, but the data has 10; "):
        load_weights(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_other_differences_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(resnet8(), path)
    with pytest.raises(UserError, match=r"lacks stages\.0\.1\.conv1\.weight, .* and \d+ more"):
        load_weights(build_model("resnet14", 5), path)
    with pytest.raises(UserError, match=r"stem\.weight is \[16, 3, 3, 3\], the model's is \[16, 1, 3, 3\]"):
        load_weights(build_model("resnet8", 5, in_channels=1), path)
    save_weights(build_model("resnet14", 5), path)
    with pytest.raises(UserError, match=r"has unknown stages\.0\.1"):
        load_weights(resnet8(), path)


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: no such file"):
        load_weights(resnet8(), tmp_path / "none.pt")
    (tmp_path / "w.onnx").touch()
    with pytest.raises(UserError, match=r"w\.onnx: unknown kind .*\.safetensors"):
        load_weights(resnet8(), tmp_path / "w.onnx")
    for content in ([1, 2], {"epoch": 3}):
        torch.save(content, tmp_path / "list.pt")
        with pytest.raises(UserError, match=r"list\.pt: holds no state dict"):
            load_weights(resnet8(), tmp_path / "list.pt")

import argparse
import logging
import os
import pathlib
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
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


WRAPPINGS = {
    "dictionary net": lambda s: {"net": s, "acc": 92.0, "epoch": 60},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}},
    "torch.compile": lambda s: {f"_orig_mod.{name}": tensor for name, tensor in s.items()},
    "both": lambda s: {f"module._orig_mod.{name}": tensor for name, tensor in s.items()},
    "lightning": lambda s: {"state_dict": {f"model.{name}": t for name, t in s.items()}, "hyper_parameters": {}},
    "lightning with a loss": lambda s: {
        "state_dict": {**{f"net.{name}": t for name, t in s.items()}, "loss.weight": torch.ones(5)}
    },
    "mdistiller": lambda s: {"model": {f"module.student.{name}": tensor for name, tensor in s.items()}},
    "timm": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1), "arch": "resnet8"},
    "numpy numbers": lambda s: {"model": s, "best": np.float64(70.1), "curve": np.arange(3.0)},
    "paths": lambda s: {"model": s, "folder": pathlib.Path("b")},
    "optimizer": lambda s: {"model": s, "optimizer": {"state": {0: {"momentum": s["stem.weight"]}}}},
    "deep": lambda s: {"trainer": {"networks": {"student": s}}, "version": 2},
    "moving average": lambda s: {"n_averaged": torch.tensor(3), **{f"module.{name}": t for name, t in s.items()}},
    "beside numbers": lambda s: {**s, "epoch": 3},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("counted", [True, False])
def test_checkpoints_of_the_field(tmp_path, wrapping, counted):
    path = tmp_path / "best.pth"
    model, other = resnet8(), resnet8()
    tensors = {k: v for k, v in model.state_dict().items() if counted or "num_batches_tracked" not in k}
    torch.save(WRAPPINGS[wrapping](tensors), path)
    assert load_weights(other, path) == {}
    assert_same_weights(model, other)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pth.tar", ".bin", ""])
def test_suffixes_of_the_field(tmp_path, suffix):
    model, other = resnet8(), resnet8()
    torch.save(model.state_dict(), tmp_path / f"best{suffix}")
    load_weights(other, tmp_path / f"best{suffix}")
    assert_same_weights(model, other)


def test_prefixes_in_safetensors(tmp_path):
    model, other = resnet8(), resnet8()
    save_file({f"model.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert_same_weights(model, other)


AVERAGES = [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "ema"), ("net", "swa_model")]


@pytest.mark.parametrize(("raw", "average"), AVERAGES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_raw_and_averaged_weights(tmp_path, caplog, raw, average, prefix):
    """Both are named, the raw ones are taken; each can be asked for."""
    path, models = tmp_path / "best.pth", {raw: resnet8(), average: resnet8()}
    torch.save({k: {prefix + n: t for n, t in model.state_dict().items()} for k, model in models.items()}, path)
    for key, taken in ((None, raw), (raw, raw), (average, average)):
        other = resnet8()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_weights(other, path, key=key)
        assert_same_weights(models[taken], other)
        said = [record.getMessage() for record in caplog.records]
        if key is None:
            assert len(said) == 1
            assert f"several sets of weights that fit: {raw}, {average}; {raw} is taken" in said[0]
        else:
            assert said == []
    with pytest.raises(UserError, match=rf"no weights under 'best'; it has: {raw}, {average}"):
        load_weights(resnet8(), path, key="best")


def test_two_networks_that_fit_are_not_guessed(tmp_path):
    path, model = tmp_path / "latest", resnet8()
    student, teacher = model.state_dict(), resnet8().state_dict()
    both = {f"module.student.{n}": t for n, t in student.items()} | {
        f"module.teacher.{n}": t for n, t in teacher.items()
    }
    torch.save({"model": both}, path)
    other = resnet8()
    with pytest.raises(UserError, match=r"latest: has several .*: model\.student, model\.teacher; .*checkpoint_key"):
        load_weights(other, path)
    load_weights(other, path, key="model.student")
    assert_same_weights(model, other)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\n <!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>"


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors", "ckpt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "Git LFS pointer.*git lfs pull"),
        (PAGE, "a web page"),
        (b"\xef\xbb\xbf<HTML>", "a web page"),
        (b"", "an empty file"),
        (b'{"error": "rate limit"}', "a JSON text"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML text"),
        (b"\x1f\x8b\x08\x00", "gzip archive; unpack"),
        (b"BZh91AY&SY", "bzip2 archive; unpack"),
        (b"\xfd7zXZ\x00\x00", "xz archive; unpack"),
        (b"/annex/objects/SHA256E-s4--ab.pth\n", "git-annex pointer.*git annex get"),
        (b"Not Found", "a text, not weights: 'Not Found'"),
        ("<!-- saved -->\n<html>".encode("utf-16"), "a text, not weights: '<!-- saved"),
    ],
)
def test_downloads_that_are_no_weights_are_called_what_they_are(tmp_path, suffix, content, message):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"w\.{suffix}: is .*{message}"):
        load_weights(resnet8(), path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_the_file_in_it_is_to_be_unpacked(tmp_path, kind):
    (tmp_path / "in").mkdir()
    torch.save(resnet8().state_dict(), tmp_path / "in" / "w.pth")
    archive = shutil.make_archive(str(tmp_path / "archive"), kind, tmp_path / "in")
    path = pathlib.Path(archive).rename(tmp_path / "w.pth.tar")
    with pytest.raises(UserError, match=r"w\.pth\.tar: is an archive of files"):
        load_weights(resnet8(), path)


def test_a_torchscript_program_is_called_what_it_is(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match=r"w\.pt: is a TorchScript program"):
        load_weights(resnet8(), tmp_path / "w.pt")


def test_the_content_tells_the_kind_and_not_the_suffix(tmp_path):
    model = resnet8()
    save_weights(model, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / "w.pth")
    torch.save(model.state_dict(), tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        other = resnet8()
        load_weights(other, path)
        assert_same_weights(model, other)


def test_a_cut_file_is_called_cut_off(tmp_path):
    torch.save(resnet8().state_dict(), tmp_path / "w.pth")
    save_weights(resnet8(), tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"not a complete .*cut off"):
            load_weights(resnet8(), path)


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
    with pytest.raises(UserError, match=r"evil\.pt: refused.*mkdir"):
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

"""Exported files give the network's own logits, say what they are, and predict the same."""

import csv
import json
import re
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ltkd.commands.export import main
from ltkd.commands.predict import main as predict
from ltkd.data.augmentation import build_augmentation
from ltkd.data.decoding import decode
from ltkd.deploy import formats
from ltkd.deploy.data import data_of_run
from ltkd.deploy.description import shorter_side
from ltkd.deploy.export import Checked, table_of
from ltkd.deploy.latency import Timing, measure, peak_memory
from ltkd.deploy.open import open_network
from ltkd.runs.load import load_run
from tests.data.pictures import pixels

from ..conftest import PROJECT


@pytest.fixture(scope="module")
def exported(example, tmp_path_factory):
    """The folder with every format, exported once."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("export")
    chosen = "formats=safetensors,pt2,onnx,int8"
    assert main([str(example.run), f"output={folder}", chosen, "seconds=0"]) == 0
    return folder


@pytest.fixture(scope="module")
def opened(exported):
    """The exported networks by file, opened once."""
    return {path.name: open_network(path) for path in exported.glob("model*") if path.suffix != ".json"}


def test_every_format_is_the_network_and_says_what_it_is(example, exported, opened):
    rows = {row["name"]: row for row in json.loads((exported / "export.json").read_text())}
    assert list(rows) == ["run", "safetensors", "pt2", "onnx", "int8"]
    recorded = example.result["accuracy"]["last"]
    for name in ("run", "safetensors", "pt2", "onnx"):
        assert rows[name]["largest_difference"] < 1e-4
        assert rows[name]["same_class"] == 100
        assert rows[name]["evaluation"]["per_group"] == recorded["per_group"]
    assert 0 < rows["int8"]["largest_difference"] < 1  # another network, near the first
    assert rows["int8"]["size"] < 0.6 * rows["onnx"]["size"]
    about = open_network(example.run).about
    assert len(opened) == 4
    assert all(network.about == about for network in opened.values())
    assert about.class_names == ["ant", "bee", "cat", "dog"]
    assert about.accuracy["per_group"] == recorded["per_group"]
    assert (about.hash, about.weights_sha256) == (example.result["hash"], example.result["weights_sha256"])
    assert "MIT" in about.licence
    assert "teacher resnet8" in about.licence


def test_predictions_are_those_of_the_run(example, exported, capsys):
    tables = []
    for network in (example.run, exported / "model.onnx"):
        assert predict([str(network), str(example.photos / "test")]) == 0
        tables.append(list(csv.DictReader(capsys.readouterr().out.splitlines())))
    for one, other in zip(*tables, strict=True):
        assert (one["file"], one["class"], one["group"]) == (other["file"], other["class"], other["group"])
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (31, 50), (70, 20), (9, 7)])
def test_scaling_inside_is_that_of_reading_a_file(example, opened, tmp_path, height, width):
    """Raw pixels of any size, one image or three, give what a scaled image gives, but for Pillow's rounding."""
    picture = Image.fromarray(pixels(3, side=6)).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "picture.png")
    raw = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))[None]
    scaled = decode(tmp_path / "picture.png", channels=3, size=12)[None]
    expected = open_network(example.run).classify(scaled)
    for file in ("model.safetensors", "model.pt2", "model.onnx"):
        for count in (1, 3):
            assert np.abs(opened[file].classify(np.repeat(raw, count, 0)) - expected).max() < 0.05


def test_the_example_of_the_page_reads_a_photo_as_predictions_do(example, exported, tmp_path):
    """A turned one and one of 16 bits; pictures of the network's size leave no rounding."""
    Image.fromarray(np.linspace(0, 65535, 144).reshape(12, 12).astype(np.uint16)).save(tmp_path / "deep.png")
    turned = Image.fromarray(pixels(3, side=12))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    page = (PROJECT / "docs" / "own_images.md").read_text(encoding="utf-8")
    code = textwrap.dedent(re.search(r"(?:^    .*\n)*?    session = (?:.*\n    )+logits = .*\n", page, re.MULTILINE)[0])
    for photo in ("deep.png", "turned.jpg"):
        scope = {}
        exec(code.replace("model.onnx", f"{exported}/model.onnx").replace("photo.jpg", f"{tmp_path}/{photo}"), scope)
        expected = open_network(example.run).classify(decode(tmp_path / photo, channels=3, size=12)[None])
        assert scope["logits"] == pytest.approx(expected, abs=1e-4), photo


def test_a_file_is_timed_in_a_process_that_loads_what_it_needs(exported):
    timing = measure(exported / "model.onnx", threads=1, seconds=0.01)
    for batch in (1, 64):
        assert 0 < timing.p50[batch] <= timing.p99[batch]
        assert timing.calls[batch] >= 20
    with_torch = peak_memory()  # of this process
    assert 10e6 < timing.peak_memory < with_torch


def test_without_the_libraries_the_message_says_what_to_install(example, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert main([str(example.run)]) == 2
    assert "formats: onnx needs the library onnxruntime; pip install 'ltkd[export]'" in capsys.readouterr().err


def test_the_table_says_of_how_many_calls_a_p99_is(example):
    data, _ = data_of_run(load_run(example.run), [])
    about = open_network(example.run).about
    evaluation = SimpleNamespace(all=50.0, per_group=dict.fromkeys(about.group_names))
    timings = [Timing({1: 1.0, 64: 9.0}, {1: 2.0, 64: 12.0}, {1: 900, 64: calls}, 10**8) for calls in (31, 200)]
    checked = [Checked("run", example.run, 0, 0.0, 100.0, evaluation, timing) for timing in timings]
    shown = table_of(checked, data, about, threads=1)
    assert "| 1.00" in shown
    assert "| 12.00" in shown
    assert "p99 of as few as 31 calls is about the slowest of them" in shown
    assert "p99 of" not in table_of(checked[1:], data, about, threads=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["formats=tflite"], "formats: unknown name 'tflite'"),
        (["seconds=long"], "seconds: should be a number from 0 to 600"),
        (["threads=0"], "threads: should be a whole number from 1 on"),
        (["dataset.image_size=8"], "dataset.image_size=8: the run's own settings are used"),
        (["dataset.path=/nowhere"], "dataset.path: /nowhere is not there"),
        (["output=FILE"], "is no folder that can be written to (File exists)"),
        (["output=FILE/inside"], "is no folder that can be written to (Not a directory)"),
    ],
)
def test_wrong_calls_are_one_line(example, tmp_path, arguments, message, capsys):
    (tmp_path / "file").write_text("x")
    arguments = [argument.replace("FILE", str(tmp_path / "file")) for argument in arguments]
    assert main([str(example.run), "formats=pt2", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_file_that_gives_other_logits_is_refused_and_none_is_kept(example, tmp_path, monkeypatch, capsys, wrong):
    write = formats.write_safetensors

    def spoil(folder, network, about):
        bias = network.network.classifier.bias.data.clone()
        network.network.classifier.bias.data[0] += wrong
        path = write(folder, network, about)
        network.network.classifier.bias.data = bias
        return path

    monkeypatch.setattr("ltkd.deploy.export.write_safetensors", spoil)
    assert main([str(example.run), f"output={tmp_path}", "formats=safetensors,pt2", "seconds=0"]) == 2
    message = f"formats: safetensors gives other logits than the network, by up to {wrong:g}; nothing was exported"
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_network_without_numbers_is_not_exported(example, tmp_path, monkeypatch, capsys):
    load = load_run

    def broken(folder):
        run = load(folder)
        run.model.classifier.bias.data[0] = float("nan")
        return run

    monkeypatch.setattr("ltkd.runs.load.load_run", broken)
    assert main([str(example.run), f"output={tmp_path}", "formats=safetensors", "seconds=0"]) == 2
    assert "the network's logits are no finite numbers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_description_is_beside_whatever_is_exported(example, tmp_path):
    assert main([str(example.run), f"output={tmp_path}", "formats=pt2", "seconds=0"]) == 0
    assert json.loads((tmp_path / "model.json").read_text())["class_names"] == ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize(
    ("source", "augmentation", "side"),
    [("image_folder", "resized_crop_flip", 256), ("image_folder", "crop_flip", 224), ("pack", "resized_crop_flip", 224),
     ("cifar100", "resized_crop_flip", 224)],
)  # fmt: skip
def test_only_whole_files_are_scaled_further_than_they_are_cut(source, augmentation, side):
    """As evaluation does: images of a pack or of CIFAR's arrays are looked at as they are."""
    assert shorter_side(build_augmentation(augmentation), source, 224) == side

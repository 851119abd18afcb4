"""Predictions from a run's folder: the run's own network, on any files, without its data."""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ltkd.commands.predict import main
from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.data.decoding import decode
from ltkd.deploy.corrections import build_correction, default_tau
from ltkd.deploy.data import data_of_run
from ltkd.deploy.description import read_description
from ltkd.deploy.open import open_network
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError
from ltkd.loop.evaluate import summarize
from ltkd.runs.load import load_run
from ltkd.runs.run import run_experiment
from tests.data.pictures import pixels, write


def predicted(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, list(csv.DictReader(captured.out.splitlines())), captured.err


def test_the_network_is_the_runs_own(example):
    """Its accuracy on the test part is the one that training recorded."""
    run = load_run(example.run)
    data, _ = data_of_run(run, [])
    logits = open_network(example.run).classify(data.test_images)
    found = summarize(torch.from_numpy(logits), torch.from_numpy(data.test_labels), data.split)
    last = example.result["accuracy"]["last"]
    assert (found.per_class, found.per_group) == (last["per_class"], last["per_group"])
    assert found.expected_calibration_error == pytest.approx(last["expected_calibration_error"], abs=1e-3)


def test_a_network_with_the_teachers_classifier_comes_back(example):
    config = load_config(compose_values(*example.settings, "method=simkd", "teacher=resnet8", "recipe.epochs=1"))
    result = run_experiment(config)
    run = load_run(student_run(config).directory)
    assert type(run.model).__name__ == "ReusedClassifier"
    data, _ = data_of_run(run, [])
    logits = open_network(run.directory).classify(data.test_images)
    found = summarize(torch.from_numpy(logits), torch.from_numpy(data.test_labels), data.split)
    assert found.group_mass == pytest.approx(result["accuracy"]["last"]["group_mass"], abs=1e-3)


def test_a_teacher_serves_as_well(example):
    teacher = open_network(example.result["teacher_result"]["directory"]).about
    assert teacher.method == "teacher"
    assert teacher.accuracy["all"] == example.result["teacher_result"]["accuracy"]["last"]["all"]


def test_files_folders_and_lists_without_the_training_data(example, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    shutil.copytree(example.run, moved)
    shutil.copytree(example.photos / "test" / "ant", tmp_path / "photos" / "inner")
    large = write(tmp_path / "large.png", 7, side=40)
    (tmp_path / "list.txt").write_text("large.png\nphotos/inner/0.png\n")
    code, rows, _ = predicted(capsys, moved, tmp_path / "photos", "batch=2", large, tmp_path / "list.txt")
    assert code == 0
    names = [row["file"].removeprefix(f"{tmp_path}/") for row in rows]
    assert names == [*(f"photos/inner/{i}.png" for i in range(3)), "large.png", "large.png", "photos/inner/0.png"]
    assert rows[3] == rows[4]
    about = open_network(moved).about
    for row in rows:
        label = about.class_names.index(row["class"])
        assert row["group"] == about.group_names[about.groups[label]]
        probabilities = [float(row[key]) for key in ("probability", "probability_2", "probability_3", "probability_4")]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_links_are_followed_as_in_training_and_a_folder_is_no_image(example, tmp_path, capsys):
    folder = tmp_path / "photos"
    for number, name in enumerate(("b.jpg/in.png", ".hidden/no.png", ".no.png", "notes.txt/no.txt")):
        write((folder / name).with_suffix(".png"), number).rename(folder / name)
    (folder / "linked").symlink_to(example.photos / "test" / "ant")
    (folder / "linked.png").symlink_to(example.photos / "test" / "bee" / "0.png")
    (folder / "b.jpg" / "back").symlink_to(folder)
    code, rows, _ = predicted(capsys, example.run, folder)
    names = [row["file"].removeprefix(f"{folder}/") for row in rows]
    assert code == 0
    assert names == ["b.jpg/in.png", *(f"linked/{number}.png" for number in range(3)), "linked.png"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_names_that_are_no_text_are_written_without_loss(example, tmp_path, ending, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / os.fsdecode(b"bad\xe9.png")).write_bytes(b"no picture")
    shutil.copy(example.photos / "test" / "ant" / "0.png", tmp_path / name)
    shutil.copy(example.photos / "test" / "ant" / "1.png", tmp_path / "größe.png")
    output = tmp_path / f"told{ending}"
    assert main([str(example.run), str(tmp_path), f"output={output}"]) == 1
    assert "bad\\udce9.png (no image of a known format)\n" in capsys.readouterr().err
    if ending == ".csv":
        rows = list(csv.DictReader(output.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
    else:
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in rows] == [str(tmp_path / name), str(tmp_path / "größe.png")]


def test_unreadable_files_are_all_named_and_the_rest_goes_on(example, tmp_path, capsys):
    good, broken = write(tmp_path / "good.png", 1), [tmp_path / f"broken{number}.jpg" for number in range(12)]
    for path in broken:
        path.write_bytes(b"no picture")
    code, rows, told = predicted(capsys, example.run, *broken, good)
    assert code == 1
    assert [row["file"] for row in rows] == [str(good)]
    for path in broken:
        assert f"unreadable: {path} (no image of a known format)\n" in told
    assert "1 of 13 images classified, 12 unreadable" in told


@pytest.mark.parametrize("images", [np.full((1, 3, 12, 12), 0.5, np.float32), torch.zeros(1, 3, 12, 12).byte(), [0]])
def test_only_levels_of_a_file_are_classified(example, images):
    """Pixels in 0 .. 1 would be taken for black."""
    with pytest.raises(UserError, match=r"images: should be a NumPy array of uint8, .* got \w+ of (float32|torch|no)"):
        open_network(example.run).classify(images)


def test_a_second_correction_is_warned_of(example, tmp_path, capsys):
    """Where the training's own term evened the classes out, not its task loss alone; tables go by the same rule."""
    told = []
    for method in ("kd", "bkd"):
        run = tmp_path / method
        shutil.copytree(example.run, run)
        result = json.loads((run / "result.json").read_text())
        result["identity"]["method"]["name"] = method
        (run / "result.json").write_text(json.dumps(result))
        assert main([str(run), str(example.photos / "test"), "correction=logit_adjusted", "tau=1"]) == 0
        told.append("a second correction: method=bkd evened the classes out already" in capsys.readouterr().err)
    assert told == [False, True]


def test_the_correction_is_logit_adjustment_and_json_lines_hold_the_same(example, tmp_path, capsys):
    folder = example.photos / "test"
    plain, corrected = tmp_path / "plain.jsonl", tmp_path / "corrected.jsonl"
    assert main([str(example.run), str(folder), f"output={plain}"]) == 0
    assert main([str(example.run), str(folder), f"output={corrected}", "correction=logit_adjusted", "tau=2"]) == 0
    assert "classified, logit_adjusted with tau 2, 0 unreadable" in capsys.readouterr().err
    before, after = ([json.loads(line) for line in path.read_text().splitlines()] for path in (plain, corrected))
    about = open_network(example.run).about
    counts = dict(zip(about.class_names, about.class_counts, strict=True))
    for one, other in zip(before, after, strict=True):
        p = {entry["class"]: entry["probability"] for entry in one["top"]}
        weighted = {name: value / counts[name] ** 2 for name, value in p.items()}
        total = sum(weighted.values())
        for entry in other["top"]:
            assert entry["probability"] == pytest.approx(weighted[entry["class"]] / total, abs=2e-4)
    assert [one["file"] for one in before] == [one["file"] for one in after]
    assert not np.array_equal([one["probability"] for one in before], [one["probability"] for one in after])


def test_tau_normalisation_is_that_of_the_classifiers_weights(example, tmp_path):
    """From the description alone, so that a file without the weights in torch has it; tau is the run's choice."""
    network, layer = open_network(example.run), load_run(example.run).model.classifier
    chosen = {"tau": 0.5, "chosen_by": "validation"}
    about = dataclasses.replace(network.about, tau_normalisation=network.about.tau_normalisation | chosen)
    path = tmp_path / "description.json"
    assert read_description(about.to_json(), path) == about
    assert default_tau(about, "tau_normalized") == (0.5, "validation")
    logits = torch.from_numpy(network.classify(pixels(5, 12).transpose(2, 0, 1)[None]))
    expected = (logits - layer.bias) / layer.weight.norm(dim=1) ** 0.5
    assert torch.allclose(build_correction(about, "tau_normalized")(logits, 0.5), expected)
    without = dataclasses.replace(about, tau_normalisation=None)
    with pytest.raises(UserError, match="correction: tau_normalized needs the weights of a linear classifier"):
        build_correction(without, "tau_normalized")
    damaged = json.loads(about.to_json())
    del damaged["tau_chosen_by"]
    with pytest.raises(UserError, match="does not say what its classes are"):
        read_description(json.dumps(damaged), path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "takes RUN IMAGES"),
        (["/nowhere", "PHOTOS"], "/nowhere: not there"),
        (["PHOTOS", "PHOTOS"], "has no result.json"),
        (["LIST", "PHOTOS"], "should be a run's folder or end in .safetensors, .pt2, .onnx"),
        (["RUN", "/nowhere"], "/nowhere: no such file or folder"),
        (["RUN", "EMPTY"], "no images in it"),
        (["RUN", "PHOTOS", "output=x.txt"], "output: should end in .csv or .jsonl"),
        (["RUN", "PHOTOS", "correction=tau"], "correction: unknown name 'tau'"),
        (["RUN", "PHOTOS", "tau=1"], "tau: has no effect without correction"),
        (["RUN", "PHOTOS", "correction=logit_adjusted", "tau=nan"], "tau: should be a number from 0 on"),
        (["RUN", "NOTEXT"], "cannot be read as a list of paths in UTF-8"),
        (["RUN", "PHOTOS", "batch=0"], "batch: should be a whole number from 1 on"),
        (["RUN", "PHOTOS", "device=cuda:99"], "device: 'cuda:99' is not there"),
        (["BROKEN.onnx", "PHOTOS"], "damaged"),
        (["BROKEN.safetensors", "PHOTOS"], "damaged"),
        (["BROKEN.pt2", "PHOTOS"], "damaged"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_calls_are_one_line(example, tmp_path, arguments, message, capsys):
    if "BROKEN.onnx" in arguments:
        pytest.importorskip("onnxruntime")
    places = {"RUN": example.run, "PHOTOS": example.photos, "EMPTY": tmp_path / "empty", "LIST": tmp_path / "a.txt"}
    places["NOTEXT"] = tmp_path / "utf16.txt"
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    places["NOTEXT"].write_text("photo.png", encoding="utf-16")
    for name in ("BROKEN.onnx", "BROKEN.safetensors", "BROKEN.pt2"):
        (tmp_path / name).write_bytes(b"nothing")
        places[name] = tmp_path / name
    assert main([str(places.get(argument, argument)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(("height", "width"), [(12, 12), (31, 50), (70, 20), (9, 7)])
def test_scaling_after_resized_crops_is_that_of_reading_a_file(example, tmp_path, height, width):
    """The shorter side becomes 14 pixels, the centre's 12 are cut out; an image of 12 comes whole."""
    about = dataclasses.replace(open_network(example.run).about, shorter_side=14, mean=[0.0] * 3, std=[1.0] * 3)
    picture = Image.fromarray(pixels(3, side=6)).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "picture.png")
    raw = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())[None]
    expected = torch.from_numpy(decode(tmp_path / "picture.png", channels=3, size=12, shorter=14))
    assert about.image_size == 12
    served = ServedNetwork(torch.nn.Identity(), about)(raw)[0]
    assert (255 * served - expected).abs().max() < 2.5  # Pillow rounds its weights, in either direction

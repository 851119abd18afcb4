"""The findings of an audit are what was put in, and its page is whole."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltkd.commands.audit import main
from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.deploy.audit import audited_run, audited_weights, write_audit
from ltkd.deploy.data import data_of_run
from ltkd.deploy.description import describe_run
from ltkd.deploy.findings import find, find_pairs, find_suspects
from ltkd.deploy.formats import write_safetensors
from ltkd.deploy.judge import Judge
from ltkd.deploy.open import DeployedNetwork, open_network
from ltkd.deploy.served import ServedNetwork
from ltkd.runs.load import load_run
from ltkd.runs.run import run_experiment
from tests.data.pictures import write_folder

from .conftest import COUNTS


@pytest.fixture(scope="module")
def run(example):
    return load_run(example.run)


@pytest.fixture(scope="module")
def data(run):
    return data_of_run(run, [])[0]


def test_near_duplicates_are_found_mirrored_and_brighter_too():
    random = np.random.default_rng(0)
    train = random.integers(30, 200, (40, 3, 24, 24), np.uint8)
    test = random.integers(30, 200, (6, 3, 24, 24), np.uint8)
    test[1] = train[7]
    test[3] = train[20][..., ::-1] + 20
    test[5] = 128  # even: like nothing
    number, pairs = find_pairs(train, test)
    assert number == 2
    assert {(pair.test_row, pair.train_row) for pair in pairs} == {(1, 7), (3, 20)}
    assert min(pair.correlation for pair in pairs) > 0.99


def test_suspects_are_the_tails_images_with_confident_other_answers():
    """Rows 4 and 5 are the tail's; the head's favour alone makes no suspect of row 4."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    split = SimpleNamespace(groups=np.array([0, 1]), class_counts=np.array([90, 10]))
    data = SimpleNamespace(train_labels=labels, split=split)
    logits = np.array([[0, 9.0]] * 4 + [[1.0, 0.0], [9.0, 0.0]])
    judge = SimpleNamespace(evened_out_by=None, class_counts=[90, 10])
    total, disagreeing, suspects = find_suspects(judge, data, logits, 1)
    assert (total, disagreeing) == (2, 1)
    assert [(one.row, one.predicted) for one in suspects] == [(5, 0)]
    adjusted = np.exp([9 - np.log(0.9), 0 - np.log(0.1)])
    assert suspects[0].probability == pytest.approx(adjusted[0] / adjusted.sum())
    elsewhere = SimpleNamespace(evened_out_by=None, class_counts=[50, 50])
    evened_out = SimpleNamespace(evened_out_by="method=ltkd", class_counts=[90, 10])
    for judge in (elsewhere, evened_out):
        assert find_suspects(judge, data, logits, 1)[1] == 2


def test_figures_are_those_of_counting(run, data):
    """Logits that are right but for two images of the first class, which are taken for the last."""
    labels = data.test_labels
    logits = np.full((len(labels), 4), -5.0, np.float32)
    logits[np.arange(len(labels)), labels] = 5
    logits[:2] = [0, 0, 0, 3]
    train = np.zeros((len(data.train_labels), 4), np.float32)
    about = describe_run(run)
    found = find(about, data, logits, about, train)
    assert found.evaluation.per_class == pytest.approx([100 / 3, 100, 100, 100])
    assert found.per_class_mean == pytest.approx((100 / 3 + 300) / 4)
    [worst] = found.worst
    assert (worst.label, worst.taken_for) == (0, [(3, 2)])
    assert [row for row, *_ in worst.examples] == [0, 1]
    assert sum(found.predicted_share.values()) == pytest.approx(100)
    adjusted, normalised = found.corrected["logit_adjusted"], found.corrected["tau_normalized"]
    assert adjusted[0.0].per_class == found.evaluation.per_class
    for error, bins in found.calibration.values():
        assert 0 <= error <= 100
        assert all(0 <= one.accuracy <= 1 and one.count > 0 for one in bins)
    prior = torch.tensor(data.split.class_counts / data.split.class_counts.sum()).log()
    right = (torch.from_numpy(logits) - 2 * prior).argmax(1) == torch.from_numpy(labels)
    assert adjusted[2.0].all == pytest.approx(100 * right.float().mean().item())
    layer = run.model.classifier
    without_bias = torch.from_numpy(logits) - layer.bias.detach()
    right = (without_bias / layer.weight.detach().norm(dim=1) ** 2).argmax(1) == torch.from_numpy(labels)
    assert normalised[2.0].all == pytest.approx(100 * right.float().mean().item())


@pytest.fixture(scope="module")
def page(example, tmp_path_factory):
    output = tmp_path_factory.mktemp("audit") / "page.html"
    assert main([str(example.run), f"output={output}", "device=cpu"]) == 0
    return output.read_text(encoding="utf-8")


def test_the_page_is_whole(example, page):
    assert set(re.findall(r'src="([^"]{0,10})', page)) == {"data:image"}
    assert not re.search(r"<script|<link|@import|url\(", page)
    for title in (
        "bias by group",
        "Worst classes",
        "Calibration",
        "Correction after",
        "Tau-normalisation",
        "since there were no validation images to choose it on",
        "look like",
        "Suspicious labels",
    ):
        assert title in page
    assert f">{example.result['accuracy']['last']['all']:.2f}<" in page
    assert re.search(r"test/(ant|bee|cat|dog)/\d\.png", page.replace("<wbr>", "")), "files are called by their names"
    tags = re.findall(r"<(/?)(div|table|figure|h[1-4]|p|dl|ul)\b", page)
    for tag in {tag for _, tag in tags}:
        assert tags.count(("", tag)) == tags.count(("/", tag)), tag


def test_a_file_of_weights_is_audited_with_the_data_that_is_named(example, tmp_path, page, capsys):
    dataset = [one for one in example.settings if one.startswith("dataset")]
    weights = shutil.copy(example.run / "weights.safetensors", tmp_path)
    (tmp_path / "audit.html").write_text("the run's page")
    assert main([str(weights), "student=resnet8", *dataset, "device=cpu"]) == 0
    assert (tmp_path / "audit.html").read_text() == "the run's page"
    output = tmp_path / "weights.safetensors.audit.html"
    shown = capsys.readouterr().out
    assert f"accuracy {example.result['accuracy']['last']['all']:.2f} %" in shown
    assert "for another class (a file of weights does not say where its teacher is)" in shown
    calibration = r'alt="Calibration.*?src="([^"]+)"'
    assert re.search(calibration, output.read_text())[1] == re.search(calibration, page)[1]


def test_a_file_on_other_data_keeps_its_own_training(example, tmp_path):
    """Classes that were rare in its training are its tail, however many images this data has of them."""
    about = open_network(example.run).about
    write_safetensors(tmp_path, ServedNetwork(load_run(example.run).model, about), about)
    counts = {"ant": 3, "bee": 5, "cat": 7, "dog": 11}
    write_folder(tmp_path / "other" / "train", counts, first=500)
    write_folder(tmp_path / "other" / "test", dict.fromkeys(counts, 2), first=600)
    kept = [one for one in example.settings if one.startswith("dataset") and "path" not in one]
    settings = [*kept, f"dataset.path={tmp_path / 'other'}"]
    audited = audited_weights(tmp_path / "model.safetensors", settings, torch.device("cpu"))
    write_audit(audited, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "trained on these" not in page
    assert "or one unlike those that its weights, which are from a file, were trained on." in judged(page)
    assert "This data has 11 training images of the tail group." in judged(page)
    assert f"photos: {sum(COUNTS.values())} training images (9 to 3 a class); may be other images than these" in page
    assert "other: 4 classes, 26 training images (11 to 3 a class), 8 test images" in page
    trained = re.search(r"<td[^>]*>all</td>\s*<td[^>]*>4</td>\s*<td[^>]*>(\d+)<", page)[1]
    assert int(trained) == sum(COUNTS.values())
    headlines = dict(re.findall(r"<h4>(\w+): \d+ % right, (\w+, \d+ training images)", page))
    expected = {"ant": "head, 9", "bee": "medium, 6", "cat": "medium, 4", "dog": "tail, 3"}
    assert headlines
    assert headlines.items() <= {name: f"{text} training images" for name, text in expected.items()}.items()
    regrouped = audited_weights(
        tmp_path / "model.safetensors",
        [*settings, "dataset.groups={name: mapping, classes: {rare: [0], common: [1, 2, 3]}}"],
        torch.device("cpu"),
    )
    assert regrouped.data.split.group_names == ["rare", "common"]


def test_other_weights_are_corrected_once(example):
    dataset = [one for one in example.settings if one.startswith("dataset")]
    weights = example.run / "weights.safetensors"
    known = {}
    for setting in ("student=resnet8", "student.task_loss=balanced_softmax"):
        settings = list(dict.fromkeys(["student=resnet8", setting, *dataset]))
        audited = audited_weights(weights, settings, torch.device("cpu"))
        known[setting] = audited.judge.network.about.evened_out_by
        assert audited.judge.from_file
    assert list(known.values()) == [None, "task_loss=balanced_softmax"]


def judged(page):
    """The sentences of the page on suspicious labels, with their spaces alone."""
    return re.search(r"Suspicious labels in the \w+</h2>\s*<p[^>]*>(.*?)</p>", page, re.DOTALL)[1]


def test_the_judge_decides_which_labels_are_suspicious(example, tmp_path, page):
    """The tail is the class dog; the opinion about each is ant, whatever the audited network says."""
    assert "the teacher resnet8, its logits adjusted for the class counts, takes " in judged(page)
    assert "although it was trained on them" in judged(page)
    audited = audited_run(example.run, [], torch.device("cpu"))
    opinions = np.tile(np.array([9, 0, 0, 0], np.float32), (len(audited.data.train_labels), 1))
    network = DeployedNetwork(audited.judge.network.about, lambda images: opinions[: len(images)])
    judge = Judge(network, "the teacher x", from_file=True)
    write_audit(replace(audited, judge=judge), tmp_path / "page.html")
    other = (tmp_path / "page.html").read_text()
    takes = "the teacher x, its logits adjusted for the class counts, takes 3 of them for another class: a wrong label"
    assert takes in judged(other)
    assert len(re.findall(r"labelled dog [^<]*, taken for ant", other)) == 3
    before, after = (text[: text.index("Suspicious labels")] for text in (page, other))
    assert re.findall(r"<td.*", before) == re.findall(r"<td.*", after), "its figures are the audited network's"


def test_a_given_teacher_is_asked_too_and_a_run_without_one_says_so(example, monkeypatch):
    monkeypatch.setattr("ltkd.runs.given_teacher.check_predictions", lambda *_: None)  # two epochs taught it nothing
    given = Path(example.result["teacher_result"]["directory"]) / "weights.safetensors"
    judges = []
    for method in (["method=kd", f"teacher.checkpoint={given}"], ["method=ce"]):
        config = load_config(compose_values(*example.settings, *method, "recipe.epochs=1"))
        run_experiment(config)
        judges.append(audited_run(student_run(config).directory, [], torch.device("cpu")).judge)
    assert [(one.name, one.from_file, one.no_teacher) for one in judges] == [
        ("the teacher resnet8", True, None),
        ("the audited network", False, "there is no teacher"),
    ]


def test_moved_outputs_have_their_teacher_still(example, tmp_path, monkeypatch, capsys):
    """Of a copied outputs/ the copy's teacher is asked; without its weights, or with others, the audited network."""
    outputs = example.run.parents[4]
    moved = tmp_path / "moved"
    shutil.copytree(outputs, moved)
    copy = moved / example.run.relative_to(outputs)
    told = json.loads((copy / "result.json").read_text())
    written = Path(told["teacher_result"]["directory"])
    told["teacher_result"]["directory"] = str(Path("outputs", *written.parts[-4:]))
    (copy / "result.json").write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    assert audited_run(copy, [], torch.device("cpu")).judge.name == "the teacher resnet8"

    told["teacher_result"]["weights_sha256"] = 64 * "0"
    (copy / "result.json").write_text(json.dumps(told))
    judge = audited_run(copy, [], torch.device("cpu")).judge
    assert judge.name == "the audited network"
    assert "has other weights than the run learned from" in judge.no_teacher

    (moved / "teachers" / Path(*written.parts[-3:]) / "weights.safetensors").unlink()
    assert main([str(copy), "device=cpu"]) == 0
    reason = f"the teacher cannot be asked: {Path('outputs', *written.parts[-4:])} has no weights"
    assert f"for another class ({reason})\n" in capsys.readouterr().out
    assert f"A teacher would be the better judge; {reason}." in judged((copy / "audit.html").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["device=cpu"], "the following arguments are required: RUN"),
        (["/nowhere"], "/nowhere: not there"),
        (["RUN", "output=page.pdf"], "output: should be a .html file"),
        (["RUN", "recipe.epochs=1"], "recipe.epochs=1: the run's own settings are used"),
        (["MOVED"], "dataset.path: /gone is not there; add dataset.path=... with where it lies now"),
        (["RUN", "dataset.path=OTHER"], "made with other data than this run's"),
        (["WEIGHTS"], "dataset: a file of weights does not say what to test it with"),
        (["WEIGHTS", "dataset=digits_lt"], "weights.safetensors: does not say what its classes are"),
        (["WEIGHTS", "dataset=digits_lt", "student=resnet14"], "does not fit the model"),
        (["BROKEN.pth", "dataset=digits_lt"], "student: "),
        (["RUN", "--jobs", "2"], "unknown argument '--jobs'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_calls_are_one_line(example, tmp_path, arguments, message, capsys):
    (tmp_path / "BROKEN.pth").write_bytes(b"nothing")
    for part, first in (("train", 200), ("test", 300)):
        write_folder(tmp_path / "other" / part, COUNTS, first=first)
    places = {
        "RUN": example.run, "WEIGHTS": example.run / "weights.safetensors", "BROKEN.pth": tmp_path / "BROKEN.pth",
        "dataset.path=OTHER": f"dataset.path={tmp_path / 'other'}",
    }  # fmt: skip
    moved = places["MOVED"] = shutil.copytree(example.run, tmp_path / "moved")
    settings = json.loads((moved / "config.json").read_text())
    settings["dataset"]["path"] = "/gone"
    (moved / "config.json").write_text(json.dumps(settings))
    called = [str(places.get(one, one)) for one in arguments]
    assert main(called) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error

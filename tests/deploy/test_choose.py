"""The choice: a plan that keeps its budget, figures of the validation images alone, and an honest verdict."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ltkd.commands.choose import main
from ltkd.deploy import choose
from ltkd.deploy.choose import Candidate, Choice, Chooser, Score, lines_of
from ltkd.deploy.halving import LEAST_SEEDS, MOST_SEEDS, Cost, make_plan, seconds_of, survivors
from tests.data.pictures import write_folder


def test_the_plan_is_the_longest_that_keeps_the_budget():
    cost = Cost.estimated(student_seconds=2.0, student_size=10, teacher_size=30)
    assert cost == Cost(alone=2.0, taught=4.0, teacher=6.0)
    plan = make_plan(3600, 240, cost, num_alone=2, num_taught=3)
    longest = plan.epochs[-1]
    assert seconds_of(longest, plan.seeds, cost, 2, 3) <= 3600 < seconds_of(longest + 1, plan.seeds, cost, 2, 3)
    assert plan.epochs[0] < plan.epochs[1] < longest
    assert (plan.candidates, plan.seeds) == ((5, 3, 2), LEAST_SEEDS)
    assert survivors(5) == (5, 3, 2)
    generous = make_plan(10**6, 240, cost, num_alone=2, num_taught=3)
    assert (generous.epochs[-1], generous.seeds) == (240, MOST_SEEDS)
    assert make_plan(10, 240, cost, num_alone=2, num_taught=3) is None


def choice(per_seed, interval):
    one, other = (Score(Candidate(name, ("method=ce",)), False, 4, [50.0], {}) for name in "ab")
    return Choice([], one, other, 1.0, interval, per_seed, 40, [])


def test_noise_is_called_noise_and_says_why():
    assert choice([1.0, 2.0], (0.5, 2.5)).noise is None
    assert choice([1.0, 2.0], (-0.5, 3.5)).noise == "the interval does not lie above 0"
    one_seed_lost = choice([-1.0, 4.0], (0.5, 2.5))
    data = SimpleNamespace(
        split=SimpleNamespace(group_names=[]), validation_labels=np.array([0, 1]), class_names=["ant", "bee"]
    )
    reason = "NOT more than noise (the interval lies above 0, but not every seed's difference does): either may be"
    assert reason in "\n".join(lines_of(one_seed_lost, data))


def test_a_tie_that_ends_a_candidate_is_told_and_the_budget_is_kept(example_of_choice, tmp_path, monkeypatch):
    """Six candidates with the same figures: three stay, then two, whatever variant of theirs stands first."""
    same = {"validation": {"per_class": [100 / 3, 200 / 3], "per_group": {}}}

    def run(self, candidate, epochs, seed, teacher_epochs):
        identity = {"method": {"name": candidate.settings[0].removeprefix("method=")}}
        if len(candidate.settings) > 1 and "task_loss" in candidate.settings[1]:
            identity["task_loss"] = "balanced_softmax"
        validation = {"validation": same["validation"]}
        return {
            "accuracy": {"last": validation}, "post_hoc": {"logit_adjusted": validation}, "identity": identity,
            "train_seconds": 1.0, "wall_seconds": 1.0,
        }  # fmt: skip

    monkeypatch.setattr(Chooser, "_run", run)
    monkeypatch.setattr(Chooser, "_right", lambda self, *_: np.array([1.0, 0.0, 0.0]))
    settings = [one for one in example_of_choice[1] if not one.startswith("budget")]
    told = []
    made = Chooser([*settings, f"output_root={tmp_path}"], 600, told.append).choose()
    assert [len({score.candidate for score in scores}) for scores in made.rounds] == [6, 3, 2]
    lost = "LTKD, BKD, balanced posterior had 50.00 % as cross-entropy, balanced softmax, KD had"
    assert made.ties[0].startswith(f"Round 1 ended in a tie: {lost}")
    assert made.ties[1].startswith("Round 2 ended in a tie: KD had 50.00 % as cross-entropy, balanced softmax had")
    assert set(made.ties) < set(told)
    assert made.noise == "the interval does not lie above 0"
    variants = {score.name for score in made.rounds[0] if score.corrected}
    assert variants == {"cross-entropy, corrected", "KD, corrected"}, "the others would be corrected twice"


@pytest.fixture(scope="module")
def example_of_choice(tmp_path_factory):
    root = tmp_path_factory.mktemp("choose")
    photos = write_folder(root / "photos" / "train", {"ant": 9, "bee": 6, "cat": 2, "dog": 1}).parent
    write_folder(photos / "test", dict.fromkeys(["ant", "bee", "cat", "dog"], 2), first=100)
    return root, [
        "dataset=image_folder", f"dataset.path={photos}", "dataset.image_size=8", "dataset.crop_padding=1",
        "teacher=resnet8", "student=resnet8", "recipe.epochs=8", "recipe.batch_size=8", "recipe.warmup_epochs=1",
        "device=cpu", "run.threads=1", "run.progress=none", f"output_root={root}/outputs", "budget=600",
    ]  # fmt: skip


def test_from_a_folder_to_a_command(example_of_choice, capsys, monkeypatch):
    """Two methods, all rounds; a figure of the test part that is looked at is an error. One class has one image."""
    root, arguments = example_of_choice
    run_experiment = choose.run_experiment

    class Last(dict):
        def __getitem__(self, key):
            assert key in ("validation",), f"{key}: a figure of the test part was read"
            return super().__getitem__(key)

    def guarded(config):
        result = run_experiment(config)
        return result | {"accuracy": {"last": Last(result["accuracy"]["last"])}}

    monkeypatch.setattr(choose, "run_experiment", guarded)
    monkeypatch.setattr(choose, "SHORT_LIST", (choose.SHORT_LIST[0], choose.SHORT_LIST[-1]))
    monkeypatch.setattr("ltkd.deploy.halving.MOST_SEEDS", 2)
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "held out for validation: 1 training image(s) of each class, 3 in all" in shown
    assert "classes of one image, which stays in training, so that none judges them: dog\n" in shown
    assert "Not judged, without a validation image: dog.\nThe test part was not looked at." in shown
    told = json.loads(next((root / "outputs" / "choose").rglob("choice.json")).read_text())
    last = told["rounds"][-1]
    assert [score["epochs"] for score in (told["rounds"][0][0], told["rounds"][1][0], last[0])] == [2, 4, 8]
    assert {score["candidate"]["name"] for score in last} == {"cross-entropy", "balanced posterior"}
    assert "cross-entropy, corrected: " in shown
    assert "balanced posterior, corrected" not in shown, "it corrects inside"
    by_seed = [a - b for a, b in zip(told["best"]["per_seed"], told["second"]["per_seed"], strict=True)]
    assert told["per_seed"] == pytest.approx(by_seed)  # of the networks' predictions, and of the results
    assert told["difference"] == pytest.approx(np.mean(by_seed))
    assert told["num_images"] == 3
    command = told["command"]
    assert command.startswith("python src/train.py dataset=image_folder")
    assert "validation" not in command
    assert command.endswith(("method=ce", "method=balanced_posterior method.teachers=1"))
    assert len(list((root / "outputs" / "teachers").rglob("result.json"))) == 1, "another teacher is another training"

    monkeypatch.setattr("ltkd.runs.run.prepare", lambda config: pytest.fail("a finished run was run again"))
    assert main(arguments) == 0
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if "|" in line] == [line for line in shown.splitlines() if "|" in line]


def test_every_choice_has_its_own_folder(example_of_choice, tmp_path):
    """Folders of one name with other images, and other settings, do not write over each other; a repetition does."""
    settings = [one for one in example_of_choice[1] if not one.startswith(("budget", "dataset.path"))]
    for place, first in (("a", 0), ("b", 50)):
        for part, number in (("train", 3), ("test", 1)):
            write_folder(tmp_path / place / "photos" / part, {"ant": number, "bee": number}, first=first + 20 * number)

    def folder(place, *more, minutes=60):
        path = f"dataset.path={tmp_path / place / 'photos'}"
        return Chooser([*settings, path, *more], minutes, lambda line: None).folder

    assert folder("a").parent.name == "photos"
    assert folder("a") == folder("a")
    assert len({folder("a"), folder("b"), folder("a", "student=resnet14"), folder("a", minutes=30)}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["budget=soon"], "budget: should be a number from 0 on"),
        (["budget=0.0001"], "budget: 0.0001 minutes are too few"),
        (["method=kd"], "method: is chosen here"),
        (["++seed=1"], "seed: is chosen here"),
        (["dataset.path=/nowhere"], "dataset.path: /nowhere is not there"),
        (["student=nothing"], "student: unknown name 'nothing'"),
        (["dataset.path=ONE"], "fewer than two classes have a second image"),
    ],
    ids=str,
)
def test_wrong_calls_are_one_error(example_of_choice, tmp_path, arguments, message, capsys):
    if "ONE" in arguments[0]:
        write_folder(tmp_path / "train", {"ant": 3, "bee": 1})
        write_folder(tmp_path / "test", {"ant": 1, "bee": 1}, first=50)
        arguments = [f"dataset.path={tmp_path}"]
    assert main([*example_of_choice[1], f"output_root={tmp_path}/outputs", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_a_budget_is_asked_for(capsys):
    assert main(["dataset=image_folder"]) == 2
    assert "budget: missing; budget=60 is an hour" in capsys.readouterr().err

"""Chooses what to train on a data set: a short list of methods, compared on held-out validation images alone.

The list ends with this project's own method, the balanced posterior, with one teacher: its defaults have three, each of
which is a training of its own, and no budget of minutes pays for them.

A method whose training left the imbalance is compared with its logits corrected for the class counts too; one that made
up for them is not corrected again.

The runs are ordinary ones below outputs/choose. Training evaluates them on the test part too, as always; nothing here
reads those figures.
"""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from ltkd.config.compose import CONFIGURATION, compose_values
from ltkd.config.identity import dataset_label, digest, student_run
from ltkd.config.load import load_config
from ltkd.config.schema import Config
from ltkd.data import LongTailData, build_augmentation, load_data
from ltkd.deploy.corrections import build_correction
from ltkd.deploy.description import describe_run
from ltkd.deploy.export import all_logits
from ltkd.deploy.halving import LEAST_EPOCHS, Cost, Plan, make_plan
from ltkd.deploy.open import classify_with
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError
from ltkd.files import read_json, write_json, write_text
from ltkd.models import build_model, count_multiply_adds
from ltkd.results.corrections import evened_out_by
from ltkd.results.read import cell_text
from ltkd.results.statistics import student_t_interval
from ltkd.runs.load import load_run
from ltkd.runs.run import run_experiment

STUDY = "choose"
MOST_VALIDATION = 20  # images of a class
PILOT_EPOCHS = 2
OWN = ("method", "student.task_loss", "seed", "study", "evaluation.logit_adjusted")  # settings that are chosen here


@dataclass(frozen=True)
class Candidate:
    """A method of the short list and its settings; `taught`: whether it has a teacher."""

    name: str
    settings: tuple[str, ...]
    taught: bool = True


SHORT_LIST = (
    Candidate("cross-entropy", ("method=ce",), taught=False),
    Candidate("balanced softmax", ("method=ce", "student.task_loss=balanced_softmax"), taught=False),
    Candidate("KD", ("method=kd",)),
    Candidate("LTKD", ("method=ltkd",)),
    Candidate("BKD", ("method=bkd",)),
    Candidate("balanced posterior", ("method=balanced_posterior", "method.teachers=1")),
)


@dataclass(frozen=True)
class Score:
    """A candidate's validation accuracy in one round: mean of the classes over its seeds, and of each group."""

    candidate: Candidate
    corrected: bool
    epochs: int
    per_seed: list[float]
    per_group: dict[str, float | None]

    @property
    def name(self) -> str:
        return f"{self.candidate.name}, corrected" if self.corrected else self.candidate.name

    @property
    def value(self) -> float:
        return round(mean(self.per_seed), 9)  # as many right answers are a tie, however they are summed up


@dataclass(frozen=True)
class Choice:
    """The best variant, the best of another candidate, and their difference on the same validation images.

    difference and interval (95 %, Student's t over the images) are in percentage points of the mean over classes;
    per_seed are the differences seed by seed. ties: a line for each round that dropped as good a candidate as it kept.
    """

    rounds: list[list[Score]]
    best: Score
    second: Score
    difference: float
    interval: tuple[float, float]
    per_seed: list[float]
    num_images: int
    ties: list[str]

    @property
    def noise(self) -> str | None:
        """Why the difference may be noise; None where it is more."""
        if self.interval[0] <= 0:
            return "the interval does not lie above 0"
        if min(self.per_seed) <= 0:
            return "the interval lies above 0, but not every seed's difference does"
        return None


class Chooser:
    """The rounds of a choice. `tell` gets a line for each step; a repeated call finds its finished runs again."""

    def __init__(self, overrides: Sequence[str], minutes: float, tell: Callable[[str], None]) -> None:
        for override in overrides:
            key = override.partition("=")[0].lstrip("+")
            if key in OWN:
                raise UserError(f"{key}: is chosen here; leave it out")
        self.overrides, self.minutes, self.tell = list(overrides), minutes, tell
        full = load_config(compose_values(*overrides, "method=kd"))
        self.full_recipe = full.recipe
        self.fixed = [
            f"study={STUDY}",
            "wandb.mode=disabled",
            "evaluation.logit_adjusted=1",
            "evaluation.tau_normalized=null",
            *self._validation(full),
        ]
        config = load_config(compose_values(*overrides, *self.fixed, "method=kd"))
        resized_crops = build_augmentation(config.recipe_of(config.student).augmentation).resized_crop is not None
        self.data = load_data(config.dataset, Path(config.data_root), resized_crops=resized_crops).decoded()
        self.folder = Path(config.output_root) / STUDY / dataset_label(config.dataset) / f"choice-{self._digest()}"
        self.sizes = [self._size(config, network) for network in (config.student, config.teacher)]

    def _validation(self, full: Config) -> list[str]:
        """The override that holds validation images out, where the settings do not."""
        dataset = full.dataset
        if dataset.holds_out:
            return []
        if dataset.imbalance != "none":  # those that the long tail leaves out
            return [f"dataset.validation_per_class={MOST_VALIDATION}"]
        data = load_data(dataset, Path(full.data_root))
        counts = data.split.class_counts
        several = counts[counts > 1]
        if len(several) < 2:
            raise UserError(
                "dataset.validation_per_class: fewer than two classes have a second image, which could be held out for "
                "validation; add images, or choose by hand"
            )
        number = min(MOST_VALIDATION, int(several.min()) // 2)
        self.tell(f"held out for validation: {number} training image(s) of each class, {number * len(several)} in all")
        if single := [name for name, count in zip(data.class_names, counts, strict=True) if count == 1]:
            self.tell(f"classes of one image, which stays in training, so that none judges them: {', '.join(single)}")
        return [f"dataset.validation_per_class={number}"]

    def _digest(self) -> str:
        """The same for a repeated command on the same images alone: folders of one name and other settings differ."""
        settings = [f"budget={self.minutes:g}", *self.overrides, *self.fixed]
        candidates = [candidate.settings for candidate in SHORT_LIST]
        return digest({"settings": settings, "candidates": candidates, "data": self.data.manifest()})

    def _size(self, config: Config, network) -> int:
        dataset = config.dataset
        model = build_model(network.name, dataset.num_classes, in_channels=dataset.channels, **network.arguments)
        return count_multiply_adds(model, (dataset.channels, dataset.image_size, dataset.image_size))

    def choose(self) -> Choice:
        """All rounds. UserError where the budget is too small for the shortest plan."""
        cost, spent = self._pilot()
        plan = self._plan(cost, 60 * self.minutes - spent)
        staying, rounds, ties = list(SHORT_LIST), [], []
        for number, (epochs, count) in enumerate(zip(plan.epochs, plan.candidates, strict=True)):
            if tie := _dropped_in_a_tie(rounds[-1], staying, count) if rounds else None:
                ties.append(f"Round {number} ended in a tie: {tie}.")
                self.tell(ties[-1])
            staying = staying[:count]
            seeds = range(plan.seeds if number == len(plan.epochs) - 1 else 1)
            self.tell(
                f"round {number + 1}: {', '.join(c.name for c in staying)}; {epochs} epochs, {len(seeds)} seed(s)"
            )
            scores = [score for candidate in staying for score in self._scores(candidate, epochs, seeds, plan)]
            scores.sort(key=lambda score: -score.value)
            rounds.append(scores)
            staying = list(dict.fromkeys(score.candidate for score in scores))
        best = rounds[-1][0]
        second = next(score for score in rounds[-1] if score.candidate != best.candidate)
        return self._compared(rounds, best, second, plan, ties)

    def _pilot(self) -> tuple[Cost, float]:
        result = self._run(SHORT_LIST[0], PILOT_EPOCHS, 0, teacher_epochs=None)
        return Cost.estimated(result["train_seconds"] / PILOT_EPOCHS, *self.sizes), result["wall_seconds"]

    def _plan(self, cost: Cost, seconds: float) -> Plan:
        """As made by the first call of this command: measured anew it would be another one."""
        path = self.folder / "plan.json"
        if not path.exists():
            num_taught = sum(candidate.taught for candidate in SHORT_LIST)
            arguments = (self.full_recipe.epochs, cost, len(SHORT_LIST) - num_taught, num_taught)
            plan = make_plan(seconds, *arguments)
            if plan is None:
                needed = next(minutes for minutes in range(1, 10**6) if make_plan(60 * minutes, *arguments) is not None)
                raise UserError(
                    f"budget: {self.minutes:g} minutes are too few for {LEAST_EPOCHS} epochs of the last round; about "
                    f"{needed + 1} are needed here (or smaller networks, fewer pixels)"
                )
            write_json(path, dataclasses.asdict(plan))
            return plan
        stored = read_json(path)
        return Plan(tuple(stored["epochs"]), tuple(stored["candidates"]), stored["seeds"])

    def _config(self, candidate: Candidate, epochs: int, seed: int, teacher_epochs: int | None) -> Config:
        lengths = self._length("recipe", epochs)
        if candidate.taught:
            lengths += self._length("++teacher.recipe", teacher_epochs)
        return load_config(compose_values(*self.overrides, *self.fixed, *candidate.settings, *lengths, f"seed={seed}"))

    def _length(self, where: str, epochs: int) -> list[str]:
        """The overrides of a shorter training; its warm-up is shorter by as much."""
        warmup = self.full_recipe.warmup_epochs * epochs // max(1, self.full_recipe.epochs)
        return [f"{where}.epochs={epochs}", f"{where}.warmup_epochs={warmup}"]

    def _run(self, candidate: Candidate, epochs: int, seed: int, teacher_epochs: int | None) -> dict[str, Any]:
        result = run_experiment(self._config(candidate, epochs, seed, teacher_epochs))
        if result is None:
            raise UserError("choose: another process works on one of these runs; wait for it, or give output_root=")
        return result

    def _scores(self, candidate: Candidate, epochs: int, seeds: Sequence[int], plan: Plan) -> list[Score]:
        """The candidate's variants."""
        results = [self._run(candidate, epochs, seed, plan.teacher_epochs) for seed in seeds]
        variants = [(False, [result["accuracy"]["last"]["validation"] for result in results])]
        evened_out = evened_out_by(results[0]["identity"])  # predict.py would warn of a second correction
        if not evened_out and all(result["post_hoc"]["logit_adjusted"] for result in results):
            variants.append((True, [result["post_hoc"]["logit_adjusted"]["validation"] for result in results]))
        scores = [Score(candidate, corrected, epochs, *_means(records)) for corrected, records in variants]
        self.tell("".join(f"  {score.name}: {score.value:.2f} %\n" for score in scores).rstrip())
        return scores

    def _compared(self, rounds: list[list[Score]], best: Score, second: Score, plan: Plan, ties: list[str]) -> Choice:
        seeds = range(plan.seeds)
        right = [[self._right(score, seed, plan) for seed in seeds] for score in (best, second)]
        labels = self.data.validation_labels
        counts = np.bincount(labels, minlength=len(self.data.class_names))
        weights = len(labels) / ((counts > 0).sum() * counts[labels])  # so that the mean is that of the classes
        differences = 100 * weights * (np.mean(right[0], axis=0) - np.mean(right[1], axis=0))
        per_seed = [100 * float(np.mean(weights * (a - b))) for a, b in zip(*right, strict=True)]
        interval = student_t_interval(differences)
        return Choice(rounds, best, second, float(differences.mean()), interval, per_seed, len(labels), ties)

    def _right(self, score: Score, seed: int, plan: Plan) -> np.ndarray:
        """1.0 for each validation image that the variant's network gets right, else 0.0 [V]."""
        run = load_run(student_run(self._config(score.candidate, score.epochs, seed, plan.teacher_epochs)).directory)
        about = describe_run(run)
        logits = all_logits(classify_with(ServedNetwork(run.model, about).eval(), "cpu"), self.data.validation_images)
        if score.corrected:
            logits = build_correction(about, "logit_adjusted")(torch.from_numpy(logits), 1.0).numpy()
        return (logits.argmax(1) == self.data.validation_labels).astype(float)

    def command(self, choice: Choice) -> str:
        """The full run with the winner's settings, on all training images."""
        kept = [override for override in self.overrides if not override.startswith("dataset.validation_per_class")]
        checkout = (CONFIGURATION.parent / "src" / "train.py").is_file()
        program = "python src/train.py" if checkout else "ltkd-train"
        return f"{program} {shlex.join([*kept, *choice.best.candidate.settings])}"

    def write(self, choice: Choice) -> Path:
        """choice.md and choice.json beside the plan."""
        write_text(self.folder / "choice.md", "\n".join([*lines_of(choice, self.data), "", self.command(choice), ""]))
        record = dataclasses.asdict(choice) | {
            "more_than_noise": choice.noise is None,
            "noise": choice.noise,
            "command": self.command(choice),
        }
        write_json(self.folder / "choice.json", record)
        return self.folder / "choice.md"


def _dropped_in_a_tie(scores: Sequence[Score], ranked: Sequence[Candidate], count: int) -> str | None:
    """Says which candidates the round drops though they are as good as one that stays; None where there is none.

    ranked: the candidates, best first, of which `count` stay; equal ones stand as in the round before, at first as in
    the short list.
    """
    values = {candidate: max(s.value for s in scores if s.candidate == candidate) for candidate in ranked}
    least = values[ranked[count - 1]]
    dropped = [candidate.name for candidate in ranked[count:] if values[candidate] == least]
    if not dropped:
        return None
    kept = [candidate.name for candidate in ranked[:count] if values[candidate] == least]
    return (
        f"{', '.join(dropped)} had {least:.2f} % as {', '.join(kept)} had, and left since the budget has room for "
        f"{count}: of equals those stay that stood first in the round before, in the first round in the list"
    )


def _means(records: Sequence[Mapping[str, Any]]) -> tuple[list[float], dict[str, float | None]]:
    """The validation accuracy of several seeds: the mean of the classes of each, and the groups' means."""
    per_seed = [mean(value for value in record["per_class"] if value is not None) for record in records]
    groups = {}
    for name in records[0]["per_group"]:
        values = [record["per_group"][name] for record in records]
        groups[name] = None if None in values else mean(values)
    return per_seed, groups


def lines_of(choice: Choice, data: LongTailData) -> list[str]:
    """The table of all rounds, the verdict, and what it rests on."""
    names = data.split.group_names
    rows = [
        [str(number), score.name, str(score.epochs), str(len(score.per_seed)), f"{score.value:.2f}"]
        + [cell_text(score.per_group[name], None) for name in names]
        for number, scores in reversed(list(enumerate(choice.rounds, 1)))
        for score in scores
    ]
    headers = ["round", "method", "epochs", "seeds", "mean of the classes, %", *names]
    best, second, (low, high) = choice.best, choice.second, choice.interval
    seeds = ", ".join(f"{value:+.2f}" for value in choice.per_seed)
    unjudged = np.flatnonzero(np.bincount(data.validation_labels, minlength=len(data.class_names)) == 0)
    without = ", ".join(data.class_names[label] for label in unjudged)
    verdict = (
        "This is more than noise."
        if choice.noise is None
        else f"This is NOT more than noise ({choice.noise}): either may be the better one; a larger budget or more "
        "images would tell."
    )
    correction = (
        "\nIts logits were adjusted for the class counts: predict with correction=logit_adjusted tau=1."
        if best.corrected
        else ""
    )
    return [
        tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True),
        "",
        f"best: {best.name}, {best.value:.2f} %; {choice.difference:+.2f} points against {second.name} on the same "
        f"{choice.num_images} validation images (95 % interval {low:+.2f} to {high:+.2f}; by seed: {seeds}).",
        verdict + correction,
        *choice.ties,
        *([f"Not judged, without a validation image: {without}."] if without else []),
        "The test part was not looked at.",
    ]

"""Choosing settings by the accuracy on held-out validation images, never by the test part.

A grid of settings is trained with a few seeds on a split whose validation images are kept apart; the setting with the
highest mean validation accuracy after the last epoch is chosen and written as a preset with the evidence beside it.
"""

import contextlib
import itertools
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, mean

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from tabulate import tabulate

from ltkd.config.compose import CONFIGURATION, compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.errors import UserError
from ltkd.files import write_text
from ltkd.results.read import figure, read_result
from ltkd.results.statistics import CONFIDENCE, student_t_interval, summarize
from ltkd.sweep import Job, check_jobs

# What a preset does not say: where and how it is run, and what is for tuning alone.
NOT_IN_A_PRESET = (
    "seed",
    "study",
    "device",
    "output_root",
    "data_root",
    "run.",
    "wandb.",
    "dataset.validation_per_class",
)

CHOSEN = "its settings chosen on a validation split:"  # in the head of every preset that is written here


@dataclass(frozen=True)
class Setting:
    """One point of the grid and its runs, a seed each."""

    values: dict[str, str]  # key -> value as on the command line
    jobs: list[Job]

    @property
    def label(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True)
class Tuning:
    """A grid, checked: what is tried, and what is the same for all."""

    fixed: list[Override]
    keys: list[str]  # of the grid
    seeds: list[str]
    settings: list[Setting]

    @property
    def jobs(self) -> list[Job]:
        return [job for setting in self.settings for job in setting.jobs]

    @property
    def num_images(self) -> int:
        """Validation images: as many of every class."""
        dataset = self.jobs[0].config.dataset
        return dataset.num_classes * dataset.validation_per_class


def make_tuning(overrides: Sequence[str]) -> Tuning:
    """The grid of overrides as for `train.py -m`: what has several values is tried, `seed` gives the seeds.

    Where nothing but the seed has several values the grid is conf/tuning/<method>.yaml. UserError when there is none,
    when anything does not compose, and when no validation images would be held out.
    """
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(str(error)) from error
    swept = {one.get_key_element(): list(one.sweep_string_iterator()) for one in parsed if one.is_sweep_override()}
    fixed = [one for one in parsed if not one.is_sweep_override() and one.key_or_group != "seed"]
    [single_seed] = [one.value() for one in parsed if one.key_or_group == "seed" and not one.is_sweep_override()] or [0]
    seeds = swept.pop("seed", [str(single_seed)])
    for key in swept:
        if key.lstrip("+").startswith("dataset"):
            raise UserError(f"{key}: cannot be tuned, since each value would be judged by other images")
    base = ["study=tuning", *(one.input_line for one in fixed)]
    config = load_config(compose_values(*base))
    if config.dataset.validation_per_class == 0:
        raise UserError(
            "dataset.validation_per_class: 0 holds no images out to choose by, and the test part chooses nothing; "
            "add dataset.validation_per_class=20"
        )
    grid = swept or _default_grid(config.method_name)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    jobs = check_jobs(
        [*base, *(f"{key}={value}" for key, value in point.items()), f"seed={seed}"]
        for point in points
        for seed in seeds
    )
    settings = [Setting(point, jobs[i * len(seeds) : (i + 1) * len(seeds)]) for i, point in enumerate(points)]
    return Tuning(fixed, list(grid), seeds, settings)


def _default_grid(method: str) -> dict[str, list[str]]:
    folder = CONFIGURATION / "tuning"
    path = folder / f"{method}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in folder.glob("*.yaml")))
        raise UserError(f"{method} has no grid of its own (there are: {known}); type one, as in method.weight=1,2,4")
    return {key: [str(value) for value in values] for key, values in yaml.safe_load(path.read_text()).items()}


@dataclass(frozen=True)
class Judged:
    """A setting with its validation accuracies, in %, one for each seed."""

    setting: Setting
    accuracies: list[float]
    differences: list[float]  # to the chosen setting, seed by seed

    @property
    def mean(self) -> float:
        return mean(self.accuracies)

    @property
    def difference(self) -> float:
        return mean(self.differences)

    @property
    def seed_margin(self) -> float:
        """Half of Student's 95 % interval of the difference over the seeds, on these images; 0 with one seed."""
        if len(self.differences) < 2:
            return 0.0
        low, high = student_t_interval(self.differences)
        return (high - low) / 2


@dataclass(frozen=True)
class Choice:
    """The settings, the chosen one first, the others by falling mean."""

    tuning: Tuning
    judged: list[Judged]

    @property
    def chosen(self) -> Setting:
        return self.judged[0].setting

    def image_margin(self, one: Judged) -> float:
        """Half of the 95 % interval of the difference to the chosen one for the validation images being a sample, in %.

        1.96 sqrt((p (1 - p) + q (1 - q)) / N) of the two accuracies p and q, as if each were on N images of its own.
        That is too much for networks that err alike, as those of one method do. All seeds are judged by the same
        images, so it does not shrink with their number.
        """
        shares = [other.mean / 100 for other in (self.judged[0], one)]
        variance = sum(share * (1 - share) for share in shares) / self.tuning.num_images
        return 100 * NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance)

    def margin(self, one: Judged) -> float:
        """The margin of both: seeds and images are independent, so their squares add up."""
        return math.hypot(one.seed_margin, self.image_margin(one))

    @property
    def as_good(self) -> list[Judged]:
        """Those that the evidence does not tell from the chosen one."""
        return [one for one in self.judged[1:] if -one.difference <= self.margin(one)]

    @property
    def at_the_edge(self) -> list[str]:
        """Keys of three or more numbers of which the smallest or largest was chosen: the best may lie beyond."""
        edges = []
        for key in self.tuning.keys:
            tried = {one.setting.values[key] for one in self.judged}
            with contextlib.suppress(ValueError):  # of words there is no smallest
                numbers = sorted(map(float, tried))
                if len(numbers) > 2 and float(self.chosen.values[key]) in (numbers[0], numbers[-1]):
                    edges.append(key)
        return edges

    def lines(self) -> list[str]:
        """The evidence as text."""
        tuning = self.tuning
        seeds = f"seed {tuning.seeds[0]}" if len(tuning.seeds) == 1 else f"seeds {', '.join(tuning.seeds)}"
        short = [key.removeprefix("method.") for key in tuning.keys]
        body = []
        for one in self.judged:
            accuracies = summarize(one.accuracies)
            difference = "chosen" if one is self.judged[0] else figure(one.difference, self.margin(one))
            body.append([*one.setting.values.values(), figure(accuracies.mean, accuracies.deviation), difference])
        table = tabulate(body, headers=[*short, "validation", "difference"], tablefmt="github", disable_numparse=True)
        of_seeds = "the seeds' (Student's t) and " if len(tuning.seeds) > 1 else ""
        interval = [
            f"The interval has {of_seeds}the sampling error of the images, as if each setting had been judged by",
            "images of its own: too much for networks that err alike, and no less with more seeds, which share them.",
        ]
        return [
            f"Accuracy in % on {tuning.num_images:,} validation images after the last epoch, {seeds}: mean ± standard",
            "deviation; difference to the chosen one, paired by seed, ± half of its 95 % interval. No test image used.",
            *table.splitlines(),
            *interval,
            f"Not told from the chosen one by that interval: {len(self.as_good)} of {len(self.judged) - 1} others.",
            *(f"{key}: the chosen one is at the edge of the values tried." for key in self.at_the_edge),
        ]


def choose(tuning: Tuning) -> Choice:
    """The setting with the highest mean validation accuracy over the seeds; of equal ones the first of the grid.

    UserError when a run has no result: a choice among what happened to finish is none.
    """
    accuracies = [[_validation_accuracy(job) for job in setting.jobs] for setting in tuning.settings]
    best = max(accuracies, key=mean)
    judged = [
        Judged(setting, own, [ours - theirs for ours, theirs in zip(own, best, strict=True)])
        for setting, own in zip(tuning.settings, accuracies, strict=True)
    ]
    return Choice(tuning, sorted(judged, key=lambda one: one.mean, reverse=True))  # stable: the first of equal ones


def _validation_accuracy(job: Job) -> float:
    return read_result(job.run.files.result)["accuracy"]["last"]["validation"]["all"]


def preset_name(tuning: Tuning) -> str:
    """The default: of data set, pair and method, so that tuning for another pair replaces nothing.

    Where these are tried out themselves it has the first.
    """
    label = tuning.jobs[0].run.names["label"]
    return f"tuned_{re.sub(r'[^A-Za-z0-9_]+', '_', label)}"  # a dot or a slash would be no part of a file's name


def preset_text(choice: Choice, name: str, command: str) -> str:
    """A file for conf/experiment/: what all runs had in common and the chosen values, with the evidence as comments."""
    groups = _groups()
    presets, overridden, values = [], [], OmegaConf.create({})
    chosen = [f"{key}={value}" for key, value in choice.chosen.values.items()]
    parsed = [*choice.tuning.fixed, *OverridesParser.create().parse_overrides(chosen)]
    for one in parsed:
        key = one.key_or_group
        if key.startswith(NOT_IN_A_PRESET):
            continue
        if one.type not in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD):
            raise UserError(f"{one.input_line}: cannot be written into a preset")
        if key == "experiment":
            presets.append(one.value())
        elif key in groups:
            overridden.append({f"override /{key}": one.value()})
        else:
            OmegaConf.update(values, key, one.value(), force_add=True)
    head = [
        "@package _global_",
        f"{choice.judged[0].setting.jobs[0].config.method_name}, {CHOSEN}",
        f"  {command}",
        f"To be used as experiment={name}; it trains on the whole split.",
        *choice.lines(),
    ]
    comments = "".join(f"# {line}".rstrip() + "\n" for line in head)
    defaults = yaml.safe_dump({"defaults": [*presets, *overridden, "_self_"]}, sort_keys=False)
    return f"{comments}{defaults}" + (f"\n{OmegaConf.to_yaml(values)}" if values else "")


def _groups() -> list[str]:
    with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        return GlobalHydra.instance().config_loader().list_groups("")


def check_output(path: Path, *, overwrite: bool) -> None:
    """UserError when a file is at `path` that no tuning wrote, unless it may be overwritten."""
    if path.is_file() and not overwrite and CHOSEN not in path.read_text(errors="replace"):
        raise UserError(f"output: {path} is there and was not written by tuning; add --overwrite or name another file")


def write_preset(choice: Choice, path: Path, command: str) -> None:
    """The preset at `path`; in conf/experiment/ only once it is known to compose what was chosen."""
    text = preset_text(choice, path.stem, command)
    if path.resolve().parent == (CONFIGURATION / "experiment").resolve():
        trial = path.with_name(f"{path.stem}_{secrets.token_hex(4)}.yaml")
        try:
            write_text(trial, text)
            check_preset(choice, trial.stem)
        finally:
            trial.unlink(missing_ok=True)
    write_text(path, text)


def check_preset(choice: Choice, name: str) -> None:
    """The preset that lies in conf/experiment/ composes what was chosen, on the whole split; else UserError."""
    whole_split = "dataset.validation_per_class=0"
    job = choice.chosen.jobs[0]
    wanted = student_run(load_config(compose_values(*job.overrides, whole_split)))
    found = student_run(load_config(compose_values(f"experiment={name}", f"seed={job.config.seed}")))
    if wanted.identity != found.identity:
        raise UserError("output: the preset does not compose the chosen settings and is not written; write it by hand")

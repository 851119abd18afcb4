"""Chooses settings by the accuracy on held-out validation images, never by the test part.

A grid of settings is trained with a few seeds on a split whose validation images are kept apart; the setting with the
highest mean validation accuracy after the last epoch is chosen and written as a preset with the evidence beside it.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from tabulate import tabulate

from ltkd.config.compose import CONFIGURATION, compose_values, parse_overrides
from ltkd.config.load import load_config
from ltkd.errors import UserError
from ltkd.results.read import cell_text, read_result
from ltkd.results.statistics import student_t_interval, summarize
from ltkd.sweep import Job, check_jobs

# what a preset leaves out: where and how a run is done, and what is for tuning alone
NOT_IN_A_PRESET = (
    "seed", "study", "device", "output_root", "data_root", "run.", "wandb.", "dataset.validation_per_class",
)  # fmt: skip


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
    """A checked grid: the settings that are tried, and the overrides that all share."""

    fixed: list[Override]
    keys: list[str]  # of the grid
    seeds: list[str]
    settings: list[Setting]

    @property
    def jobs(self) -> list[Job]:
        return [job for setting in self.settings for job in setting.jobs]


def make_tuning(overrides: Sequence[str]) -> Tuning:
    """The grid of overrides as for `train.py -m`: what has several values is tried, `seed` gives the seeds.

    Where nothing but the seed has several values the grid is conf/tuning/<method>.yaml. UserError when there is none,
    when anything does not compose, and when no validation images would be held out.
    """
    parse_overrides(overrides)
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(str(error)) from error
    swept = {
        override.get_key_element(): list(override.sweep_string_iterator())
        for override in parsed
        if override.is_sweep_override()
    }
    fixed = [override for override in parsed if not override.is_sweep_override() and override.key_or_group != "seed"]
    [single_seed] = [
        override.value() for override in parsed if override.key_or_group == "seed" and not override.is_sweep_override()
    ] or [0]
    seeds = swept.pop("seed", [str(single_seed)])
    for key in swept:
        if key.lstrip("+").startswith("dataset"):
            raise UserError(f"{key}: cannot be tuned, since each value would be judged by other images")
    base = ["study=tuning", *(override.input_line for override in fixed)]
    config = load_config(compose_values(*base))
    if not config.dataset.holds_out:
        raise UserError(
            "dataset.validation_per_class: 0 holds no images out to choose by, and the test part chooses nothing; "
            "add dataset.validation_per_class=20 (or, with dataset=image_list, dataset.validation_list=FILE)"
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
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(f"{method} has no grid of its own (there are: {known}); type one, as in method.weight=1,2,4")
    return {key: [str(value) for value in values] for key, values in yaml.safe_load(path.read_text()).items()}


@dataclass(frozen=True)
class Judged:
    """A setting with its validation accuracies, in %, one for each seed."""

    setting: Setting
    accuracies: list[float]
    differences: list[float]  # to the chosen setting, seed by seed

    @property
    def margin(self) -> float | None:
        """Half of Student's 95 % interval of the difference over the seeds; None with one seed."""
        if len(self.differences) < 2:
            return None
        low, high = student_t_interval(self.differences)
        return (high - low) / 2


@dataclass(frozen=True)
class TuningResult:
    """The settings with their accuracies, the chosen one first, the others by falling mean."""

    tuning: Tuning
    judged: list[Judged]
    num_images: int | None  # of the validation part; results of before do not say it

    @property
    def chosen(self) -> Setting:
        return self.judged[0].setting

    def lines(self) -> list[str]:
        """Writes the evidence as text."""
        tuning, body = self.tuning, []
        seeds = ", ".join(tuning.seeds)
        for judged in self.judged:
            accuracies = summarize(judged.accuracies)
            difference = "chosen" if judged is self.judged[0] else cell_text(mean(judged.differences), judged.margin)
            body.append([*judged.setting.values.values(), cell_text(accuracies.mean, accuracies.deviation), difference])
        headers = [*(key.removeprefix("method.") for key in tuning.keys), "validation", "difference"]
        number = "the" if self.num_images is None else f"{self.num_images:,}"
        return [
            f"Accuracy in % on {number} validation images after the last epoch, seeds {seeds}: mean ±",
            "standard deviation; difference to the chosen one, paired by seed, ± half of Student's 95 % interval over",
            "the seeds. They share the images, whose own sampling error is not in it. No test image was used.",
            *tabulate(body, headers=headers, tablefmt="github", disable_numparse=True).splitlines(),
        ]


def choose(tuning: Tuning) -> TuningResult:
    """The setting with the highest mean validation accuracy over the seeds; of equal ones the first of the grid.

    UserError when a run has no result: a choice among those that happened to finish is none.
    """
    results = [[read_result(job.run.files.result) for job in setting.jobs] for setting in tuning.settings]
    accuracies = [[result["accuracy"]["last"]["validation"]["all"] for result in row] for row in results]
    best = max(accuracies, key=mean)
    judged = [
        Judged(setting, values, [value - chosen for value, chosen in zip(values, best, strict=True)])
        for setting, values in zip(tuning.settings, accuracies, strict=True)
    ]
    judged.sort(key=lambda judgement: -mean(judgement.accuracies))  # stable: the first of equal ones stays first
    counts = results[0][0].get("validation_counts")
    return TuningResult(tuning, judged, None if counts is None else sum(counts))


def preset_name(tuning: Tuning) -> str:
    """The default name: of data set, pair and method, so that tuning for another pair replaces nothing."""
    label = tuning.jobs[0].run.names["label"]
    return f"tuned_{re.sub(r'[^A-Za-z0-9_]+', '_', label)}"  # a dot or a slash would be no part of a file's name


def preset_text(result: TuningResult, name: str, command: str) -> str:
    """A file for conf/experiment/: what all runs had in common and the chosen values, with the evidence as comments."""
    groups = _groups()
    presets, overridden, values = [], [], OmegaConf.create({})
    chosen = [f"{key}={value}" for key, value in result.chosen.values.items()]
    parsed = [*result.tuning.fixed, *OverridesParser.create().parse_overrides(chosen)]
    for override in parsed:
        key = override.key_or_group
        if key.startswith(NOT_IN_A_PRESET):
            continue
        if override.type not in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD):
            raise UserError(f"{override.input_line}: cannot be written into a preset")
        if key == "experiment":
            presets.append(override.value())
        elif key in groups:
            overridden.append({f"override /{key}": override.value()})
        else:
            OmegaConf.update(values, key, override.value(), force_add=True)
    head = [
        "@package _global_",
        f"{result.chosen.jobs[0].config.method_name}, its settings chosen on a validation split:",
        f"  {command}",
        f"To be used as experiment={name}; it trains on the whole split.",
        *result.lines(),
    ]
    comments = "".join(f"# {line}".rstrip() + "\n" for line in head)
    defaults = yaml.safe_dump({"defaults": [*presets, *overridden, "_self_"]}, sort_keys=False)
    return f"{comments}{defaults}" + (f"\n{OmegaConf.to_yaml(values)}" if values else "")


def _groups() -> list[str]:
    with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        return GlobalHydra.instance().config_loader().list_groups("")

"""Hashes everything that determines a network's results. The hash names the run's folder."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ltkd.config.schema import Config, Network, Precision, Recipe, Teacher
from ltkd.data import DEFAULT_GROUPS, DatasetConfig
from ltkd.files import file_sha256
from ltkd.models import starting_weights
from ltkd.results.files import RunFiles

OWN_INPUT = ("mean", "std", "image_size")  # of a teacher whose images are not normalised as the data set's


@dataclass(frozen=True)
class NetworkRun:
    """One network to be trained, or found trained: a student of one seed, or a teacher."""

    config: Config
    role: Literal["teacher", "student"]
    network: Network
    seed: int
    identity: dict[str, Any]  # all that its weights depend on, and nothing that they do not (device, tracking, study)
    directory: Path

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.directory)

    @property
    def hash(self) -> str:
        return digest(self.identity)

    @property
    def cell(self) -> str:
        """The hash shared by all runs that differ in seeds alone.

        The interval of evaluation is in it, since it decides what `best` and `selected` mean.
        """
        return digest({**without_seeds(self.identity), "evaluate_every": self.config.run.evaluate_every})

    @property
    def tracking_id(self) -> str:
        """The same run in another study or another place is another run in W&B."""
        return digest({"hash": self.hash, "directory": str(self.directory.resolve())})

    @property
    def reads_groups(self) -> bool:
        """True if its weights depend on the data set's groups; else they are no part of its identity."""
        return self.role == "student" and self.config.reads_groups

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as far as it concerns this network."""
        settings = asdict(self.config)
        if self.role == "teacher":
            settings["teacher"] = asdict(self.network)  # it may be one beside the configuration's
        without = ["student", "method", "study", "seed"] if self.role == "teacher" else []
        if self.role == "student" and not self.config.needs_teacher:
            without = ["teacher"]
        return {key: value for key, value in settings.items() if key not in without}

    @property
    def names(self) -> dict[str, Any]:
        """The names of the run, for its status, its result and W&B."""
        config, student = self.config, self.role == "student"
        dataset = dataset_label(config.dataset)
        teacher = (config.teacher.name if config.needs_teacher else None) if student else self.network.name
        name, method = (self.network.name, config.method_name) if student else (None, "teacher")
        return {
            "role": self.role, "study": config.study, "dataset": dataset, "teacher": teacher, "student": name,
            "method": method, "label": "-".join(filter(None, [dataset, teacher, name, method])).replace("/", "_"),
            "hash": self.hash, "cell": self.cell, "seed": self.seed, "split_seed": config.dataset.split_seed,
        }  # fmt: skip


def teacher_run(config: Config, teacher: Teacher | None = None) -> NetworkRun:
    """Returns the run of the configuration's teacher, or of one of its further teachers."""
    teacher = teacher or config.teacher
    identity = _teacher_identity(config, teacher)
    folder = Path(config.output_root) / "teachers" / dataset_label(config.dataset) / _folder(teacher.name)
    name = f"s{teacher.seed}-{digest(identity)}"
    return NetworkRun(config, "teacher", teacher, teacher.seed, identity, folder / name)


def student_run(config: Config) -> NetworkRun:
    identity = {
        "seed": config.seed,
        **_network_identity(config, config.student),
        **({} if config.student.start == "random" else {"start": config.student.start}),
        "dataset": _dataset_identity(config, reads_groups=config.reads_groups),
        "method": config.method,
        "teacher": _teacher_identity(config, config.teacher) if config.needs_teacher else None,
    }
    if config.reads_stored_logits and config.cache.storage != "float32":
        identity["teacher_logits"] = config.cache.storage
    if config.extra_teachers:
        identity["further_teachers"] = [_teacher_identity(config, teacher) for teacher in config.extra_teachers]
    pair = f"{_folder(config.teacher.name) if config.needs_teacher else 'none'}-{_folder(config.student.name)}"
    folder = Path(config.output_root) / config.study / dataset_label(config.dataset) / pair / config.method_name
    name = f"s{config.seed}-{digest(identity)}"
    return NetworkRun(config, "student", config.student, config.seed, identity, folder / name)


def digest(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the SHA-256 of the identity in canonical JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def dataset_label(dataset: DatasetConfig) -> str:
    """The data set's folder name: its name and how imbalanced it is."""
    if dataset.imbalance == "none":
        return dataset.name
    shape = "" if dataset.imbalance == "exponential" else f"-{dataset.imbalance}"
    return f"{dataset.name}{shape}-if{dataset.imbalance_factor:g}"


def _teacher_identity(config: Config, teacher: Teacher) -> dict[str, Any]:
    if teacher.swag is not None:
        # weights from a file are trained on here, and what is said of them does not say how
        trained_on = {} if teacher.checkpoint is None else {"seed": teacher.seed, **_training_identity(config, teacher)}
        around = _teacher_identity(config, replace(teacher, swag=None))
        return {"swag": asdict(teacher.swag), "teacher": around} | trained_on
    if teacher.checkpoint is not None:  # used as it is: no recipe, no seed
        adapted = {} if teacher.task_loss == "ce" else {"task_loss": teacher.task_loss}  # it may replace the classifier
        adapted |= _classifier_identity(teacher)
        adapted |= {} if teacher.checkpoint_key is None else {"checkpoint_key": teacher.checkpoint_key}
        adapted |= {} if teacher.class_names is None else {"class_names": teacher.class_names}
        return adapted | {
            "dataset": _dataset_identity(config), "name": teacher.name, "arguments": teacher.arguments,
            "checkpoint": file_sha256(Path(teacher.checkpoint)),
            "precision": _without_defaults(replace(config.precision, sync_batch_norm=False)),
        } | _own_input(teacher)  # fmt: skip
    return {"seed": teacher.seed, **_network_identity(config, teacher), **_own_input(teacher)}


def _own_input(teacher: Teacher) -> dict[str, Any]:
    return {key: value for key in OWN_INPUT if (value := getattr(teacher, key)) is not None}


def _network_identity(config: Config, network: Network) -> dict[str, Any]:
    retraining = {} if network.retraining is None else {"retraining": network.retraining}
    weights = starting_weights(network.name, network.pretrained, network.arguments)
    started = {"starting_weights": weights} if weights else {}
    return (
        retraining
        | started
        | _classifier_identity(network)
        | {
            **_training_identity(config, network),
            "dataset": _dataset_identity(config),
            "name": network.name,
            "pretrained": network.pretrained,
            "arguments": network.arguments,
            "precision": _without_defaults(config.precision),
        }
    )


def _dataset_identity(config: Config, *, reads_groups: bool = False) -> dict[str, Any]:
    settings = config.dataset.settings()
    return settings if reads_groups else settings | {"groups": DEFAULT_GROUPS}


def _classifier_identity(network: Network) -> dict[str, Any]:
    return {} if network.classifier == "linear" else {"classifier": network.classifier}


def _training_identity(config: Config, network: Network) -> dict[str, Any]:
    compiled = {"step": "compile"} if config.run.step == "compile" else {}  # the other steps give the same numbers
    return compiled | {"task_loss": network.task_loss, "recipe": _without_defaults(config.recipe_of(network))}


def _without_defaults(section: Recipe | Precision) -> dict[str, Any]:
    """All settings; those that came later are left out where they are as before them: a run stays the run it was."""
    identity = asdict(section)
    for field in fields(section):
        if field.default is not MISSING and identity[field.name] == field.default:
            del identity[field.name]
    return identity


def without_seeds(identity: dict[str, Any]) -> dict[str, Any]:
    """Returns what all runs of a cell have in common."""
    teacher = identity.get("teacher")
    if teacher is not None:
        identity = identity | {"teacher": without_seeds(teacher)}
    if "further_teachers" in identity:
        identity = identity | {"further_teachers": [without_seeds(extra) for extra in identity["further_teachers"]]}
    return {key: value for key, value in identity.items() if key != "seed"}


def _folder(model_name: str) -> str:
    return model_name.replace("/", "_")

"""The typed configuration: checked as a whole before any work, hashed into a run's identity."""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt

from ltkd.binding import bind
from ltkd.combinations import impossible_combinations, warn_of_combinations
from ltkd.data import DatasetConfig, group_policy, pack_dataset_config, sampler_class
from ltkd.errors import UnknownName, UserError
from ltkd.methods import Method, method_class, task_loss_class
from ltkd.models import model_factory
from ltkd.retraining import retraining_class

logger = logging.getLogger(__name__)

Seed = Annotated[int, Ge(0), Lt(2**32)]
Tau = Annotated[float, Ge(0)] | Literal["auto"]  # of a post-hoc correction
Choice = str | dict[str, Any]  # "name" or {name: ..., other arguments}


@dataclass(frozen=True)
class Recipe:
    """Optimisation of one network. Epochs count from 1; a factor holds from the epoch after its milestone on."""

    name: str
    epochs: Annotated[int, Ge(0)]
    batch_size: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    nesterov: bool
    weight_decay: Annotated[float, Ge(0)]
    warmup_epochs: Annotated[int, Ge(0)]
    schedule: Literal["step", "cosine", "constant"]
    milestones: list[Annotated[float, Gt(0), Lt(1)]]
    decay_factors: list[Annotated[float, Gt(0)]]
    sampling: Choice = "instance"


@dataclass(frozen=True)
class Network:
    """A student, and what a teacher has in common with it."""

    name: str
    pretrained: bool
    arguments: dict[str, Any]
    task_loss: Choice
    retraining: Choice | None
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Swag:
    """Which sample of the SWAG posterior around a trained teacher; engine/swag.py says what the settings mean."""

    epochs: Annotated[int, Ge(2)]
    learning_rate: Annotated[float, Gt(0)]
    rank: Annotated[int, Ge(2)]
    sample: Annotated[int, Ge(0)] | None  # None: the training that the posterior is collected from


@dataclass(frozen=True)
class Teacher(Network):
    seed: Seed
    checkpoint: str | None
    swag: Swag | None = None  # set by methods alone
    checkpoint_key: str | None = None  # the set of weights in a file that has several
    class_names: list[str] | None = None  # of the file's outputs, in their order; None: in the data set's order


@dataclass(frozen=True)
class Precision:
    autocast: Literal["float32", "bfloat16"]
    tf32: bool


@dataclass(frozen=True)
class Run:
    evaluate_every: Annotated[int, Ge(1)]
    threads: Annotated[int, Ge(1)] | Literal["auto"]
    progress: Literal["auto", "bar", "lines", "none"]
    step: Literal["auto", "eager", "graph", "compile"]


@dataclass(frozen=True)
class Cache:
    mode: Literal["auto", "fill", "lazy", "off"]
    max_gigabytes: Annotated[float, Gt(0)]
    storage: Literal["float32", "float16"]


@dataclass(frozen=True)
class EvaluationSettings:
    """What is computed of the finished network beside its accuracy."""

    logit_adjusted: Tau | None
    tau_normalized: Tau | None
    robustness: bool | Literal["auto"]
    robustness_images: Annotated[int, Ge(1)] | None


@dataclass(frozen=True)
class Wandb:
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None
    tags: list[str]


@dataclass(frozen=True)
class Config:
    """Everything that a run needs to know; one attribute per top-level key of conf/config.yaml."""

    study: str
    seed: Seed
    device: str
    output_root: str
    data_root: str
    precision: Precision
    run: Run
    cache: Cache
    evaluation: EvaluationSettings
    wandb: Wandb
    dataset: DatasetConfig
    teacher: Teacher
    student: Network
    method: dict[str, Any]
    recipe: Recipe

    @property
    def method_name(self) -> str:
        return self.method["name"]

    @property
    def method_arguments(self) -> dict[str, Any]:
        return {key: value for key, value in self.method.items() if key != "name"}

    @property
    def needs_teacher(self) -> bool:
        return method_class(self.method_name).needs.teacher

    @property
    def reads_stored_logits(self) -> bool:
        """Whether logits of a teacher may come from a cache, rounded as cache.storage says."""
        needs = method_class(self.method_name).needs
        return needs.teacher and (needs.teacher_logits_only or bool(self.further_teachers))

    @property
    def further_teachers(self) -> list[Teacher]:
        """The teachers that the method wants beside the main one."""
        method, sections = method_class(self.method_name), [dataclasses.asdict(n) for n in (self.teacher, self.student)]
        if not method.needs.teacher:
            return []
        teachers = []
        for difference in method.further_teachers(*sections, self.method_arguments):
            if "swag" in difference:
                difference = difference | {"swag": Swag(**difference["swag"])}
            teachers.append(dataclasses.replace(self.teacher, **difference))
        return teachers

    def recipe_of(self, network: Network) -> Recipe:
        """The recipe with what the network's own settings override."""
        return dataclasses.replace(self.recipe, **network.recipe)


def load_config(values: Mapping[str, Any]) -> Config:
    """The checked configuration from plain, resolved values.

    Raises UserError with all that is wrong, a line each, every line beginning with the key.
    """
    errors: list[str] = []
    values = dict(values)
    values["dataset"] = _fill_in_pack(values.get("dataset"))
    sections = bind(Config, values, "", errors)  # a section that does not bind is None and is not looked at further
    _check_places(sections, errors)
    if sections.get("recipe"):
        _check_recipe("recipe", sections["recipe"], errors)
        sections["recipe"] = _with_bound_choice(sections["recipe"], "recipe", "sampling", sampler_class, errors)
    if sections.get("dataset"):
        sections["dataset"] = _with_bound_choice(sections["dataset"], "dataset", "groups", group_policy, errors)
    method = _bind_method(sections, errors)
    if sections.get("student"):
        _bind_network("student", sections, errors)
    if sections.get("teacher") and (method is None or method.needs.teacher):
        _bind_network("teacher", sections, errors)
        _check_checkpoint(sections["teacher"], errors)
    _raise(errors)
    config = Config(**sections)
    _ = config.further_teachers  # what does not fit there is said now too
    _raise(impossible_combinations(config))
    warn_of_combinations(config)
    return config


def _raise(errors: list[str]) -> None:
    if errors:
        count = "one error" if len(errors) == 1 else f"{len(errors)} errors"
        raise UserError("\n".join([f"{count} in the configuration:", *(f"  {line}" for line in errors)]))


@contextmanager
def _collecting(errors: list[str], key: str = "") -> Iterator[None]:
    """A UserError inside becomes one more line of `errors`; an unknown name is told under the configuration's `key`."""
    try:
        yield
    except UnknownName as error:
        errors.append(error.under(key) if key else str(error))
    except UserError as error:
        errors.append(str(error))


def _fill_in_pack(dataset: Any) -> Any:
    """A packed split brings its own settings along: they stand wherever conf/dataset/pack.yaml has null.

    Without a readable pack nothing is known of the data: its error is raised at once, alone.
    """
    if isinstance(dataset, Mapping) and dataset.get("source") == "pack" and isinstance(dataset.get("path"), str):
        packed = pack_dataset_config(Path(dataset["path"]))
        return dict(dataset) | {key: value for key, value in packed.items() if dataset.get(key) is None}
    return dataset


def _check_places(sections: dict[str, Any], errors: list[str]) -> None:
    study = sections.get("study")
    if study is not None and (not study.strip() or Path(study).is_absolute() or ".." in Path(study).parts):
        errors.append(f"study: should name a folder below output_root, got {study!r}")
    if study is not None and Path(study).parts[:1] in (("teachers",), ("multirun",)):
        errors.append(f"study: {study!r} is a folder that the program uses itself")
    dataset = sections.get("dataset")
    if dataset and ("/" in dataset.name or dataset.name in ("", ".", "..")):
        errors.append(f"dataset.name: should be a plain name, a folder is called by it; got {dataset.name!r}")
    if sections.get("device") is not None:
        with _collecting(errors):
            resolve_device(sections["device"])


def _bind_method(sections: dict[str, Any], errors: list[str]) -> type[Method] | None:
    """The method's class, once its name is known; sections["method"] then holds what its constructor will be given."""
    values = sections.get("method")
    if values is None:
        return None
    if not isinstance(values.get("name"), str):
        errors.append(f"method.name: should be a name, got {values.get('name')!r}")
        return None
    method = None
    with _collecting(errors):
        method = method_class(values["name"])
        arguments = {key: value for key, value in values.items() if key != "name"}
        arguments = bind(method, arguments, "method", errors, given=2)
        sections["method"] = {"name": values["name"], **arguments}
        groups, dataset = arguments.get("groups"), sections.get("dataset")
        if dataset and isinstance(groups, int) and groups > dataset.num_classes:
            message = f"should be at most the number of classes ({dataset.num_classes}), got {groups}"
            errors.append(f"method.groups: {message}")
    return method


def _bind_network(role: str, sections: dict[str, Any], errors: list[str]) -> None:
    """Name, arguments, task loss and recipe overrides of teacher or student."""
    network = sections[role]
    with _collecting(errors, f"{role}.name"):
        factory = model_factory(network.name)
        for key in {"num_classes", "in_channels", "pretrained"} & network.arguments.keys():
            errors.append(f"{role}.arguments.{key}: is not set here; it comes from the data set or {role}.pretrained")
        bind(factory, network.arguments | {"num_classes": 1, "in_channels": 1}, f"{role}.arguments", errors)
    network = _with_bound_choice(network, role, "task_loss", task_loss_class, errors)
    if network.retraining is not None:
        network = _with_bound_choice(network, role, "retraining", retraining_class, errors, given=0)
    recipe = sections.get("recipe")
    if recipe and network.recipe:
        before = len(errors)
        overridden = bind(Recipe, dataclasses.asdict(recipe) | network.recipe, f"{role}.recipe", errors)
        if len(errors) == before:
            overridden = Recipe(**overridden)
            _check_recipe(f"{role}.recipe", overridden, errors)
            overridden = _with_bound_choice(overridden, f"{role}.recipe", "sampling", sampler_class, errors)
            network = dataclasses.replace(network, recipe={key: getattr(overridden, key) for key in network.recipe})
    sections[role] = network


def _with_bound_choice(
    section: Any, where: str, key: str, lookup: Callable[[str], Callable], errors: list[str], *, given: int = 1
) -> Any:
    """The section with its choice (a name, or {name: ..., arguments}) checked and written in one way.

    The name must be known and the arguments must fit its signature, whose first `given` parameters (class counts,
    labels) the program passes itself. Arguments that are as by default are left out: what means the same is the same
    run.
    """
    choice = getattr(section, key)
    arguments = {"name": choice} if isinstance(choice, str) else dict(choice)
    if "name" not in arguments:
        errors.append(f"{where}.{key}: should be a name or {{name: ..., arguments}}, got {choice!r}")
        return section
    name = arguments.pop("name")
    if not isinstance(name, str):
        errors.append(f"{where}.{key}.name: should be a name, got {name!r}")
        return section
    with _collecting(errors, f"{where}.{key}"):
        target = lookup(name)
        arguments = bind(target, arguments, f"{where}.{key}", errors, given=given)
        defaults = {parameter.name: parameter.default for parameter in inspect.signature(target).parameters.values()}
        arguments = {argument: value for argument, value in arguments.items() if value != defaults.get(argument)}
    bound = {"name": name, **arguments} if arguments else name
    return section if bound == choice else dataclasses.replace(section, **{key: bound})


def _check_checkpoint(teacher: Teacher, errors: list[str]) -> None:
    if teacher.checkpoint is not None and not Path(teacher.checkpoint).is_file():
        errors.append(f"teacher.checkpoint: no such file: {teacher.checkpoint}")
    for key in ("checkpoint_key", "class_names"):
        if teacher.checkpoint is None and getattr(teacher, key) is not None:
            errors.append(f"teacher.{key}: is about a file of weights, but teacher.checkpoint names none")


def _check_recipe(key: str, recipe: Recipe, errors: list[str]) -> None:
    if recipe.schedule == "step":
        if len(recipe.milestones) != len(recipe.decay_factors):
            errors.append(
                f"{key}.milestones: needs one decay factor each, got {recipe.milestones} and {recipe.decay_factors}"
            )
        if recipe.milestones != sorted(recipe.milestones):
            errors.append(f"{key}.milestones: should ascend, got {recipe.milestones}")
    elif recipe.milestones:
        logger.warning("%s.milestones has no effect with %s.schedule=%s", key, key, recipe.schedule)
    if 0 < recipe.epochs <= recipe.warmup_epochs:
        logger.warning("%s: the warm-up of %d epochs never ends in %d", key, recipe.warmup_epochs, recipe.epochs)
    if recipe.nesterov and recipe.momentum == 0:
        errors.append(f"{key}.nesterov: needs a momentum greater than 0")


def resolve_device(name: str) -> torch.device:
    """The torch device that `name` (auto, cpu, cuda, cuda:N) means here; UserError where it is not there."""
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name == "auto":
        name = available[-1] if len(available) == 1 else available[1]
    if name == "cuda" and len(available) > 1:
        name = available[1]
    if name not in available:
        raise UserError(f"device: {name!r} is not there; this machine has: auto, {', '.join(available)}")
    return torch.device(name)

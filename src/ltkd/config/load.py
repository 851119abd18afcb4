"""From plain values to a typed configuration: checked as a whole, before any work."""

import dataclasses
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ltkd.choices import name_and_settings
from ltkd.config.bind import bind
from ltkd.config.compatibility import impossible_combinations, warn_of_combinations
from ltkd.config.retraining import retraining_class
from ltkd.config.schema import Config, Recipe, Teacher
from ltkd.data import (
    AUGMENTATIONS,
    DatasetConfig,
    complete_settings,
    group_policy,
    joined_choice,
    sampler_class,
    split_choice,
    with_content,
)
from ltkd.data.dataset import check_normalisation
from ltkd.errors import UnknownName, UserError
from ltkd.machine import resolve_device
from ltkd.methods import Method, method_class
from ltkd.models import model_factory
from ltkd.models.classifier import classifier_kind
from ltkd.optimization.averaging import average_kind
from ltkd.optimization.optimizers import optimizer_kind
from ltkd.task_losses import task_loss_class

logger = logging.getLogger(__name__)

# Keys of paths, wherever they stand; the last two are arguments of timm's networks.
PATHS = (
    "output_root", "data_root", "path", "list", "train_list", "validation_list", "test_list", "class_names",
    "checkpoint", "checkpoint_path", "file",
)  # fmt: skip


def load_config(values: Mapping[str, Any]) -> Config:
    """The checked configuration from plain, resolved values.

    Raises UserError with all that is wrong, a line each, every line beginning with the key.
    """
    errors: list[str] = []
    values = _with_home(values)
    if isinstance(values.get("dataset"), Mapping):
        # Without readable files nothing is known of the data: their error is raised at once, alone.
        values["dataset"] = complete_settings(values["dataset"])
    sections = bind(Config, values, "", errors)  # a section that does not bind is None and is not looked at further
    _check_places(sections, errors)
    if sections.get("recipe"):
        _check_recipe("recipe", sections["recipe"], errors)
        sections["recipe"] = _with_bound_choices(sections["recipe"], "recipe", errors)
    if sections.get("dataset"):
        sections["dataset"] = _with_bound_choice(sections["dataset"], "dataset", "groups", group_policy, errors)
        with _collecting(errors):
            sections["dataset"] = with_content(sections["dataset"], Path(sections.get("data_root") or ""))
    method = _bind_method(sections, errors)
    if sections.get("student"):
        _bind_network("student", sections, errors)
    if sections.get("teacher") and (method is None or method.needs.teacher):
        _bind_network("teacher", sections, errors)
        _check_checkpoint(sections["teacher"], errors)
        _check_own_input(sections["teacher"], sections.get("dataset"), errors)
    _raise(errors)
    config = Config(**sections)
    _ = config.extra_teachers  # what does not fit there is said now too
    _raise(impossible_combinations(config))
    warn_of_combinations(config)
    return config


def _with_home(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with ~ and ~user written out in every path, those in the arguments of a network too."""

    def written_out(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _with_home(value)
        return os.path.expanduser(value) if isinstance(value, str) and key in PATHS else value

    return {key: written_out(key, value) for key, value in values.items()}


def _raise(errors: list[str]) -> None:
    if len(errors) == 1:
        raise UserError(errors[0])
    if errors:
        raise UserError("\n".join([f"{len(errors)} errors in the configuration:", *(f"  {line}" for line in errors)]))


@contextmanager
def _collecting(errors: list[str], key: str = "") -> Iterator[None]:
    """A UserError inside becomes one more line of `errors`; an unknown name is told under the configuration's `key`."""
    try:
        yield
    except UnknownName as error:
        errors.append(error.under(key) if key else str(error))
    except UserError as error:
        errors.append(str(error))


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
    network = _with_bound_choice(network, role, "classifier", classifier_kind, errors)
    if network.retraining is not None:
        network = _with_bound_choice(network, role, "retraining", retraining_class, errors, given=0)
    recipe = sections.get("recipe")
    if recipe and network.recipe:
        before = len(errors)
        overridden = bind(Recipe, dataclasses.asdict(recipe) | network.recipe, f"{role}.recipe", errors)
        if len(errors) == before:
            overridden = Recipe(**overridden)
            _check_recipe(f"{role}.recipe", overridden, errors)
            overridden = _with_bound_choices(overridden, f"{role}.recipe", errors)
            network = dataclasses.replace(network, recipe={key: getattr(overridden, key) for key in network.recipe})
    sections[role] = network


def _with_bound_choices(recipe: Recipe, where: str, errors: list[str]) -> Recipe:
    """The recipe with its choices as `_with_bound_choice` writes them."""
    recipe = _with_bound_choice(recipe, where, "sampling", sampler_class, errors)
    recipe = _with_bound_choice(recipe, where, "optimizer", optimizer_kind, errors, given=3)
    recipe = _with_bound_choice(recipe, where, "average", average_kind, errors)
    with _collecting(errors, f"{where}.augmentation"):
        entries = [
            _without_defaults(AUGMENTATIONS[entry.pop("name")], name, entry, f"{where}.augmentation", errors)
            for entry in split_choice(recipe.augmentation)
            for name in (entry["name"],)
        ]
        recipe = dataclasses.replace(recipe, augmentation=joined_choice(entries))
    return recipe


def _without_defaults(
    target: Callable, name: str, arguments: dict[str, Any], where: str, errors: list[str], given: int = 0
) -> dict[str, Any]:
    """{name: ..., arguments}, checked against the signature of `target`, without those that are as by default."""
    arguments = bind(target, arguments, where, errors, given=given)
    defaults = {parameter.name: parameter.default for parameter in inspect.signature(target).parameters.values()}
    return {"name": name} | {key: value for key, value in arguments.items() if value != defaults.get(key)}


def _with_bound_choice(
    section: Any, where: str, key: str, lookup: Callable[[str], Callable], errors: list[str], *, given: int = 1
) -> Any:
    """The section with its choice (a name, or {name: ..., arguments}) checked and written in one way.

    The name must be known and the arguments must fit its signature, whose first `given` parameters (class counts,
    labels) the program passes itself. Arguments that are as by default are left out: what means the same is the same
    run.
    """
    choice = getattr(section, key)
    name, arguments = name_and_settings(choice)
    if name is None:
        errors.append(f"{where}.{key}: should be a name or {{name: ..., arguments}}, got {choice!r}")
        return section
    if not isinstance(name, str):
        errors.append(f"{where}.{key}.name: should be a name, got {name!r}")
        return section
    with _collecting(errors, f"{where}.{key}"):
        arguments = _without_defaults(lookup(name), name, arguments, f"{where}.{key}", errors, given)
        del arguments["name"]
    bound = {"name": name, **arguments} if arguments else name
    return section if bound == choice else dataclasses.replace(section, **{key: bound})


def _check_checkpoint(teacher: Teacher, errors: list[str]) -> None:
    if teacher.checkpoint is not None and not Path(teacher.checkpoint).is_file():
        errors.append(f"teacher.checkpoint: no such file: {teacher.checkpoint}")
    for key in ("checkpoint_key", "class_names"):
        if teacher.checkpoint is None and getattr(teacher, key) is not None:
            errors.append(f"teacher.{key}: is about a file of weights, but teacher.checkpoint names none")


def _check_own_input(teacher: Teacher, dataset: DatasetConfig | None, errors: list[str]) -> None:
    for key in ("mean", "std"):
        if dataset is not None and (values := getattr(teacher, key)) is not None:
            with _collecting(errors):
                check_normalisation(f"teacher.{key}", values, dataset.channels)


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
        epochs = f"{recipe.warmup_epochs} of {recipe.epochs} epochs"
        logger.warning("%s.warmup_epochs: %s, so that the warm-up lasts to the end", key, epochs)
    if recipe.nesterov and recipe.momentum == 0:
        errors.append(f"{key}.nesterov: needs a momentum greater than 0")
    optimizer = recipe.optimizer if isinstance(recipe.optimizer, str) else recipe.optimizer.get("name")
    if recipe.nesterov and optimizer != "sgd":
        errors.append(f"{key}.nesterov: belongs to sgd, got {key}.optimizer={optimizer}")

"""A finished run's network, built again from its folder alone: neither training data nor a teacher is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltkd.config.identity import OWN_INPUT
from ltkd.errors import UserError
from ltkd.files import file_sha256, read_json
from ltkd.methods import MethodContext, Networks, build_method, method_class
from ltkd.models import build_model, load_weights
from ltkd.models.classifier import give_classifier
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result
from ltkd.results.result import Result
from ltkd.task_losses import build_task_loss

STARTING_POINT = ("checkpoint_path", "weights", "new_classifier")  # arguments about weights that training began with


@dataclass(frozen=True)
class FinishedRun:
    """A run's network in eval mode on the CPU, its settings (config.json) and its result (result.json)."""

    directory: Path
    model: nn.Module
    settings: dict[str, Any]
    result: Result
    architecture: dict[str, Any]  # as `build_network` takes it

    @property
    def network(self) -> dict[str, Any]:
        """The settings' section about the network: its name, arguments, task loss, recipe."""
        return self.settings[self.result["role"]]


def load_run(directory: Path) -> FinishedRun:
    """Reads a finished run's folder. UserError where it is none, is not finished, or has other weights than it says."""
    directory, files = Path(directory), RunFiles(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; a run's folder is what train.py names last")
    if not files.result.is_file():
        unfinished = files.config.is_file()
        hint = "the run has not finished; repeat its command" if unfinished else "a run's folder has one"
        raise UserError(f"{directory}: has no {files.result.name}; {hint}")
    result, settings = read_result(files.result), read_json(files.config)
    own_input_keys = [
        key for key in OWN_INPUT if result["role"] == "teacher" and settings["teacher"].get(key) is not None
    ]
    if own_input_keys:
        raise UserError(
            f"{directory}: the teacher was given images of its own {' and '.join(own_input_keys)}, "
            "which weights do not tell; its students can be loaded"
        )
    if file_sha256(files.weights) != result["weights_sha256"]:
        raise UserError(
            f"{files.weights}: not the weights that {files.result.name} speaks of; run it again in another study"
        )
    architecture = architecture_of(settings, result)
    model = build_network(architecture)
    load_weights(model, files.weights)
    return FinishedRun(directory, model.eval(), settings, result, architecture)


def architecture_of(settings: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """All that the network's layers and their shapes depend on, as plain values that JSON holds."""
    dataset, network = settings["dataset"], settings[result["role"]]
    architecture = {
        **_layers(network),
        "num_classes": dataset["num_classes"],
        "channels": dataset["channels"],
        "image_size": dataset["image_size"],
    }
    if result["role"] == "student" and not method_class(result["method"]).keeps_classifier:
        architecture |= {"method": settings["method"], "teacher": _layers(settings["teacher"])}
    return architecture


def _layers(network: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {key: value for key, value in network["arguments"].items() if key not in STARTING_POINT}
    layers = {"name": network["name"], "arguments": arguments, "task_loss": network["task_loss"]}
    classifier = network.get("classifier", "linear")  # which older runs do not say
    return layers if classifier == "linear" else layers | {"classifier": classifier}


def build_network(architecture: Mapping[str, Any]) -> nn.Module:
    """The untrained network in eval mode, with the layers that its task loss and its method gave it."""
    model = _build(architecture, architecture)
    if "method" not in architecture:
        return model
    teacher, num_classes = _build(architecture["teacher"], architecture), architecture["num_classes"]
    images = torch.zeros(2, architecture["channels"], architecture["image_size"], architecture["image_size"])
    with torch.no_grad():
        outputs = {"student": model(images, features=True), "teacher": teacher(images, features=True)}
    counts, groups = torch.ones(num_classes), torch.zeros(num_classes, dtype=torch.int64)
    networks = Networks(model, teacher, getattr(model, "classifier", None), getattr(teacher, "classifier", None))
    context = MethodContext(num_classes, counts, groups, ["all"], 1, 1, networks=networks, **outputs)
    settings = dict(architecture["method"])
    method = build_method(settings.pop("name"), settings, context, build_task_loss("ce", counts))
    return method.adapt_student(model).eval()


def _build(network: Mapping[str, Any], data: Mapping[str, Any]) -> nn.Module:
    num_classes = data["num_classes"]
    model = build_model(network["name"], num_classes, in_channels=data["channels"], **network["arguments"])
    give_classifier(model, network.get("classifier", "linear"))
    build_task_loss(network["task_loss"], torch.ones(num_classes)).adapt_network(model)
    return model.eval()

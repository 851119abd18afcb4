"""An audit of one network: its logits on the training and the test images, and the page that is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltkd.config.compose import compose_values
from ltkd.config.identity import dataset_label, student_run
from ltkd.config.load import load_config
from ltkd.data import LongTailData, build_augmentation, file_names, load_data
from ltkd.deploy import audit_figures, audit_page
from ltkd.deploy.data import data_of_run
from ltkd.deploy.description import Description, describe_run, shorter_side, tau_normalisation
from ltkd.deploy.export import all_logits
from ltkd.deploy.findings import Findings, find
from ltkd.deploy.judge import Judge, judge_of_run
from ltkd.deploy.open import DeployedNetwork, classify_with, open_network
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError
from ltkd.files import file_sha256, write_text
from ltkd.models import count_multiply_adds, count_parameters, load_weights
from ltkd.results.corrections import evened_out_by
from ltkd.runs.load import build_network, load_run

EXPORTED = (".safetensors", ".pt2", ".onnx")


@dataclass(frozen=True)
class Audited:
    """A network with the data that it is looked at with, and the names of its image files by part.

    `judge` is asked which training labels are suspicious. `trained_on` says what the groups and the training counts of
    the data's split are of.
    """

    place: Path
    network: DeployedNetwork
    judge: Judge
    data: LongTailData
    names: dict[str, Sequence[str]]
    trained_on: str


def audited_run(folder: Path, overrides: Sequence[str], device: torch.device) -> Audited:
    """A finished run with its own data. overrides: where the data lies now."""
    run = load_run(folder)
    data, root = data_of_run(run, overrides)
    # names of the data: runs of before they were recorded have numbers
    about = replace(describe_run(run), class_names=data.class_names)
    network = DeployedNetwork(about, classify_with(ServedNetwork(run.model, about).eval(), device))
    judge = judge_of_run(run, network, device)
    return Audited(folder, network, judge, data, file_names(data, root), trained_on="these training images")


def audited_weights(file: Path, overrides: Sequence[str], device: torch.device) -> Audited:
    """An exported file, or weights of a network that student=NAME names, with the data that dataset=... composes.

    An exported file says on how many images of each class it was trained, and its groups are of those, unless
    dataset.groups=... names others. Of other weights the data's counts and groups are taken, and what student=... and
    recipe=... say of their training.
    UserError where file and data do not have the same classes or images of the same size.
    """
    if not file.is_file():
        raise UserError(f"{file}: not there; name a run's folder or a file of weights")
    if not any(override.startswith("dataset=") for override in overrides):
        raise UserError("dataset: a file of weights does not say what to test it with; add dataset=...")
    foreign = any(override.startswith("student=") for override in overrides)
    if not foreign and file.suffix not in EXPORTED:
        raise UserError(f"student: {file} does not say what network it is of; add student=NAME")
    values = compose_values("method=ce", *overrides)
    config = load_config(values)
    student, dataset, root = config.student, config.dataset, Path(config.data_root)
    if not foreign:
        network = open_network(file, device)
        scaled_further = network.about.shorter_side != network.about.image_size
        data = load_data(dataset, root, resized_crops=scaled_further).decoded()
        _check_fits(network.about, data, file)
        own_groups = not any(override.lstrip("+").startswith("dataset.groups") for override in overrides)
        names, data = file_names(data, root), _with_training_of(network.about, data, own_groups)
        trained_on = f"{network.about.dataset}: {_counted(data.split.class_counts)}; may be other images than these"
        return Audited(file, network, _judge_of_file(network), data, names, trained_on)
    augmentation = build_augmentation(config.recipe_of(student).augmentation)
    data = load_data(dataset, root, resized_crops=augmentation.resized_crop is not None).decoded()
    layers = {"name": student.name, "arguments": student.arguments, "task_loss": student.task_loss}
    sizes = {key: getattr(dataset, key) for key in ("num_classes", "channels", "image_size")}
    model = build_network(layers | sizes)
    load_weights(model, file)
    about = Description(
        architecture=layers | sizes, dataset=dataset.name, method="from a file", class_names=data.class_names,
        class_counts=data.split.class_counts.tolist(), groups=data.split.groups.tolist(),
        group_names=data.split.group_names, image_size=dataset.image_size, channels=dataset.channels,
        shorter_side=shorter_side(augmentation, dataset.source, dataset.image_size), mean=dataset.mean, std=dataset.std,
        accuracy={}, tau=1.0, tau_chosen_by="default",
        evened_out_by=evened_out_by(student_run(config).identity), parameters=count_parameters(model),
        hash="", weights_sha256=file_sha256(file), licence="unknown",
        multiply_adds=count_multiply_adds(model, (dataset.channels, dataset.image_size, dataset.image_size)),
        tau_normalisation=tau_normalisation(model, {}),
    )  # fmt: skip
    network = DeployedNetwork(about, classify_with(ServedNetwork(model, about).eval(), device))
    trained_on = "not known; groups and training counts are this data's"
    return Audited(file, network, _judge_of_file(network), data, file_names(data, root), trained_on)


def _judge_of_file(network: DeployedNetwork) -> Judge:
    return Judge(network, from_file=True, no_teacher="a file of weights does not say where its teacher is")


def _with_training_of(about: Description, data: LongTailData, own_groups: bool) -> LongTailData:
    """The data with the class counts of the network's training and, with `own_groups`, the groups of it."""
    groups = {"groups": np.array(about.groups), "group_names": about.group_names} if own_groups else {}
    return replace(data, split=replace(data.split, class_counts=np.array(about.class_counts), **groups))


def _check_fits(about: Description, data: LongTailData, file: Path) -> None:
    if about.class_names != data.class_names:
        raise UserError(
            f"{file}: knows the classes {', '.join(about.class_names[:3])}, ... and the data has "
            f"{', '.join(data.class_names[:3])}, ...; they must be the same in the same order"
        )
    shape = data.test_images.shape[1:]
    if (about.channels, about.image_size, about.image_size) != shape:
        raise UserError(f"dataset.image_size: {file} takes {about.image_size} pixels a side, the data has {shape[2]}")


def write_audit(audited: Audited, output: Path) -> Findings:
    """Looks at all images and writes the page."""
    about, data, judge = audited.network.about, audited.data, audited.judge
    test_logits = all_logits(audited.network.classify, data.test_images)
    opinions = all_logits(judge.network.classify, data.train_images)
    findings = find(about, data, test_logits, judge.network.about, opinions)
    drawn = audit_figures.draw(findings, data)
    title = f"Audit of {about.architecture['name']} on {dataset_label(data.config)}"
    page = audit_page.html(title, about, findings, drawn, data, audited.names, _facts(audited), judge)
    write_text(output, page)
    return findings


def _facts(audited: Audited) -> dict[str, Any]:
    about, data = audited.network.about, audited.data
    return {
        "network": f"{about.architecture['name']}, {about.parameters:,} parameters, "
        f"{about.multiply_adds / 1e6:,.1f} M multiply-adds",
        "from": str(audited.place),
        "method": about.method,
        "trained on": audited.trained_on,
        "data": f"{dataset_label(data.config)}: {len(data.class_names)} classes, "
        f"{_counted(np.bincount(data.train_labels))}, {len(data.test_labels)} test images",
        "weights": f"SHA-256 {about.weights_sha256[:16]}",
        "licence": about.licence,
    }


def _counted(counts: np.ndarray) -> str:
    return f"{counts.sum()} training images ({counts.max()} to {counts.min()} a class)"

"""Everything that a user of a network must know beside its weights: stored in every exported file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltkd.data import build_augmentation
from ltkd.data.augmentation import Augmentation
from ltkd.data.sources import PACK, reader
from ltkd.errors import UserError
from ltkd.results.corrections import evened_out_by
from ltkd.runs.load import FinishedRun

FORMAT = 2  # of the description; raised when a field changes its meaning or goes
KEY = "ltkd"  # of the description in a file's own metadata


@dataclass(frozen=True)
class Description:
    """A network's classes, its input, its figures and where it is from. C classes; figures are in percent."""

    architecture: dict[str, Any]  # what runs.load.build_network takes
    dataset: str
    method: str
    class_names: list[str]  # [C], in the order of the logits
    class_counts: list[int]  # [C] training images
    groups: list[int]  # [C] positions in group_names
    group_names: list[str]
    image_size: int  # pixels a side
    shorter_side: int  # pixels to which the shorter side is scaled, before the centre is cut out
    channels: int
    mean: list[float]  # per channel, of pixel values in 0 .. 1
    std: list[float]
    accuracy: dict[str, Any]  # all, per_group: on the test part after the last epoch
    tau: float  # of post-hoc logit adjustment
    tau_chosen_by: str  # validation (images), setting, or default: theory's 1
    tau_normalisation: dict[str, Any] | None  # tau, chosen_by, norms [C], biases [C] of a linear classifier
    evened_out_by: str | None  # the setting of the training that did already what the adjustment would do
    parameters: int
    multiply_adds: int
    hash: str  # of the run
    weights_sha256: str  # of the run's file of weights
    licence: str
    format: int = FORMAT

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def group_of(self, label: int) -> str:
        return self.group_names[self.groups[label]]

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


def describe_run(run: FinishedRun) -> Description:
    """The description of a finished run's network."""
    result, dataset = run.result, run.settings["dataset"]
    last = result["accuracy"]["last"]
    corrected: dict[str, dict[str, Any]] = {kind: value or {} for kind, value in (result.get("post_hoc") or {}).items()}
    adjusted, normalised = (corrected.get(kind, {}) for kind in ("logit_adjusted", "tau_normalized"))
    # runs of before names were recorded
    names = result.get("class_names") or [str(label) for label in range(dataset["num_classes"])]
    return Description(
        architecture=run.architecture, dataset=result["dataset"], method=result["method"], class_names=names,
        class_counts=result["class_counts"], groups=result["groups"], group_names=result["group_names"],
        image_size=dataset["image_size"],
        shorter_side=shorter_side(augmentation_of(run), dataset["source"], dataset["image_size"]),
        channels=dataset["channels"], mean=dataset["mean"], std=dataset["std"],
        accuracy={"all": last["all"], "per_group": last["per_group"]}, tau=adjusted.get("tau", 1.0),
        evened_out_by=evened_out_by(result["identity"]),
        parameters=result["parameters"], multiply_adds=result["multiply_adds"], hash=result["hash"],
        weights_sha256=result["weights_sha256"], licence=_licence(run),
        tau_chosen_by=adjusted.get("chosen_by", "default"), tau_normalisation=tau_normalisation(run.model, normalised),
    )  # fmt: skip


def tau_normalisation(model: nn.Module, chosen: Mapping[str, Any]) -> dict[str, Any] | None:
    """All that normalising a linear classifier takes; None for another. chosen: tau and chosen_by, {} where none is."""
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        return None
    weight, bias = classifier.weight.detach().float().cpu(), classifier.bias
    biases = torch.zeros(len(weight)) if bias is None else bias.detach().float().cpu()
    return {
        "tau": chosen.get("tau", 1.0),
        "chosen_by": chosen.get("chosen_by", "default"),
        "norms": torch.linalg.vector_norm(weight, dim=1).tolist(),
        "biases": biases.tolist(),
    }


def augmentation_of(run: FinishedRun) -> Augmentation:
    """The augmentation of the run's training, which also says how images are scaled in evaluation."""
    recipe = run.settings["recipe"] | run.network["recipe"]
    return build_augmentation(recipe.get("augmentation", "crop_flip"))


def shorter_side(augmentation: Augmentation, source: str, image_size: int) -> int:
    """Pixels to which the shorter side is scaled in evaluation: of whole files, those of the training's crops.

    Images that have `image_size` already, of a pack or of CIFAR's arrays, are evaluated as they are.
    """
    whole_files = source != PACK and "path" in reader(source).settings
    return augmentation.shorter_side(image_size) if whole_files else image_size


def _licence(run: FinishedRun) -> str:
    begun_with = run.network["pretrained"] or any(key in run.network["arguments"] for key in ("weights", "file"))
    sources = [f"the images of {run.result['dataset']}", *["the weights it started from"] * bool(begun_with)]
    if run.result.get("teacher_result"):
        sources.append(f"its teacher {run.result['teacher']}")
    return (
        f"The MIT licence of ltkd covers its code. These weights come from {', '.join(sources)}: their terms decide "
        "what the weights may be used for."
    )


def read_description(text: str | None, path: Path) -> Description:
    """The description in a file's metadata. UserError, naming the file, where there is none that this version reads."""
    try:
        values = json.loads(text or "")
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise ValueError("another format")
        return Description(**{field.name: values[field.name] for field in fields(Description)})
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path}: does not say what its classes are; python scripts/export.py RUN writes files that do"
        ) from error

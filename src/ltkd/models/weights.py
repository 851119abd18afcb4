"""Weights of a network on disk: written as safetensors, read from our own files and from those of the field."""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from ltkd.errors import UserError
from ltkd.files import write_bytes
from ltkd.models.adapter import AdaptedModel
from ltkd.models.layer_names import own_name
from ltkd.models.weight_files import read_tensors

logger = logging.getLogger(__name__)

WRAPPERS = {"module", "_orig_mod"}  # DataParallel and torch.compile, which wrap a whole network
AVERAGED = re.compile(r"(^|[._])(ema|averaged?|avg|swa|shadow)([._]|$)", re.IGNORECASE)
NOT_USED = "num_batches_tracked"  # only counts; files from before it existed lack it


def save_weights(model: nn.Module, path: str | os.PathLike, metadata: dict[str, str] | None = None) -> None:
    """Write all parameters and buffers as safetensors, whole or not at all, also if the machine stops in the middle.

    A timm or torchvision network is written under the library's own names, so that the file can be used without this
    project.
    """
    # separate copies: safetensors refuses tensors that share memory (tied weights), and wants them contiguous
    tensors = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in _network(model).state_dict().items()}
    write_bytes(Path(path), safetensors_torch.save(tensors, metadata))


def load_weights(model: nn.Module, path: str | os.PathLike, *, key: str | None = None) -> dict[str, str]:
    """Fill `model` from a file of weights and return the file's metadata (empty but for safetensors).

    The file is safetensors or was written by torch.save: then it is read without running pickled code. It may be a
    whole checkpoint. The set of tensors that fits the model is looked for in all its dictionaries and behind every
    prefix of names (those of DataParallel, torch.compile, Lightning, mdistiller's distillers); layer names of
    RepDistiller and mdistiller are translated, and num_batches_tracked may be missing.

    `key` says which set, where several fit: the dictionary's key, with the prefix behind a dot (state_dict_ema,
    model.student). Without it the only set that is no average (EMA, SWA) is taken, with a warning that names all.

    UserError names the file and what is wrong: unreadable, names and shapes that differ, or several sets. The model is
    then unchanged.
    """
    path = Path(path)
    dictionaries, metadata = read_tensors(path)
    network = _network(model)
    candidates = [
        weight_set for name, tensors in dictionaries.items() for weight_set in _weight_sets(network, name, tensors)
    ]
    if key is not None:
        matching = [
            weight_set for weight_set in candidates if weight_set.label == key or weight_set.label.startswith(f"{key}.")
        ]
        if not matching:
            raise UserError(f"{path}: has no weights under {key!r}; it has: {_labels(_fitting(network, candidates))}")
        candidates = matching
    fitting = _fitting(network, candidates)
    if not fitting:
        _explain_misfit(model, max(candidates, key=lambda weight_set: weight_set.score(network)), path)
    chosen = fitting[0] if len(fitting) == 1 else _choose(fitting, path)
    current = network.state_dict()
    network.load_state_dict({name: chosen.tensors.get(name, current[name]) for name in current})
    return metadata


@dataclass(frozen=True)
class WeightSet:
    """Tensors of a file that may be a network's: a dictionary, or what stands behind a prefix of its names."""

    label: str  # keys and prefix, without the wrappers; "" for the whole file
    tensors: dict[str, Tensor]  # under our own names

    def fits(self, expected: dict[str, Tensor]) -> bool:
        missing = [name for name in expected.keys() - self.tensors.keys() if not name.endswith(NOT_USED)]
        return not missing and all(
            name in expected and tensor.shape == expected[name].shape for name, tensor in self.tensors.items()
        )

    def score(self, network: nn.Module) -> tuple[int, int]:
        return len(self.tensors.keys() & network.state_dict().keys()), len(self.tensors)


def _network(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, AdaptedModel) else model


def _weight_sets(network: nn.Module, label: str, tensors: dict[str, Tensor]) -> Iterator[WeightSet]:
    """The tensors themselves, and for every prefix of their names those behind it."""
    translated = {own_name(network, name): tensor for name, tensor in tensors.items()}
    yield WeightSet(label, translated if len(translated) == len(tensors) else tensors)
    behind: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, dot, rest = name.partition(".")
        if dot:
            behind.setdefault(prefix, {})[rest] = tensor
    for prefix, rest in behind.items():
        parts = [label] if prefix in WRAPPERS else [label, prefix]
        yield from _weight_sets(network, ".".join(filter(None, parts)), rest)


def _fitting(network: nn.Module, candidates: list[WeightSet]) -> list[WeightSet]:
    expected = network.state_dict()
    return [weight_set for weight_set in candidates if weight_set.fits(expected)]


def _choose(fitting: list[WeightSet], path: Path) -> WeightSet:
    """The one set that is no average of others, with a warning; UserError where there are several."""
    plain = [weight_set for weight_set in fitting if not AVERAGED.search(weight_set.label)]
    labels = _labels(fitting)
    if len(plain) != 1:
        raise UserError(f"{path}: has several sets of weights that fit: {labels}; choose with teacher.checkpoint_key")
    logger.warning(
        "%s: has several sets of weights that fit: %s; %s is taken (teacher.checkpoint_key chooses)",
        path,
        labels,
        _labels(plain),
    )
    return plain[0]


def _labels(sets: list[WeightSet]) -> str:
    return ", ".join(weight_set.label or "those at its top" for weight_set in sets) or "none that fit the model"


def _explain_misfit(model: nn.Module, closest: WeightSet, path: Path) -> None:
    """Raise the UserError that says how the file's closest set differs from the model."""
    expected, tensors = _network(model).state_dict(), closest.tensors
    problems = []
    lacking = {name for name in expected.keys() - tensors.keys() if not name.endswith(NOT_USED)}
    for what, names in (("lacks", lacking), ("has unknown", tensors.keys() - expected.keys())):
        if names:
            problems.append(f"{what} {_shorten(sorted(names))}")
    shapes = [
        f"{name} is {list(tensors[name].shape)}, the model's is {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(_shorten(shapes))
    where = f"{path} ({closest.label})" if closest.label else str(path)
    raise UserError(f"{where}: does not fit the model: {_class_difference(model, tensors)}{'; '.join(problems)}")


def _class_difference(model: nn.Module, tensors: dict[str, Tensor]) -> str:
    """The most frequent mistake in plain words: weights of another data set."""
    classifier = getattr(model, "classifier", None)
    for name, parameter in _network(model).named_parameters():
        if classifier is not None and parameter is classifier.weight and name in tensors:
            in_file, wanted = len(tensors[name]), len(parameter)
            if in_file != wanted:
                return f"its classifier has {in_file} classes, but the data has {wanted}; "
    return ""


def _shorten(items: list[str]) -> str:
    rest = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(items[:3]) + rest

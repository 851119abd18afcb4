"""Weights on disk: our own files are safetensors; .pt and .pth of others are read without ever running pickled code."""

import os
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from ltkd.errors import UserError
from ltkd.files import write_bytes
from ltkd.models.adapter import AdaptedModel


def save_weights(model: nn.Module, path: str | os.PathLike, metadata: dict[str, str] | None = None) -> None:
    """Write all parameters and buffers as safetensors, whole or not at all, also if the machine stops in the middle.

    A timm or torchvision network is written under the library's own names, so that the file can be used without this
    project.
    """
    # separate copies: safetensors refuses tensors that share memory (tied weights), and wants them contiguous
    tensors = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in _network(model).state_dict().items()}
    write_bytes(Path(path), safetensors_torch.save(tensors, metadata))


def load_weights(model: nn.Module, path: str | os.PathLike) -> dict[str, str]:
    """Fill `model` from a .safetensors, .pt or .pth file and return the file's metadata (empty for .pt and .pth).

    A .pt or .pth file holds a state dict, alone or under "state_dict" or "model"; a "module." before every name is
    dropped. UserError names the file and what is wrong: unreadable, or names and shapes that differ. The model is then
    unchanged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    elif path.suffix in {".pt", ".pth"}:
        tensors, metadata = _read_pickled(path), {}
    else:
        raise UserError(f"{path}: unknown kind of weights {path.suffix!r}; choose one of: .pt, .pth, .safetensors")
    if tensors and all(name.startswith("module.") for name in tensors):  # written from inside DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    _check_fit(model, tensors, path)
    _network(model).load_state_dict(tensors)
    return metadata


def _network(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, AdaptedModel) else model


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({error})") from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, for it is damaged or holds more than tensors (such code is never run)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a complete file of weights ({error})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: holds no state dict, neither directly nor under 'state_dict' or 'model'")
    return content


def _check_fit(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    expected = _network(model).state_dict()
    problems = []
    for what, names in (("lacks", expected.keys() - tensors.keys()), ("has unknown", tensors.keys() - expected.keys())):
        if names:
            problems.append(f"{what} {_shorten(sorted(names))}")
    shapes = [
        f"{name} is {list(tensors[name].shape)}, the model's is {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(_shorten(shapes))
    if problems:
        raise UserError(f"{path}: does not fit the model: {_class_difference(model, tensors)}{'; '.join(problems)}")


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

"""Weights that a network of timm or torchvision starts from, for the identity of its run."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ltkd.errors import UserError
from ltkd.files import file_sha256
from ltkd.models.adapter import LIBRARIES

HINT = "write {file: PATH} instead of {url: file://PATH}"
FILES = ("checkpoint_path", "file")  # timm: an argument of create_model, and a key of pretrained_cfg and its overlay


def starting_weights(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the files that `arguments` name, by argument; of published weights their tag and the library's
    version. Empty for a network that starts at random.

    UserError names a file that cannot be read.
    """
    weights = {key: file_sha256(Path(path).expanduser()) for key, path in _files(arguments, "")}
    library, _, inner = name.partition("/")
    if library in LIBRARIES and (pretrained or arguments.get("weights") is not None):
        weights["library"] = f"{library} {version(library)}"
        weights["published"] = _published(library, inner) if arguments.get("weights") is None else "as named"
    return weights


def _files(arguments: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _files(value, f"{prefix}{key}.")
        elif key in FILES and isinstance(value, str) and value:
            yield prefix + key, value
        elif key == "url" and str(value).startswith("file:"):
            raise UserError(f"{prefix}url: names a file, of which torch would keep and go on using a copy; {HINT}")


def _published(library: str, name: str) -> str:
    """The weights that a plain name stands for in the installed version of the library."""
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(name)
        return "none" if config is None else f"{name.partition('.')[0]}.{config.tag or ''}"
    from torchvision import models

    return str(models.get_model_weights(name).DEFAULT)

"""Files of tensors: safetensors and what torch.save wrote, read without ever running pickled code."""

import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ltkd.errors import UserError

PICKLED = ("", ".bin", ".ckpt", ".pt", ".pth", ".tar")  # mdistiller writes files without a suffix
SAFETENSORS = ".safetensors"

# Text that a failed download leaves behind, by its beginning.
_TEXTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to; `git lfs pull` fetches that"),
    (b"<!doctype html", "a web page (HTML), not weights; the download answered with a page, get the file itself"),
    (b"<html", "a web page (HTML), not weights; the download answered with a page, get the file itself"),
    (b"<?xml", "an XML text, not weights; the download answered with a message, get the file itself"),
    (b"{", "a JSON text, not weights; the download answered with a message, get the file itself"),
    (b"/annex/objects/", "a git-annex pointer, not the file that it points to; `git annex get` fetches that"),
)
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
}
_READ = 512  # bytes of the beginning


class _Ignored:
    """Stands for an object of a checkpoint that is no tensor: it takes whatever it is given and keeps nothing."""

    def __new__(cls, *arguments: Any, **options: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


# Settings and numbers that training programs put beside the weights. Their classes are never imported or called.
_IGNORED_NAMES = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "collections.defaultdict",
    "datetime.datetime",
    "datetime.timedelta",
    "types.SimpleNamespace",
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


def read_tensors(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Every dictionary of tensors in a file, by the keys that lead to it, joined by dots; and the file's metadata.

    A plain state dict stands under "", one that a training program wrote for example under "state_dict" or "model".
    Metadata is empty but for safetensors. UserError names the file and says what it is instead.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    if path.suffix != SAFETENSORS and path.suffix not in PICKLED:
        kinds = ", ".join([*filter(None, PICKLED), SAFETENSORS])
        raise UserError(f"{path}: unknown kind of weights {path.suffix!r}; choose one of: {kinds}")
    if _is_safetensors(path, _beginning_of_weights(path)):
        tensors, metadata = _read_safetensors(path)
        return {"": tensors}, metadata
    return _read_pickled(path), {}


def _is_safetensors(path: Path, start: bytes) -> bool:
    """True by the content, whatever the suffix; of what begins as neither kind does, the suffix tells what it was."""
    return start[8:10] == b'{"' or (path.suffix == SAFETENSORS and not start.startswith((b"PK", b"\x80")))


def _beginning_of_weights(path: Path) -> bytes:
    """The first bytes. UserError for a file that by them is something else than weights."""
    try:
        with open(path, "rb") as file:
            start = file.read(_READ)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise UserError(f"{path}: is an empty file; get it again")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in _TEXTS:
        if text.startswith(beginning):
            raise UserError(f"{path}: is {what}")
    for beginning, kind in _ARCHIVES.items():
        if start.startswith(beginning):
            raise UserError(f"{path}: is a {kind} archive; unpack it first")
    if _is_archive_of_files(path):
        raise UserError(f"{path}: is an archive of files, not what torch.save writes; unpack it first")
    if words := _as_text(start):
        raise UserError(f"{path}: is a text, not weights: {words!r}; get the file itself")
    return start


def _is_archive_of_files(path: Path) -> bool:
    """True of a zip or tar archive without the names that torch.save gives its parts, in any of its formats."""
    if path.stat().st_size >= tarfile.BLOCKSIZE and tarfile.is_tarfile(path):  # first: one may end with a zip archive
        with tarfile.open(path) as archive:
            return "pickle" not in archive.getnames()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            raise UserError(f"{path}: is a TorchScript program, which is code; save network.state_dict() instead")
        return "data.pkl" not in names
    return False


def _as_text(start: bytes) -> str:
    """The first words of a file that begins as a text; "" of any other."""
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = start.decode(encoding, errors="strict" if len(start) < _READ else "ignore")
    except UnicodeDecodeError:
        return ""
    words = text.removeprefix("\ufeff").split()
    return " ".join(words)[:60] if all(word.isprintable() for word in words) else ""


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(8)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        cut = len(header) < 8 or 8 + struct.unpack("<Q", header)[0] > size or "incomplete" in str(error).lower()
        why = "it is cut off, or something else" if cut else str(error)
        raise UserError(f"{path}: not a complete safetensors file ({why})") from error


def _read_pickled(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        # the file and not its path, by whose suffix torch may take it for another kind
        ignored = torch.serialization.safe_globals([(_Ignored, name) for name in _IGNORED_NAMES])
        with open(path, "rb") as file, ignored:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        _, marker, rest = str(error).partition("GLOBAL ")
        held = f"{rest.split()[0]}, which is no tensor" if marker and rest.split() else "more than tensors"
        raise UserError(
            f"{path}: refused, for it is damaged or holds {held} (such code is never run); "
            "a file that holds only network.state_dict() can be read"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AssertionError) as error:
        why = "it is cut off: get it again" if _is_cut_off(path) else str(error) or "it is cut off: get it again"
        raise UserError(f"{path}: not a complete file of weights ({why})") from error
    dictionaries = dict(_dictionaries(content, ""))
    if not dictionaries:
        raise UserError(f"{path}: holds no state dict (a dictionary from names to tensors)")
    return dictionaries


def _is_cut_off(path: Path) -> bool:
    """True of the beginning of a zip archive, which is what torch.save writes, without its end."""
    with open(path, "rb") as file:
        begins = file.read(2) == b"PK"
    return begins and not zipfile.is_zipfile(path)


def _dictionaries(content: Any, key: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, dict):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield key, tensors
    for name, value in named.items():
        yield from _dictionaries(value, f"{key}.{name}" if key else name)

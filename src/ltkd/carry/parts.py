"""Stores files as a compressed tar in numbered parts of a limited size, with a list of the parts and their checksums.

FOLDER/runs.001 .002 ...    the parts, which joined are one .tar.gz
FOLDER/runs.json            {"version": 1, "parts": [{"name", "bytes", "sha256"}, ...]}, written last
"""

import gzip
import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ltkd.errors import UserError
from ltkd.files import file_sha256, read_json, write_bytes, write_json

LIST = "runs.json"
VERSION = 1
COMPRESSION = 1  # text shrinks to a tenth all the same, and weights hardly at any level


class PartWriter:
    """A file to write to that is cut into parts of at most `size` bytes."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.parts: list[dict[str, str | int]] = []
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        self._buffer += data
        while len(self._buffer) > self.size:
            self._write_part()
        return len(data)

    def finish(self) -> None:
        """Write the last part, then the list."""
        while self._buffer:
            self._write_part()
        write_json(self.folder / LIST, {"version": VERSION, "parts": self.parts})

    def _write_part(self) -> None:
        content = bytes(self._buffer[: self.size])
        del self._buffer[: self.size]
        name = f"runs.{len(self.parts) + 1:03}"
        write_bytes(self.folder / name, content)
        self.parts.append({"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})


@contextmanager
def tar_in_parts(folder: Path, size: int) -> Iterator[tarfile.TarFile]:
    """A tar file to add to, written as parts of at most `size` bytes below `folder`, which must have none yet.

    The list of parts is written when the block has ended well: without it nothing can be read.
    """
    if folder.exists() and any(folder.glob("runs.*")):
        raise UserError(f"{folder}: has parts of an earlier export; choose a new folder")
    writer = PartWriter(folder, size)
    with (
        gzip.GzipFile(fileobj=writer, mode="wb", compresslevel=COMPRESSION) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as tar,
    ):
        yield tar
    writer.finish()


class PartReader:
    """The parts as one file to read from."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = iter(paths)
        self._file: BinaryIO | None = None

    def read(self, size: int) -> bytes:
        while True:
            if self._file is None:
                path = next(self._paths, None)
                if path is None:
                    return b""
                self._file = open(path, "rb")  # noqa: SIM115  closed where it ends
            if data := self._file.read(size):
                return data
            self._file.close()
            self._file = None


def checked_parts(folder: Path) -> list[Path]:
    """Return the paths of all parts. UserError, naming it, when the list or a part is missing or damaged."""
    about = read_json(folder / LIST)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise UserError(f"{folder / LIST}: not a list of parts of version {VERSION}")
    paths = [folder / part["name"] for part in about["parts"]]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise UserError(f"{folder}: of {len(paths)} parts lacks {', '.join(absent)}; nothing was imported")
    for path, part in zip(paths, about["parts"], strict=True):
        if path.stat().st_size != part["bytes"] or file_sha256(path) != part["sha256"]:
            raise UserError(f"{path}: damaged (its size or checksum differs); copy it again; nothing was imported")
    return paths


def extract_parts(folder: Path, target: Path) -> None:
    """Unpack checked parts below `target`."""
    with tarfile.open(fileobj=PartReader(checked_parts(folder)), mode="r|gz") as tar:
        tar.extractall(target, filter="data")  # nothing outside of the target, whatever the names in it

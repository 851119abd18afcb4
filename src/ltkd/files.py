"""Writing files so that a reader finds the old one or the new one, never half of one; and their checksums."""

import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ltkd.errors import UserError

PARTIAL = ".partial"


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well and vanishes when it does not.

    Raises UserError, naming the path, when the folder cannot be written or the disk is full: `path` is then as before.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); the old one is kept") from error


@contextmanager
def atomic_text_writer(path: Path) -> Iterator[TextIO]:
    """`atomic_writer` for text in UTF-8, line ends as they are written."""
    with atomic_writer(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.flush()
        text.detach()


def remove_partial_files(folder: Path) -> None:
    """Removes what killed writers left behind; for the folder's only writer, who holds its lock."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_writer(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; NaN is refused, since other readers would not take the file."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError, naming the file, when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged, no valid JSON ({error}); delete it to have it made again") from error


def file_sha256(path: Path) -> str:
    """Raises UserError, naming the file, when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error

"""The file of an unfinished training's state, written atomically, checksummed, read without pickled code."""

import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ltkd.errors import UserError
from ltkd.files import atomic_writer

MAGIC = b"ltkd-checkpoint-1 "
SHARE_OF_THE_TIME = 0.02  # that saving may take, at most


class SavePace:
    """Says when a state is worth saving again, so that saving takes a small share of the time whatever the disk.

    Short epochs are then saved now and then, long ones each. What a kill costs is the training since the last save.
    """

    def __init__(self) -> None:
        self.next_save = 0.0

    def is_due(self) -> bool:
        return time.monotonic() >= self.next_save

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time the save in the block, which says when the next one is due."""
        start = time.monotonic()
        yield
        end = time.monotonic()
        self.next_save = end + (end - start) * (1 / SHARE_OF_THE_TIME - 1)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, containers of them) as a line with the SHA-256, then torch's format."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    with atomic_writer(path) as file:
        file.write(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state in `path`. Raises UserError, naming the file, when it is truncated, changed or no checkpoint."""
    try:
        header, _, payload = Path(path).read_bytes().partition(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not header.startswith(MAGIC) or header[len(MAGIC) :] != hashlib.sha256(payload).hexdigest().encode():
        raise UserError(f"{path}: damaged (its checksum differs); delete it to start this training from the beginning")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)

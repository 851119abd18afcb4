"""Keeps a teacher's logits on disk, one file for every view of every training image, shared by all processes.

A record is an entry's logits and a checksum of them and of its place. An entry is there when the two agree: that is the
whole protocol. A killed writer leaves a record that does not agree, a damaged one is computed again, and two processes
that compute the same entry write the same bytes, so that nothing needs a lock. The file is sparse: it takes the disk
space of the entries that are there. It is written by plain writes, which fail where a full disk would kill a process
that writes to mapped memory, and read through a memory map.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ltkd.errors import UserError
from ltkd.files import read_json, write_json

ABOUT = "about.json"
ENTRIES = "logits.bin"
VERSION = 1


class TeacherCache:
    """Logits [C] of the entries 0 .. num_entries - 1, stored as `dtype` (float32 or float16).

    about: all that the logits depend on; it names the folder below `directory`. UserError when that cannot be written.
    """

    def __init__(
        self, directory: Path, about: dict[str, Any], *, num_entries: int, num_classes: int, dtype: str
    ) -> None:
        self._record = record_type(num_classes, dtype)
        self._factors = _random_factors(self._record["logits"].itemsize // 2)
        about = about | {"version": VERSION, "num_entries": num_entries, "num_classes": num_classes, "dtype": dtype}
        self.folder = Path(directory) / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self.num_entries = num_entries
        if not (self.folder / ABOUT).exists():
            write_json(self.folder / ABOUT, about | {"complete": False})
        size = num_entries * self._record.itemsize
        try:
            (self.folder / ENTRIES).touch()
            self._file = open(self.folder / ENTRIES, "r+b", buffering=0)  # noqa: SIM115  as long as the cache
            if self._file.seek(0, os.SEEK_END) != size:  # new, or cut off: the rest is holes, which are no entries
                self._file.truncate(size)
            self._records = np.memmap(self.folder / ENTRIES, self._record, "r", shape=(num_entries,))
        except OSError as error:
            raise UserError(f"{self.folder / ENTRIES}: cannot be written ({error.strerror})") from error

    @property
    def num_bytes(self) -> int:
        """Size of all logits."""
        return self.num_entries * self._record["logits"].itemsize

    @property
    def is_complete(self) -> bool:
        """True once every entry was there; even then `read` trusts none that does not agree with its checksum."""
        return read_json(self.folder / ABOUT)["complete"]  # another process may have filled it

    def mark_complete(self) -> None:
        write_json(self.folder / ABOUT, read_json(self.folder / ABOUT) | {"complete": True})

    def read(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the entries [K] as (logits [K, C], which are there [K]); the logits of the others mean nothing."""
        records = self._records[entries]
        return records["logits"], records["checksum"] == self._checksum(entries, records["logits"])

    def write(self, entries: np.ndarray, logits: np.ndarray) -> None:
        """Store logits [K, C] of the entries [K]. OSError when the disk is full; what was written before it stands."""
        records = np.empty(len(entries), self._record)
        records["logits"] = logits
        records["checksum"] = self._checksum(entries, records["logits"])
        neighbours = np.split(np.arange(len(entries)), np.flatnonzero(np.diff(entries) != 1) + 1)
        for positions in neighbours if len(entries) else ():  # those that stand together in the file in one write
            block = records[positions[0] : positions[-1] + 1]
            self._file.seek(int(entries[positions[0]]) * self._record.itemsize)  # not pwrite, which Windows lacks
            self._file.write(block.tobytes())

    def _checksum(self, entries: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Hash each row and its place to a uint64 [K], multilinear, vectorised; never 0, so that a hole is no entry."""
        halves = np.ascontiguousarray(logits).view(np.uint16)
        place = entries.astype(np.uint64) * self._factors[-1]
        return np.einsum("ij,j->i", halves, self._factors[:-1]) + place | np.uint64(1)  # without a table of products


def record_type(num_classes: int, dtype: str) -> np.dtype:
    """The bytes of one entry on disk."""
    return np.dtype([("logits", f"<f{np.dtype(dtype).itemsize}", (num_classes,)), ("checksum", "<u8")])


def _random_factors(number: int) -> np.ndarray:
    """Fixed odd 64-bit factors, one for each 16 bits of a row and one for its place."""
    return np.random.default_rng(0).integers(0, 2**64, number + 1, dtype=np.uint64) | np.uint64(1)

"""Image files as an array that is decoded when rows of it are taken, and kept decoded beside the data."""

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from ltkd.data.decoding import BadImage, decode
from ltkd.errors import UserError
from ltkd.files import PARTIAL, file_sha256, remove_partial_files, write_json, write_text
from ltkd.machine import num_cores

_log = logging.getLogger(__name__)

DECODED = ".ltkd-decoded"  # folder beside the data
_FORMAT = 1  # of the decoded files, and of the way in which images are decoded
_NAMED = 3  # files in a message
_MANY = 1000  # files: worth a decoded file
_LARGE = 2**28  # bytes of pixels: too


@dataclass(frozen=True)
class ImageFiles:
    """Files below `root`, in order; the pixels of row i are those of `paths[i]`, uint8 [channels, size, size]."""

    root: Path
    paths: Sequence[str]  # relative to root
    names: Sequence[str]  # what an image is called in lists and hashes, the same wherever the data lies
    channels: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.channels, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "ImageFiles":
        """The files of some rows."""
        paths, names = [self.paths[row] for row in rows], [self.names[row] for row in rows]
        return ImageFiles(self.root, paths, names, self.channels, self.size)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    @property
    def names_sha256(self) -> str:
        """SHA-256 of the names, joined by newlines."""
        return hashlib.sha256(b"\n".join(map(os.fsencode, self.names))).hexdigest()

    def bytes_sha256(self) -> str:
        """SHA-256 of the files' paths and bytes, in their order. UserError where a file is not there.

        Of many files it is kept beside the decoded images, and read from there while sizes and times stay.
        """
        stats = self._stats()
        kept = self._decoded_file(stats).with_suffix(".sha256")
        with contextlib.suppress(OSError):
            if len(text := kept.read_text(errors="replace")) == hashlib.sha256().digest_size * 2:
                return text
        with ThreadPoolExecutor(num_cores()) as pool:
            hashes = list(pool.map(file_sha256, (self.root / path for path in self.paths)))
        digest = hashlib.sha256()
        for path, sha256 in zip(self.paths, hashes, strict=True):
            digest.update(os.fsencode(path) + f"\n{sha256}\n".encode())
        if len(self) >= _MANY:
            with contextlib.suppress(UserError):  # where nothing can be written it is computed again
                write_text(kept, digest.hexdigest())
        return digest.hexdigest()

    def load(self, *, skip_bad: bool = False) -> tuple[np.ndarray, dict[int, str]]:
        """Pixels uint8 [N, C, H, W] of all files, decoded in parallel or mapped from an earlier run's decoded file.

        The second value is the reason for each row that could not be decoded, whose pixels are 0. UserError that
        counts and names such files, unless `skip_bad`; a file that is not there is always an error.
        """
        stats = self._stats()
        if len(self) < _MANY and self.nbytes < _LARGE:
            pixels = np.zeros(self.shape, np.uint8)
            bad = self._decode(pixels)
        else:
            kept = self._decoded_file(stats)
            pixels, bad = self._mapped(kept)
            if pixels is None:
                pixels, bad = self._decode_and_keep(kept)
        if bad and not skip_bad:
            hint = "mend or remove them, or set dataset.on_bad_image=skip"
            raise UserError(f"{self._named(bad)} cannot be decoded; {hint}")
        return pixels, bad

    def _stats(self) -> list[tuple[int, int]]:
        stats, missing = [], {}
        for row, path in enumerate(self.paths):
            try:
                stat = os.stat(self.root / path)
                stats.append((stat.st_size, stat.st_mtime_ns))
            except OSError as error:
                missing[row] = error.strerror or type(error).__name__
        if missing:
            raise UserError(f"{self._named(missing)} cannot be read; check dataset.path ({self.root}) and the lists")
        return stats

    def _named(self, reasons: dict[int, str]) -> str:
        """The first files with their reasons, and how many others."""
        first = [f"{self.root / self.paths[row]} ({reasons[row]})" for row in list(reasons)[:_NAMED]]
        more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        return f"{len(reasons)} of {len(self)} image files: {', '.join(first)}{more}"

    def _decode(self, pixels: np.ndarray) -> dict[int, str]:
        """Fills `pixels`, which are 0; the reason for each row where that is not possible."""
        from tqdm import tqdm

        def decode_row(row: int) -> str | None:
            try:
                pixels[row] = decode(self.root / self.paths[row], channels=self.channels, size=self.size)
            except BadImage as error:
                return str(error)
            return None

        # Pillow decodes without Python's lock; it warns of odd metadata, where only an error matters.
        with ThreadPoolExecutor(num_cores()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reasons = pool.map(decode_row, range(len(self)))
            # A bar on a terminal only.
            reasons = tqdm(reasons, total=len(self), desc="decoding", unit="image", leave=False, disable=None)
            return {row: reason for row, reason in enumerate(reasons) if reason is not None}

    def _decode_and_keep(self, path: Path) -> tuple[np.ndarray, dict[int, str]]:
        """Decodes straight into the file, so that memory stays small; into memory where no file can be written."""
        try:
            path.parent.mkdir(exist_ok=True)
            with FileLock(path.parent / ".lock"):  # of two runs one decodes
                pixels, bad = self._mapped(path)
                if pixels is None:
                    remove_partial_files(path.parent)
                    self._write_decoded(path)
                    pixels, bad = self._mapped(path)
            return pixels, bad
        except OSError as error:
            _log.warning("%s: decoded images are not kept (%s)", path.parent, error.strerror or error)
            pixels = np.zeros(self.shape, np.uint8)
            return pixels, self._decode(pixels)

    def _write_decoded(self, path: Path) -> None:
        if self.nbytes > (free := shutil.disk_usage(path.parent).free):
            raise UserError(
                f"dataset.image_size: {len(self)} decoded images of {self.size} pixels a side take "
                f"{self.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free under {self.root}; choose fewer pixels"
            )
        partial = path.with_name(f".{path.name}{PARTIAL}")
        try:
            pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=self.shape)
            bad = self._decode(pixels)
            pixels.flush()
            told = {"sha256": hashlib.sha256(pixels).hexdigest(), "bad": bad}
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), told)
        _log.info("%d images decoded and kept in %s (%.2f GB)", len(self), path, self.nbytes / 1e9)

    def _decoded_file(self, stats: Sequence[tuple[int, int]]) -> Path:
        """Named by everything that the pixels depend on, so that a changed file is decoded again."""
        import PIL

        head = [_FORMAT, PIL.__version__, self.channels, self.size]
        digest = hashlib.sha256(json.dumps(head).encode())
        for path, stat in zip(self.paths, stats, strict=True):
            digest.update(os.fsencode(path) + f"\n{stat[0]} {stat[1]}\n".encode())
        return self.root / DECODED / f"{digest.hexdigest()[:16]}.npy"

    def _mapped(self, path: Path) -> tuple[np.ndarray | None, dict[int, str]]:
        """The decoded images of an earlier run; None where there are none, or their checksum is wrong."""
        about = path.with_suffix(".json")
        try:
            told = json.loads(about.read_text())
            # Copy on write: torch wants writable arrays; nothing reaches the file.
            pixels = np.load(path, mmap_mode="c", allow_pickle=False)
            if pixels.shape != self.shape or hashlib.sha256(pixels).hexdigest() != told["sha256"]:
                raise ValueError("checksum")
            return pixels, {int(row): reason for row, reason in told["bad"].items()}
        except FileNotFoundError:
            return None, {}
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s: damaged (%s); the images are decoded again", path, error)
            return None, {}

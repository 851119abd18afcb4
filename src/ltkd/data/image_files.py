"""Image files as an array that is decoded when rows of it are taken, and kept decoded beside the data."""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import shutil
import stat
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from ltkd.data.decoding import BadImage, decode
from ltkd.errors import UserError, printable
from ltkd.files import PARTIAL, file_sha256, remove_partial_files, write_bytes, write_json, write_text
from ltkd.machine import num_cores

_log = logging.getLogger(__name__)

DECODED = ".ltkd-decoded"  # folder beside the data
_FORMAT = 1  # of the decoded files, and of the way in which images are decoded
_NAMED = 3  # files in a message
_MANY = 1000  # files: worth a decoded file
_LARGE = 2**28  # bytes of pixels: too
_PART = 2**26  # bytes of pixels that a survey has in memory at a time


@dataclass(frozen=True)
class Survey:
    """The digests of images that were decoded once and not kept."""

    sha256: str  # of pixels and labels, as `data_sha256` of the decoded images
    digests: np.ndarray  # uint8 [N, 32], SHA-256 of each image's pixels
    bad: dict[int, str]  # the reason for each row that could not be decoded


@dataclass(frozen=True)
class ImageFiles:
    """Files below `root`, in order; the pixels of row i are those of `paths[i]`, uint8 [channels, size, size].

    shorter: pixels to which the shorter side is scaled before the centre is cut out; None: `size`.
    """

    root: Path
    paths: Sequence[str]  # relative to root
    names: Sequence[str]  # what an image is called in lists and hashes, the same wherever the data lies
    channels: int
    size: int
    shorter: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.channels, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "ImageFiles":
        """The files of some rows."""
        paths, names = [self.paths[row] for row in rows], [self.names[row] for row in rows]
        return replace(self, paths=paths, names=names)

    __getitem__ = take  # as of an array

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
        digest_file = self._decoded_file(stats).with_suffix(".sha256")
        with contextlib.suppress(OSError):
            if len(text := digest_file.read_text(errors="replace")) == hashlib.sha256().digest_size * 2:
                return text
        with ThreadPoolExecutor(num_cores()) as pool:
            hashes = list(pool.map(file_sha256, (self.root / path for path in self.paths)))
        digest = hashlib.sha256()
        for path, sha256 in zip(self.paths, hashes, strict=True):
            digest.update(os.fsencode(path) + f"\n{sha256}\n".encode())
        if len(self) >= _MANY:
            with contextlib.suppress(UserError):  # where nothing can be written it is computed again
                write_text(digest_file, digest.hexdigest())
        return digest.hexdigest()

    def read(self, rows: Iterable[int], crops: Iterable[tuple[int, float] | None]) -> np.ndarray:
        """Pixels uint8 [B, C, H, W] of some rows, decoded now, each with its random resized crop (decode's `crop`).

        UserError that names a file that cannot be decoded.
        """
        rows = list(rows)
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, (row, crop) in enumerate(zip(rows, crops, strict=True)):
            try:
                pixels[place] = self._decoded(row, crop)
            except BadImage as error:
                path = printable(self.root / self.paths[row])
                raise UserError(f"{path}: cannot be decoded any more ({error})") from error
        return pixels

    def _decoded(self, row: int, crop: tuple[int, float] | None = None) -> np.ndarray:
        path = self.root / self.paths[row]
        return decode(path, channels=self.channels, size=self.size, shorter=self.shorter, crop=crop)

    def load(self, *, skip_bad: bool = False) -> tuple[np.ndarray, dict[int, str]]:
        """Pixels uint8 [N, C, H, W] of all files, decoded in parallel or mapped from an earlier run's decoded file.

        The second value is the reason for each row that could not be decoded, whose pixels are 0. UserError that
        counts and names such files, unless `skip_bad`; a file that is not there is always an error.
        """
        stats = self._stats()
        if len(self) < _MANY and self.nbytes < _LARGE:
            pixels = np.zeros(self.shape, np.uint8)
            bad = self._decode_all(pixels)
        else:
            decoded_file = self._decoded_file(stats)
            pixels, bad = self._mapped(decoded_file)
            if pixels is None:
                pixels, bad = self._decode_and_keep(decoded_file)
        self._refuse(bad, skip_bad)
        return pixels, bad

    def survey(self, labels: np.ndarray, *, skip_bad: bool = False) -> Survey:
        """Decodes every file once and keeps nothing but digests, beside the data: they tell what a stream will give.

        At most 64 MB of pixels are in memory at a time. UserError as of `load`.
        """
        survey_file = self._decoded_file(self._stats(), labels).with_suffix(".survey.npz")
        survey = _read_survey(survey_file, len(self))
        if survey is None:
            survey = self._survey(labels)
            try:
                survey_file.parent.mkdir(exist_ok=True)
                _write_survey(survey_file, survey)
            except OSError as error:
                _log.warning("%s: digests are not kept (%s)", survey_file.parent, error.strerror or error)
        self._refuse(survey.bad, skip_bad)
        return survey

    def _survey(self, labels: np.ndarray) -> Survey:
        whole = hashlib.sha256(repr(self.shape).encode())
        digests, bad = np.zeros((len(self), 32), np.uint8), {}
        number = max(1, _PART * len(self) // max(self.nbytes, 1))
        with self._bar("checking") as bar:
            for start in range(0, len(self), number):
                pixels = np.zeros((min(number, len(self) - start), *self.shape[1:]), np.uint8)
                reasons = self._decode(pixels, start, bar)
                bad |= reasons
                whole.update(pixels)
                for row, image in enumerate(pixels, start):
                    digests[row] = np.frombuffer(hashlib.sha256(image).digest(), np.uint8)
        whole.update(np.ascontiguousarray(labels, dtype="<i8"))
        return Survey(whole.hexdigest(), digests, bad)

    def _refuse(self, bad: dict[int, str], skip_bad: bool) -> None:
        if bad and not skip_bad:
            hint = "mend or remove them, or set dataset.on_bad_image=skip"
            raise UserError(f"{self._named(bad)} cannot be decoded; {hint}")

    def _stats(self) -> list[tuple[int, int]]:
        stats, missing = [], {}
        for row, path in enumerate(self.paths):
            try:
                file_stat = os.stat(self.root / path)
            except OSError as error:
                missing[row] = error.strerror or type(error).__name__
                continue
            stats.append((file_stat.st_size, file_stat.st_mtime_ns))
            if not stat.S_ISREG(file_stat.st_mode):  # a pipe or a device would be read for ever
                missing[row] = "no regular file"
        if missing:
            raise UserError(f"{self._named(missing)} cannot be read; check dataset.path ({self.root}) and the lists")
        return stats

    def _named(self, reasons: dict[int, str]) -> str:
        """The first files with their reasons, and how many others."""
        first = [f"{printable(self.root / self.paths[row])} ({reasons[row]})" for row in list(reasons)[:_NAMED]]
        more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        return f"{len(reasons)} of {len(self)} image files: {', '.join(first)}{more}"

    def _bar(self, what: str):
        from tqdm import tqdm

        return tqdm(total=len(self), desc=what, unit="image", leave=False, disable=None)  # a bar on a terminal only

    def _decode(self, pixels: np.ndarray, first: int, bar) -> dict[int, str]:
        """Fills `pixels`, which are 0, from row `first` on; the reason for each row where that is not possible."""

        def decode_row(row: int) -> str | None:
            try:
                pixels[row - first] = self._decoded(row)
            except BadImage as error:
                return str(error)
            return None

        reasons = {}
        # The decoders work without Python's lock; Pillow warns of odd metadata, where only an error matters.
        with ThreadPoolExecutor(num_cores()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for row, reason in enumerate(pool.map(decode_row, range(first, first + len(pixels))), first):
                bar.update()
                if reason is not None:
                    reasons[row] = reason
        return reasons

    def _decode_all(self, pixels: np.ndarray) -> dict[int, str]:
        with self._bar("decoding") as bar:
            return self._decode(pixels, 0, bar)

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
            return pixels, self._decode_all(pixels)

    def _write_decoded(self, path: Path) -> None:
        if self.nbytes > (free := shutil.disk_usage(path.parent).free):
            raise UserError(
                f"dataset.image_size: {len(self)} decoded images of {self.size} pixels a side take "
                f"{self.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free under {self.root}; choose fewer pixels"
            )
        partial = path.with_name(f".{path.name}{PARTIAL}")
        try:
            pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=self.shape)
            bad = self._decode_all(pixels)
            pixels.flush()
            record = {"sha256": hashlib.sha256(pixels).hexdigest(), "bad": bad}
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), record)
        _log.info("%d images decoded and kept in %s (%.2f GB)", len(self), path, self.nbytes / 1e9)

    def _decoded_file(self, stats: Sequence[tuple[int, int]], labels: np.ndarray | None = None) -> Path:
        """Named by everything that the pixels (and labels) depend on, so that a changed file is decoded again."""
        import PIL

        head = [_FORMAT, PIL.__version__, self.channels, self.size, *filter(None, [self.shorter])]
        if labels is not None:
            head.append(hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8")).hexdigest())
        digest = hashlib.sha256(json.dumps(head).encode())
        for path, (size, time) in zip(self.paths, stats, strict=True):
            digest.update(os.fsencode(path) + f"\n{size} {time}\n".encode())
        return self.root / DECODED / f"{digest.hexdigest()[:16]}.npy"

    def _mapped(self, path: Path) -> tuple[np.ndarray | None, dict[int, str]]:
        """The decoded images of an earlier run; None where there are none, or their checksum is wrong."""
        about = path.with_suffix(".json")
        try:
            record = json.loads(about.read_text())
            # Copy on write: torch wants writable arrays; nothing reaches the file.
            pixels = np.load(path, mmap_mode="c", allow_pickle=False)
            if pixels.shape != self.shape or hashlib.sha256(pixels).hexdigest() != record["sha256"]:
                raise ValueError("checksum")
            return pixels, {int(row): reason for row, reason in record["bad"].items()}
        except FileNotFoundError:
            return None, {}
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s: damaged (%s); the images are decoded again", path, error)
            return None, {}


def image_digests(pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, 32]: SHA-256 of each of the images [N, C, H, W]."""
    digests = b"".join(hashlib.sha256(image).digest() for image in pixels)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def _write_survey(path: Path, survey: Survey) -> None:
    """Atomic: the file appears whole or not at all."""
    record = {"sha256": survey.sha256, "bad": survey.bad, "digests": hashlib.sha256(survey.digests).hexdigest()}
    buffer = io.BytesIO()
    np.savez(buffer, digests=survey.digests, about=np.array(json.dumps(record)))
    write_bytes(path, buffer.getvalue())


def _read_survey(path: Path, number: int) -> Survey | None:
    """None where there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            digests, record = stored["digests"], json.loads(str(stored["about"]))
        if digests.shape != (number, 32) or hashlib.sha256(digests).hexdigest() != record["digests"]:
            raise ValueError("checksum")
        return Survey(record["sha256"], digests, {int(row): reason for row, reason in record["bad"].items()})
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001  a damaged zip file raises errors of many kinds
        _log.warning("%s: damaged (%s); the images are checked again", path, error)
        return None

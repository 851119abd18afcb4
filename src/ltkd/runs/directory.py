"""One run's directory: its files' names, its lock, its status, its log, the data that it belongs to."""

import json
import logging
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ltkd.config.schema import Config
from ltkd.data import LongTailData, check_manifest, identifying_hashes, write_manifest
from ltkd.errors import UserError
from ltkd.files import read_json, remove_partial_files, write_json
from ltkd.loop.interrupt import Interrupted

logger = logging.getLogger(__name__)

RESULT = "result.json"
STATUS = "status.json"
WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
RETRAINING = "retraining"  # folder of the second stage, if there is one


class RunLocked(Exception):
    """Another process works in the directory."""


@contextmanager
def locked(directory: Path, *, wait: bool) -> Iterator[None]:
    """Hold the directory's lock, which the system frees when the process ends, however it ends.

    A lock that another process holds is waited for, or raises RunLocked. UserError when the directory cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise RunLocked(str(directory)) from None
            logger.info("waiting: another process works on %s", directory)
            lock.acquire()
        for folder in (directory, directory / RETRAINING):
            remove_partial_files(folder)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another output_root") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def recorded(directory: Path, info: dict[str, Any]) -> Iterator[None]:
    """status.json says running, then finished, interrupted or failed and why; log.txt gets every message meanwhile."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = info | {"started": started, "host": socket.gethostname(), "process": os.getpid()}

    def write(status: str, error: str | None = None) -> None:
        write_json(directory / STATUS, about | {"status": status, "error": error})

    def try_to_write(status: str, error: str | None = None) -> None:
        # on a full disk this fails as well: how the run ended matters more than that it cannot be noted
        try:
            write(status, error)
        except UserError as failure:
            logger.warning("%s", failure)

    handler = _log_file(directory / "log.txt")  # first: where it cannot be opened nothing is "running"
    logging.getLogger().addHandler(handler)
    try:
        write("running")
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        try_to_write("interrupted", getattr(stop, "signal_name", "SIGINT"))
        raise
    except BaseException as error:
        text = "".join(traceback.format_exception(error)) if not isinstance(error, UserError) else str(error)
        handler.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "%s", (text,), None))
        try_to_write("failed", f"{type(error).__name__}: {error}")
        raise
    else:
        try_to_write("finished")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _log_file(path: Path) -> logging.FileHandler:
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def finished_result(directory: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a finished run, None where there is none. UserError when it is damaged or of another identity."""
    if not (directory / RESULT).exists():
        return None
    result = read_json(directory / RESULT)
    if result.get("identity") != json.loads(json.dumps(identity)):
        raise UserError(f"{directory / RESULT}: belongs to another configuration; move the directory away")
    return result


def agree_on_data(directory: Path, data: LongTailData) -> None:
    """Refuses a directory whose earlier training was on other data."""
    path, manifest = directory / MANIFEST, data.manifest()
    if path.exists():
        check_manifest(path, manifest)
    else:
        write_manifest(path, manifest)


def agree_on_source(directory: Path, config: Config) -> None:
    """Refuses a finished run of other images: two folders of a published data set. No image is decoded."""
    path = directory / MANIFEST
    if path.exists() and (hashes := identifying_hashes(config.dataset, Path(config.data_root))):
        try:
            check_manifest(path, read_json(path) | hashes)
        except UserError as error:
            raise UserError(f"{error}; give these images another dataset.name") from error

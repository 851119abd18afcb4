"""Opens the folder of a run for the one process that works in it, and keeps its lock, status, log and manifest."""

import contextlib
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

from ltkd.config.identity import NetworkRun
from ltkd.data import LongTailData, check_manifest, identifying_hashes, write_manifest
from ltkd.errors import UserError
from ltkd.files import read_json, remove_partial_files, write_json
from ltkd.loop.interrupt import Interrupted
from ltkd.ranks import Ranks
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result
from ltkd.results.result import Result

logger = logging.getLogger(__name__)


class RunLocked(Exception):
    """Another process works in the folder."""


class RunDirectory(RunFiles):
    """The folder of one run.

        with RunDirectory(run).open(wait=False) as directory:
            if directory.finished is None:
                directory.check_data(data)
                ...  # train, and write directory.weights and directory.result

    finished: the run's result where it finished before it was opened, else None.
    ranks: the processes that train it together. The first of them alone reads and writes here; the others learn what it
    finds.
    """

    def __init__(self, run: NetworkRun, ranks: Ranks | None = None) -> None:
        super().__init__(run.directory)
        self.run = run
        self.ranks = ranks or Ranks()
        self.finished: Result | None = None

    @contextmanager
    def open(self, *, wait: bool) -> Iterator["RunDirectory"]:
        """Hold the folder's lock and, unless the run finished before, keep its status and log.

        A lock that another process holds is waited for, or raises RunLocked. UserError when the folder cannot be made,
        or its result is damaged or of another configuration.
        """
        with contextlib.ExitStack() as stack:

            def enter() -> Result | None:
                stack.enter_context(locked(self, wait=wait))
                finished = self.finished_result()
                if finished is None:
                    stack.enter_context(recorded(self, self.run.names))
                return finished

            self.finished = self.ranks.from_first(enter)
            yield self

    def finished_result(self) -> Result | None:
        """Read the result; None where there is none. UserError when it is damaged or of another configuration."""
        if not self.result.exists():
            return None
        result = read_result(self.result)
        if result.get("identity") != json.loads(json.dumps(self.run.identity)):
            raise UserError(f"{self.result}: belongs to another configuration; move the directory away")
        return result

    def check_data(self, data: LongTailData) -> None:
        """Note the data that the run is trained on, or refuse the folder of an earlier training on other data."""
        self.ranks.from_first(lambda: self._check_data(data))

    def _check_data(self, data: LongTailData) -> None:
        manifest = data.manifest()
        if self.manifest.exists():
            check_manifest(self.manifest, manifest)
        else:
            write_manifest(self.manifest, manifest)

    def check_source(self) -> None:
        """Refuse a finished run of other images: of two folders of a published data set. Decodes none."""
        self.ranks.from_first(self._check_source)

    def _check_source(self) -> None:
        dataset, root = self.run.config.dataset, Path(self.run.config.data_root)
        if self.manifest.exists() and (hashes := identifying_hashes(dataset, root)):
            try:
                check_manifest(self.manifest, read_json(self.manifest) | hashes)
            except UserError as error:
                raise UserError(f"{error}; give these images another dataset.name") from error


@contextmanager
def locked(files: RunFiles, *, wait: bool) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when the process ends, however it ends."""
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(files.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise RunLocked(str(files.folder)) from None
            logger.info("waiting: another process works on %s", files.folder)
            lock.acquire()
        for folder in (files.folder, files.retraining.folder):
            remove_partial_files(folder)
    except OSError as error:
        raise UserError(f"{files.folder}: cannot be written ({error.strerror}); choose another output_root") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def recorded(files: RunFiles, info: dict[str, Any]) -> Iterator[None]:
    """Write into the status: running, then finished, interrupted or failed and why; the log gets every message."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = info | {"started": started, "host": socket.gethostname(), "process": os.getpid()}

    def write(status: str, error: str | None = None) -> None:
        write_json(files.status, about | {"status": status, "error": error})

    def try_to_write(status: str, error: str | None = None) -> None:
        # on a full disk this fails as well: how the run ended matters more than that it cannot be noted
        try:
            write(status, error)
        except UserError as failure:
            logger.warning("%s", failure)

    handler = _log_file(files.log)  # first: where it cannot be opened nothing is "running"
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
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler

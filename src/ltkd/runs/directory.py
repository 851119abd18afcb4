"""Opens the folder of a run for the one process that works in it, and keeps its lock, status, log and manifest."""

import contextlib
import json
import logging
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ltkd.config.identity import NetworkRun
from ltkd.data import LongTailData, check_manifest, identifying_hashes, write_manifest
from ltkd.errors import UserError
from ltkd.files import read_json, remove_partial_files, write_json
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.turns import take_lock, turns
from ltkd.ranks import Ranks
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result
from ltkd.results.regroup import Policy, in_groups, policy_of
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
    run: a training that does not read the data set's groups goes on with those that it was begun with. Its result is
    given in those that are asked for, whatever they were.
    """

    def __init__(self, run: NetworkRun, ranks: Ranks | None = None) -> None:
        super().__init__(run.directory)
        self.run = run
        self.ranks = ranks or Ranks()
        self._groups_asked_for = run.config.dataset.groups
        self.finished: Result | None = None

    @contextmanager
    def open(self, *, wait: bool) -> Iterator["RunDirectory"]:
        """Hold the folder's lock and, unless the run finished before, keep its status and log.

        A lock that another process holds is waited for, or raises RunLocked. UserError when the folder cannot be made,
        or its result is damaged or of another configuration.
        """
        with contextlib.ExitStack() as stack:

            def enter() -> tuple[Result | None, Policy]:
                stack.enter_context(locked(self, wait=wait))
                finished = self.finished_result()
                if finished is not None:
                    self._finish_up()
                    return finished, self._groups_asked_for
                stack.enter_context(recorded(self, self.run.names))
                return None, self._groups_begun_with()

            self.finished, groups = self.ranks.from_first(enter)
            if groups != self._groups_asked_for:
                dataset = replace(self.run.config.dataset, groups=groups)
                self.run = replace(self.run, config=replace(self.run.config, dataset=dataset))
            yield self

    def _finish_up(self) -> None:
        """Does what comes after the result, where a process was killed before it did."""
        self.remove_state()
        with contextlib.suppress(UserError):  # the result counts, whatever becomes of the status
            if (status := read_json(self.status))["status"] == "running":
                write_json(self.status, status | {"status": "finished", "error": None})

    def remove_state(self) -> None:
        """Removes the state to resume from, which has served when the result is there; the weights stay."""
        for files in (self, self.retraining):
            files.checkpoint.unlink(missing_ok=True)
        self.sessions.unlink(missing_ok=True)

    def finished_result(self) -> Result | None:
        """Read the result; None where there is none. UserError when it is damaged or of another configuration."""
        if not self.result.exists():
            return None
        result = read_result(self.result)
        if result.get("identity") != json.loads(json.dumps(self.run.identity)):
            raise UserError(f"{self.result}: belongs to another configuration; move the directory away")
        return self.reported(result)

    def reported(self, result: Result) -> Result:
        """Give the run's result in the groups that are asked for."""
        asked_for = self._groups_asked_for
        return result if policy_of(result) == asked_for else in_groups(result, self, asked_for)

    def _groups_begun_with(self) -> Policy:
        asked_for = self._groups_asked_for
        if self.run.reads_groups or not self.checkpoint.exists():
            return asked_for
        with contextlib.suppress(UserError, KeyError, TypeError):  # `check_data` says what is wrong with a manifest
            begun_with = read_json(self.manifest)["settings"]["groups"]
            if begun_with != asked_for:
                logger.info("goes on with the groups that it was begun with, %s, not %s", begun_with, asked_for)
            return begun_with
        return asked_for

    def check_data(self, data: LongTailData) -> None:
        """Note the data that the run is trained on, or refuse the folder of an earlier training on other data."""
        self.ranks.from_first(lambda: self._check_data(data))

    def _check_data(self, data: LongTailData) -> None:
        manifest = data.manifest()
        if self.manifest.exists():
            check_manifest(self.manifest, manifest, with_groups=self.run.reads_groups)
        if self.finished is None and not self.checkpoint.exists():
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
            take_lock(lock)
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


class LogFile(logging.FileHandler):
    """A log whose messages are lost on a full disk: the run's own files fail there too, and say so once."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is still buffered is tried once more
            super().close()


def _log_file(path: Path) -> LogFile:
    try:
        handler = LogFile(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(turns().own_messages())
    return handler

"""Records the metrics of a training in metrics.jsonl, which Weights & Biases mirrors.

Nothing that W&B does can end a training: a failure is said once, in full, and the training goes on without it.
"""

import contextlib
import copy
import json
import logging
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlparse

from ltkd.config.schema import Wandb
from ltkd.errors import UserError
from ltkd.files import write_text
from ltkd.loop.turns import turns
from ltkd.results.files import RunFiles

logger = logging.getLogger(__name__)

Rows = list[list[Any]]  # of a table, the first with the names of its columns


class Tracker:
    """Context manager around one training, with one metrics file and at most one W&B run."""

    def __init__(
        self, directory: Path, settings: Wandb, *, name: str, group: str, job_type: str, tags: list[str],
        config: dict[str, Any], run_id: str,
    ) -> None:  # fmt: skip
        self.path = RunFiles(directory).metrics
        self.settings = settings
        self.arguments = {
            "dir": str(directory), "project": settings.project, "entity": settings.entity, "name": name, "group": group,
            "job_type": job_type, "tags": [*tags, *settings.tags], "config": config, "id": run_id, "resume": "allow",
        }  # fmt: skip
        self.run: Any = None
        self.offline = False
        self.prefix = ""  # of the names in W&B

    def stage(self, files: RunFiles) -> "Tracker":
        """Return the tracker of a further stage of the same training, which has a folder of its own.

        Its metrics go there and to the same W&B run, where their names begin with the folder's.
        """
        stage, name = copy.copy(self), files.folder.name
        stage.path, stage.prefix = files.metrics, f"{name}/"
        if self.run is not None:
            run = self.run
            stage._mirror(lambda: run.define_metric(f"{name}/*", step_metric=f"{name}/epoch"))
        return stage

    def __enter__(self) -> "Tracker":
        if self.arguments["job_type"] == "teacher" and "WANDB_SWEEP_ID" in os.environ:
            logger.info("W&B: the run that its sweep wants is the student's; the teacher is not sent there")
        elif self.settings.mode != "disabled":
            self._mirror(self._start)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.run is not None:
            run, exit_code = self.run, 0 if error is None else 1  # any exit code but 0 marks the W&B run failed
            self._mirror(lambda: run.finish(exit_code=exit_code))

    def restart(self, history: list[dict[str, Any]]) -> None:
        """Cut the metrics file back to `history`; what came after a checkpoint is computed and logged again.

        A W&B run that is online goes on there. One that is offline is a file of its own for each process, and when two
        of one run are sent, the second replaces the first: the new one gets the whole history.
        """
        write_text(self.path, "".join(_line(metrics) for metrics in history))
        for metrics in history if self.offline else ():
            self._send(metrics)

    def log(self, metrics: dict[str, Any]) -> None:
        """Write one epoch's metrics to the file, as a line, and to W&B."""
        try:
            with open(self.path, "a") as file:
                file.write(_line(metrics))
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); the last checkpoint is kept"
            ) from error
        self._send(metrics)

    def _send(self, metrics: dict[str, Any]) -> None:
        if self.run is not None:
            run = self.run
            named = {f"{self.prefix}{name}": value for name, value in metrics.items()}
            self._mirror(lambda: run.log(named))  # no step=: the x axis is the epoch, see _start

    def summarize(self, values: dict[str, Any]) -> None:
        """Send W&B the final numbers, under the names that result.json has."""
        if self.run is not None:
            run = self.run
            self._mirror(lambda: run.summary.update(values))

    def show(self, tables: dict[str, Rows], bars: dict[str, Rows]) -> None:
        """Send W&B tables and bar charts of the finished run: {title: rows}; a bar has a name and a height."""
        if self.run is not None:
            run = self.run

            def send() -> None:
                import wandb

                shown: dict[str, Any] = {title: _table(rows) for title, rows in tables.items()}
                for title, rows in bars.items():
                    shown[title] = wandb.plot.bar(_table(rows), *rows[0], title=title)
                run.log(shown)

            self._mirror(send)

    def _start(self) -> None:
        import wandb  # here: it takes a second, and not every run wants it

        settings = wandb.Settings(silent=True, console="off", init_timeout=20)
        # of several trainings that take turns in this process each has a run of its own
        options = {"settings": settings, "reinit": "create_new" if turns().places > 1 else "finish_previous"}
        mode = self._mode(settings.base_url)
        self.offline = mode == "offline"
        if self.offline:
            self._set_aside(self.arguments["id"])
        try:
            self.run = wandb.init(**self.arguments, **options, mode=mode)
        except Exception as error:
            if mode == "offline":
                raise
            reason = " ".join(str(error).split())
            logger.warning("W&B cannot be reached (%s), so offline; %s", reason, self._how_to_send())
            arguments = self.arguments | {"id": f"{self.arguments['id']}-offline"}  # the failed one keeps its id
            self.offline = True
            self._set_aside(arguments["id"])
            self.run = wandb.init(**arguments, **options, mode="offline")
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")

    def _set_aside(self, run_id: str) -> None:
        """Move what earlier processes of this run left offline to where `wandb sync` does not look."""
        folder = Path(self.arguments["dir"]) / "wandb"
        for earlier in sorted(folder.glob(f"offline-run-*-{run_id}")):
            replaced = folder / "replaced" / earlier.name
            replaced.parent.mkdir(exist_ok=True)
            earlier.rename(replaced)

    def _mode(self, server: str) -> str:
        """Choose online, offline or disabled; online only with a login, or W&B asks for one in the middle of a run."""
        mode = self.settings.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not _has_login(server):
            logger.info("W&B: no login, so offline; %s", self._how_to_send())
            return "offline"
        return mode

    def _how_to_send(self) -> str:
        return f"to send it later: wandb sync {self.path.parent}/wandb/offline-*"

    def _mirror(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  whatever W&B raises, the training is worth more
            reason = f"{type(error).__name__}: {error}"
            logger.warning("W&B failed (%s); going on without it, metrics are in %s", reason, self.path)
            run, self.run = self.run, None
            if run is not None:
                with contextlib.suppress(Exception):  # not left open: the next job would go on in it
                    run.finish(exit_code=1)


class NoTracker(Tracker):
    """The tracker of a process that leaves it to another one."""

    def stage(self, files: RunFiles) -> "Tracker":
        return self

    def __enter__(self) -> "Tracker":
        return self

    def restart(self, history: list[dict[str, Any]]) -> None:
        """Write nothing."""

    def log(self, metrics: dict[str, Any]) -> None:
        """Write nothing."""


def _table(rows: Rows) -> Any:
    import wandb

    return wandb.Table(columns=rows[0], data=rows[1:])


def _has_login(server: str) -> bool:
    """True with a key in the environment or, for that server, in the netrc file where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    servers = {urlparse(url).hostname for url in (os.environ.get("WANDB_BASE_URL", server), "https://api.wandb.ai")}
    try:
        return not servers.isdisjoint(netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _line(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics, allow_nan=False) + "\n"


def latest_metrics(directory: Path) -> dict[str, Any] | None:
    """Read the last whole line of the metrics file; None where there is none yet."""
    with contextlib.suppress(OSError):
        for line in reversed(RunFiles(directory).metrics.read_text().splitlines()):
            with contextlib.suppress(ValueError):  # a line that is just being written
                return json.loads(line)
    return None

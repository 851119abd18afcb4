"""The sessions of a training, one for each time that it was resumed elsewhere or otherwise.

Device, CPU threads, number of processes, torch and the code may change the last digits of a training, and are no
settings of it. They are noted beside its checkpoint, and result.json says which there were.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ltkd.files import read_json, write_json
from ltkd.loop.turns import turns
from ltkd.machine import device_name, git_state
from ltkd.ranks import Ranks
from ltkd.results.code import commit_label
from ltkd.results.files import RunFiles
from ltkd.results.result import Session

logger = logging.getLogger(__name__)

UNKNOWN: Session = {
    "device": None,
    "threads": None,
    "torch": None,
    "git": None,
}  # of a checkpoint from before they were noted


@contextmanager
def session(files: RunFiles, device: torch.device, label: str, ranks: Ranks) -> Iterator[list[Session]]:
    """Notes the session that begins, and gives all that the training has had so far, each once.

    On a CPU it goes on with the number of threads that it was begun with, whatever is set; afterwards torch has the
    number that it had. Another device, torch or code is warned of, another number of processes is told.
    """
    threads = torch.get_num_threads()
    sessions = ranks.from_first(lambda: _earlier(files))
    if sessions and device.type == "cpu":
        _keep_threads(sessions[-1]["threads"], label)
    now: Session = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "git": git_state(),
    }
    if not ranks.alone:
        now["ranks"] = ranks.size
    if turns().places > 1:
        now["side_by_side"] = turns().places
    if sessions and sessions[-1] != now:
        _warn(sessions[-1], now, label)
    sessions += [now] if now not in sessions else []
    ranks.from_first(lambda: write_json(files.sessions, sessions))
    try:
        yield sessions
    finally:
        torch.set_num_threads(threads)


def _earlier(files: RunFiles) -> list[Session]:
    if not files.checkpoint.exists():  # nothing of them is left
        return []
    return read_json(files.sessions) if files.sessions.exists() else [UNKNOWN]


def _keep_threads(begun_with: int | None, label: str) -> None:
    threads = torch.get_num_threads()
    if begun_with is None:
        logger.warning(
            "%s: its checkpoint does not say with how many threads it was begun; goes on with %d", label, threads
        )
    elif begun_with != threads:
        logger.info(
            "%s: goes on with the number of threads that it was begun with, %d, not %d: the last digits depend on it",
            label,
            begun_with,
            threads,
        )
        torch.set_num_threads(begun_with)


def _warn(before: Session, now: Session, label: str) -> None:
    processes = before.get("ranks", 1), now.get("ranks", 1)
    if processes[0] != processes[1]:
        logger.info(
            "%s: was begun by %d processes, goes on with %d: the same images, crops and flips; the last digits depend "
            "on it",
            label,
            *processes,
        )
    shown = {"device": str, "torch": str, "git": commit_label}
    changes = [
        f"{key} {show(before[key])}, now {show(now[key])}"
        for key, show in shown.items()
        if before[key] not in (None, now[key])
    ]
    if changes:
        logger.warning("%s: was begun elsewhere (%s); its numbers are of both", label, "; ".join(changes))

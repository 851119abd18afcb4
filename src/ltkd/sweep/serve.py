"""Runs the jobs of a `Crew`, which take turns in this process: `python -m ltkd.sweep.serve PLACES`."""

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

import torch

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.errors import EXIT_BUSY, UserError
from ltkd.loop.graph import CaptureFailed
from ltkd.loop.interrupt import Interrupted, StopRequest
from ltkd.loop.turns import Turns
from ltkd.results.read import run_table
from ltkd.runs.directory import LogFile
from ltkd.runs.run import run_experiment
from ltkd.sweep.crew import BROKEN, POLL_SECONDS

logger = logging.getLogger("ltkd")


def serve(places: int, jobs: TextIO, replies: TextIO) -> int:
    """Run the jobs that come in, `places` at a time, until no more are announced. SIGTERM has all save and end.

    Returns the exit code: 0, 128 + the signal, or BROKEN.
    """
    waiting: queue.Queue[dict | None] = queue.Queue()
    turns, speak = Turns(places), threading.Lock()
    broken = threading.Event()

    def read() -> None:
        for line in jobs:
            waiting.put(json.loads(line))
        for _ in range(places):
            waiting.put(None)

    def work() -> None:
        for request in iter(waiting.get, None):
            if turns.signal is not None:
                continue
            code = BROKEN
            try:
                with turns.seat():
                    code = _run(request["overrides"], Path(request["console"]), turns, broken)
            finally:
                with speak:
                    replies.write(json.dumps({"run": request["run"], "code": code}) + "\n")
                    replies.flush()

    # daemons: a process that is told to end does not wait for the next line
    threading.Thread(target=read, daemon=True).start()
    workers = [threading.Thread(target=work, daemon=True) for _ in range(places)]
    with StopRequest() as stop:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            if turns.signal is None and (stop.signal or broken.is_set()):
                turns.signal = stop.signal or signal.SIGTERM
                for _ in range(places):
                    waiting.put(None)
            time.sleep(POLL_SECONDS)
    if broken.is_set():
        return BROKEN
    return 128 + stop.signal if stop.signal else 0


def _run(overrides: list[str], console: Path, turns: Turns, broken: threading.Event) -> int:
    """Run one job as `src/train.py` does, with its messages in `console`. Returns the exit code of that."""
    handler = LogFile(console, encoding="utf-8")  # on a full disk the run's own files fail, and say so
    handler.addFilter(turns.own_messages())
    handler.setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        result = run_experiment(load_config(compose_values(*overrides)))
        if result is None:
            return EXIT_BUSY
        logger.info("%s", run_table(result))
        return 0
    except Interrupted as stop:
        # not by a signal: the process is given up, and the job has to go on in another one
        return BROKEN if broken.is_set() else stop.code
    except UserError as error:
        if isinstance(error, CaptureFailed):
            broken.set()
        logger.error("error: %s", error)
        return 2
    except BaseException as error:  # noqa: BLE001  the other jobs go on, whatever it is
        logger.error("%s", traceback.format_exc())
        # torch 2.8 and later have a name for it
        lost = isinstance(error, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
        if lost and not isinstance(error, torch.OutOfMemoryError):
            broken.set()  # the device is lost for this process, whichever job has done it
            return BROKEN
        return 1
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def main() -> None:
    """Talk to the sweep by standard input and output; what else is printed goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.getLogger("ltkd").setLevel(logging.DEBUG)  # what is for the log file of a run alone
    logging.getLogger().setLevel(logging.INFO)
    code = serve(int(sys.argv[1]), sys.stdin, replies)
    sys.stderr.flush()
    os._exit(code)  # at once: threads that wait for a line would hold the interpreter up


if __name__ == "__main__":
    main()

"""Lets several trainings of one process take turns, a step each.

Each is a thread with a seat. One of them runs at a time: it hands on after a step (`pass_on`) or while it waits for the
device (`wait_for`), and everything between is its own, as if it were alone. A GPU meanwhile works on what all of them
have asked for, each on a stream of its own, so that small kernels of one fill the gaps that another leaves.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import torch
from filelock import BaseFileLock, Timeout

from ltkd.loop.interrupt import Interrupted

T = TypeVar("T")

POLL_SECONDS = 1e-4  # while all wait: short beside a step
LOCK_SECONDS = 0.05  # while a training alone waits for a lock


class Turns:
    """The seats of the trainings in this process. A thread takes one by `with turns.seat():`.

    places: number of seats, at most, that are taken at a time.
    signal: asks all of them to save and stop, as a signal to the process of one does.
    """

    def __init__(self, places: int = 1) -> None:
        self.places = places
        self.signal: int | None = None
        self._shared: dict[Any, Any] = {}
        self._seats: deque[_Seat] = deque()  # the first one's thread runs
        self._change = threading.Lock()  # of the seats

    def __len__(self) -> int:
        return len(self._seats)

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Have this thread take turns with the others in the block, which begins when it is its turn."""
        mine = _Seat()
        with self._change:
            self._seats.append(mine)
            is_first = len(self._seats) == 1
        if not is_first:
            mine.turn.acquire()
        _here.turns = self
        try:
            with _own_stream():
                yield
        finally:
            del _here.turns
            with self._change:
                self._seats.popleft()
                if self._seats:
                    self._seats[0].turn.release()

    def share(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what the seated trainings have in common under `key`, made by the first of them that asks."""
        if not self._seats:
            return make()
        if key not in self._shared:
            self._shared[key] = make()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # it is complete before a stream of another training reads it
        return self._shared[key]

    def pass_on(self) -> None:
        """Let each other thread have its turn. The random numbers of torch go on afterwards as if there were none."""
        if len(self._seats) < 2:
            return
        mine, random = self._seats[0], _random_state()
        with self._change:
            self._seats.rotate(-1)
            self._seats[0].turn.release()
        mine.turn.acquire()
        _set_random_state(random)

    def wait_for(self, device: torch.device) -> None:
        """Wait until the device has done what this thread has asked for; the others go on meanwhile."""
        if len(self._seats) < 2 or device.type != "cuda":
            return
        done = torch.cuda.Event()
        done.record()
        while not done.query():
            self.pass_on()
            time.sleep(POLL_SECONDS)

    def own_messages(self) -> Callable[[logging.LogRecord], bool]:
        """Make a filter for a log of this thread's training: it has no messages of the others."""
        own_thread = threading.get_ident()
        return lambda record: (
            record.thread == own_thread or record.thread not in {seat.thread for seat in list(self._seats)}
        )


class _Seat:
    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.turn = threading.Lock()
        self.turn.acquire()  # it is released when the turn comes


_here = threading.local()
_ALONE = Turns()


def _own_stream() -> AbstractContextManager[None]:
    """The context in which this thread's work on a GPU is queued apart from that of the others."""
    if not torch.cuda.is_available():
        return nullcontext()
    if not hasattr(_here, "stream"):  # once: after 32 streams torch hands out the first ones again
        _here.stream = torch.cuda.Stream()
    return torch.cuda.stream(_here.stream)


def turns() -> Turns:
    """Return the turns that this thread takes; without a seat nobody is waited for."""
    return getattr(_here, "turns", _ALONE)


def take_lock(lock: BaseFileLock) -> None:
    """Wait for the lock. Who holds it may be a training of this process, which needs its turns to come to an end.

    Raises Interrupted when the trainings of this process are to stop.
    """
    while True:
        if signal := turns().signal:
            raise Interrupted(signal)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return
        turns().pass_on()
        time.sleep(POLL_SECONDS if len(turns()) > 1 else LOCK_SECONDS)


def _random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


def _set_random_state(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])

"""SIGTERM (SLURM, kill) and Ctrl-C raise an exception, or request a stop between two steps of a training."""

import signal
import threading
from types import FrameType, TracebackType
from typing import NoReturn

STOPPING = (signal.SIGTERM, signal.SIGINT)
_arrived: int | None = None  # the signal that `end_on_signals` has answered


class Interrupted(SystemExit):
    """The training stopped on request and can be resumed. Ends the process, a multirun's too, with 128 + signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_name = signal.Signals(signal_number).name


def end_on_signals() -> None:
    """Have SIGTERM raise Interrupted and Ctrl-C KeyboardInterrupt from now on, outside of a StopRequest.

    Python drops what is raised while it cleans up, which it also does between two imports: a signal of that moment
    would be lost. So it is remembered, and a StopRequest that is entered all the same begins with it.
    """
    global _arrived
    _arrived = None
    if _in_main_thread():
        for number in STOPPING:
            signal.signal(number, _end)


def _end(signal_number: int, frame: FrameType | None) -> NoReturn:
    global _arrived
    _arrived = signal_number
    raise KeyboardInterrupt if signal_number == signal.SIGINT else Interrupted(signal_number)


class StopRequest:
    """Notes a first signal in `.signal` during its `with` block; a second Ctrl-C is a KeyboardInterrupt.

    patient: it is not, since torchrun hands on to its processes the Ctrl-C that the terminal has sent them already.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient

    def __enter__(self) -> "StopRequest":
        self.signal = _arrived
        self._previous = {s: signal.signal(s, self._note) for s in STOPPING} if _in_main_thread() else {}
        return self

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal is not None and signal_number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        self.signal = signal_number

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    """Handlers are allowed there only; elsewhere (some launchers) the defaults stay."""
    return threading.current_thread() is threading.main_thread()

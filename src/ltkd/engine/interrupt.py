"""SIGTERM (SLURM, kill) and Ctrl-C become a request that the training loop answers between two steps."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(SystemExit):
    """The training stopped on request and can be resumed. Ends the process, a multirun's too, with 128 + signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_name = signal.Signals(signal_number).name


class StopRequest:
    """In the `with` block a first signal is only noted in `.signal`; a second Ctrl-C is a KeyboardInterrupt."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> "StopRequest":
        self.signal: int | None = None
        # Python allows handlers in the main thread only; elsewhere (some launchers) the defaults stay
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._previous = {s: signal.signal(s, self._note) for s in self.SIGNALS} if in_main_thread else {}
        return self

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal is not None and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal_number

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

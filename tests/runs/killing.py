"""Ends trainings: between two epochs as kill -9 would, after which nothing of the program runs, or by Ctrl-C in one."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from ltkd.loop.trainer import Trainer


class Kill(BaseException):
    """Passes every `except Exception`."""


@contextmanager
def killed_after(epochs: int) -> Iterator[None]:
    """The trainings in the block do at most `epochs` epochs together; the last one is finished and saved, if due."""
    finish, finished = Trainer.finish_epoch, []

    def finish_and_die(self: Trainer) -> None:
        finish(self)
        finished.append(self.state.epoch)
        if len(finished) == epochs:
            raise Kill

    with patch.object(Trainer, "finish_epoch", finish_and_die), pytest.raises(Kill):
        yield


@contextmanager
def stopped_at(call: int, owner: type, method: str) -> Iterator[None]:
    """In the block, the `call`th call of `owner.method` is Ctrl-C in the middle of an epoch. It has to come."""
    original, calls = getattr(owner, method), []

    def stop(self, *arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with patch.object(owner, method, stop), pytest.raises(KeyboardInterrupt):
        yield

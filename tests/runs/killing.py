"""Ends a training between two epochs as kill -9 would: nothing of the program's own runs after it."""

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

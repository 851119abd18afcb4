"""How often a training saves its state."""

import pytest

from ltkd.loop import checkpoint
from ltkd.loop.checkpoint import SHARE_OF_THE_TIME, SavePace


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(checkpoint, "time", clock)
    return clock


@pytest.mark.parametrize(("seconds_per_epoch", "seconds_per_save"), [(0.5, 0.1), (0.01, 1.0), (60.0, 0.1), (1.0, 0.02)])
def test_saving_takes_a_small_share_of_the_time(clock, seconds_per_epoch, seconds_per_save):
    pace, saves, start, epochs = SavePace(), 0, clock.now, 2000
    for _ in range(epochs):
        clock.now += seconds_per_epoch
        if pace.is_due():
            with pace.saving():
                clock.now += seconds_per_save
            saves += 1
    share = saves * seconds_per_save / (clock.now - start)
    assert share <= SHARE_OF_THE_TIME + seconds_per_save / (clock.now - start)  # the first is not waited for
    if seconds_per_save <= SHARE_OF_THE_TIME * seconds_per_epoch:
        assert saves == epochs  # long epochs are saved each
    assert saves > 0.9 * SHARE_OF_THE_TIME * (clock.now - start) / seconds_per_save or saves == epochs


def test_a_state_is_worth_saving_at_the_first_chance(clock):
    assert SavePace().is_due()

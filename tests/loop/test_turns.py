"""Waiting for a lock while others have their turns, and until all are to stop."""

import signal
import threading

import pytest
from filelock import FileLock

from ltkd.loop.interrupt import Interrupted
from ltkd.loop.turns import Turns, take_lock, turns


@pytest.mark.parametrize("others", [0, 1])
def test_who_waits_for_a_lock_ends_when_all_are_to_stop(tmp_path, others):
    table, ended = Turns(2), threading.Event()
    table.signal = signal.SIGTERM

    def other():
        with table.seat():
            while not ended.is_set():
                turns().pass_on()

    threads = [threading.Thread(target=other) for _ in range(others)]
    with FileLock(tmp_path / "lock"), table.seat():
        for thread in threads:
            thread.start()
        with pytest.raises(Interrupted):
            take_lock(FileLock(tmp_path / "lock", is_singleton=False))
        ended.set()
    for thread in threads:
        thread.join()


def test_a_lock_that_another_training_of_the_process_holds_comes_free(tmp_path):
    table, order = Turns(2), []

    def train(name):
        with table.seat():
            lock = FileLock(tmp_path / "lock")
            take_lock(lock)
            for _ in range(3):
                turns().pass_on()
                order.append(name)
            lock.release()

    threads = [threading.Thread(target=train, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert "".join(order) in ("aaabbb", "bbbaaa")

"""Signals: an exception outside of a training, a request within one, and none is lost."""

import signal
import weakref

import pytest

from ltkd.loop import interrupt
from ltkd.loop.interrupt import Interrupted, StopRequest, end_on_signals


@pytest.fixture(autouse=True)
def _handlers_of_before(monkeypatch):
    before = {number: signal.getsignal(number) for number in interrupt.STOPPING}
    monkeypatch.setattr(interrupt, "_arrived", None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)])
def test_an_exception_outside_of_a_request(number, kind):
    end_on_signals()
    with pytest.raises(kind):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", interrupt.STOPPING)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_python_drops_is_a_request_all_the_same(number):
    class Lock:
        """As the import system's: a callback waits for its end."""

    end_on_signals()
    lock = Lock()
    callback = weakref.ref(lock, lambda _: signal.raise_signal(number))
    del lock
    assert callback() is None
    with StopRequest() as stop:
        assert stop.signal == number
    end_on_signals()  # the next run of a multirun
    with StopRequest() as stop:
        assert stop.signal is None


def test_within_a_request_the_first_signal_is_noted_and_a_second_ctrl_c_ends_it():
    end_on_signals()
    with StopRequest() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)  # a cluster may repeat it
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted):  # as before
        signal.raise_signal(signal.SIGTERM)

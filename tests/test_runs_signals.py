"""Signals: the first interrupts until it is heard, the next ones do something else, and what was before comes back."""

import os
import signal
import time
import weakref

import pytest

from moola_lib.runs.signals import Stop, signals_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_second_does_not(hears_hang_ups, number):
    before, stop, seconds = signal.getsignal(number), Stop(), []
    with signals_interrupt(stop, lambda: seconds.append(1)):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(5)
        stop.hear()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    assert seconds == [1] and signal.getsignal(number) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_repeated():
    class Dying:
        pass

    stop, dying, called = Stop(), Dying(), []

    def collect(reference):
        called.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    reference = weakref.ref(dying, collect)
    with pytest.raises(KeyboardInterrupt), signals_interrupt(stop, lambda: None):
        del dying  # the exception raised in the callback is dropped here
        assert called == [1] and reference() is None and stop.is_wished
        time.sleep(60)


def test_an_ignored_hang_up_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_interrupt(Stop(), lambda: None):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

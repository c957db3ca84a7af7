"""Work of many threads, done by one."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from mindghost.demo.turns import Turns


def test_what_threads_ask_for_is_done_one_at_a_time_in_one_thread():
    turns, busy, most, threads = Turns(), 0, 0, set()

    def work(number: int) -> int:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        threads.add(threading.current_thread())
        time.sleep(0.005)
        busy -= 1
        return number**2

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(turns.ask, lambda number=number: work(number)) for number in range(24)]
        turns.serve(lambda: all(each.done() for each in asked))
        assert [each.result() for each in asked] == [number**2 for number in range(24)]
    assert most == 1
    assert threads == {threading.current_thread()}


def test_an_error_is_for_the_thread_that_asked_and_the_next_one_has_its_turn():
    turns = Turns()
    with ThreadPoolExecutor(1) as pool:
        bad, good = pool.submit(turns.ask, lambda: 1 // 0), pool.submit(turns.ask, lambda: "good")
        turns.serve(good.done)
        with pytest.raises(ZeroDivisionError):
            bad.result()
        assert good.result() == "good"


def test_who_waits_when_it_is_over_is_turned_away():
    turns = Turns()
    started = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(turns.ask, lambda: started.set() or time.sleep(0.1))
        second = pool.submit(lambda: started.wait() and turns.ask(lambda: "never"))
        turns.serve(started.is_set)
        assert first.result() is None
        with pytest.raises(CancelledError):
            second.result()
    with pytest.raises(CancelledError):
        turns.ask(lambda: "never")

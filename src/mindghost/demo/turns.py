"""Work of many threads, done by one, in turns: a network of MindSpore may not be run by two at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_GLANCE = 0.5  # seconds between two looks at whether it is over


class Turns:
    """Work that any thread asks for, and the one that serves does: first come, first served."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock, self._over = threading.Lock(), False

    def ask(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns or raises, once its turn has come. Raises CancelledError where that will not be."""
        future: Future[_Result] = Future()
        with self._lock:
            if self._over:
                raise CancelledError
            self._waiting.put((future, work))
        return future.result()

    def serve(self, is_over: Callable[[], bool]) -> None:
        """Do what is asked for, in this thread, until it is over; who waits then is turned away.

        Args:
            is_over: called between two pieces of work, and all the time where there is none.
        """
        try:
            while not is_over():
                try:
                    future, work = self._waiting.get(timeout=_GLANCE)
                except queue.Empty:
                    continue
                _do(future, work)
        finally:
            with self._lock:
                self._over = True
            while not self._waiting.empty():
                self._waiting.get()[0].cancel()


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Exception as error:  # it is for the thread that asked
        future.set_exception(error)
    else:
        future.set_result(result)

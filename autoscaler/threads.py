"""Threads for work that waits for others and may hang: begun at once, and not waited for when the process ends.

The threads of the standard pool are joined at exit, so that one question to a host that does not answer would keep a
daemon from ending, and a few of them would keep a bounded pool from answering anybody else.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from threading import Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# What ends by itself once its connections are cut does so in milliseconds; what does not, hangs.
PATIENCE_SECONDS = 0.5


class Threads(Executor):
    """Runs each piece of work in a thread of its own; for work whose amount is bounded by whoever gives it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin now."""
        future: Future[T] = Future()
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        work = partial(fn, *args, **kwargs)
        Thread(target=_run, args=(future, work), name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With ``wait``, give what runs a moment to end. Work may be given to it afterwards as before."""
        if wait:
            wait_for(tuple(self._running), timeout=PATIENCE_SECONDS)


def _run(future: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:  # whatever it is, whoever waits has to hear of it
        future.set_exception(error)
    else:
        future.set_result(result)

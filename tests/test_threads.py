"""Threads for work that may hang: begun at once, and waited for only a moment."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from autoscaler.threads import PATIENCE_SECONDS, Threads
from tests.fakes import until


def test_work_gives_its_result_or_its_error() -> None:
    threads = Threads("test")
    assert threads.submit(pow, 2, 5).result() == 32
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result()


def test_work_that_hangs_keeps_no_other_from_beginning() -> None:
    threads, end = Threads("test"), threading.Event()
    hanging = [threads.submit(end.wait, 10) for _ in range(50)]
    assert threads.submit(int, "7").result() == 7
    end.set()
    assert all(future.result() for future in hanging)


def test_what_ends_soon_is_waited_for_and_what_hangs_only_a_moment() -> None:
    threads, end = Threads("test"), threading.Event()
    hanging = threads.submit(end.wait, 10)
    begun = time.monotonic()
    threads.shutdown()
    assert PATIENCE_SECONDS <= time.monotonic() - begun < PATIENCE_SECONDS + 1
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(threads.shutdown)
        until(closing.running)
        end.set()
        closing.result()
    assert hanging.done()


def test_a_process_ends_while_work_hangs() -> None:
    script = (
        "import time; from autoscaler.threads import Threads\nThreads('test').submit(time.sleep, 60); print('the end')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "the end\n")

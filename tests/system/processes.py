"""Processes of the project under test: started, watched through what they write, signalled, and never left behind.

What a process writes goes to a file, so that nothing it says is lost, whoever it is killed by. Nothing waits for a
fixed time: ``until`` asks again and again and fails with the end of that file.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

_ASK_EVERY = 0.05  # seconds
_TAIL = 4000  # characters of a log that a failure shows


class Process:
    """A Python process of this project; what it writes goes to ``log``. Killed at the end of its context."""

    def __init__(self, arguments: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        """``arguments``: of the interpreter. ``environ``: all it sees, besides where programs and the project are."""
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), **(environ or {})},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def written(self) -> str:
        """All it has written so far."""
        return self.log.read_bytes().decode(errors="replace")

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL; harmless when it has ended."""
        self._process.kill()
        self._process.wait()

    def ends(self, *, within: float) -> int:
        """Its exit status, once it has ended by itself."""
        self.until("it has ended", lambda: not self.alive(), within=within, ended=True)
        return self._process.wait()

    def until(self, what: str, answer: Callable[[], T], *, within: float, ended: bool = False) -> T:
        """The first answer that counts as true. Fails after so many seconds, or when the process has ended."""
        begun = time.monotonic()
        while time.monotonic() - begun < within:
            if found := answer():
                return found
            if not ended and not self.alive():
                raise AssertionError(f"it has ended, before: {what}\n{self.tail()}")
            time.sleep(_ASK_EVERY)
        raise AssertionError(f"not within {within:g} s: {what}\n{self.tail()}")

    def tail(self) -> str:
        """The end of what it wrote."""
        return f"--- {self.log}:\n{self.written()[-_TAIL:]}"

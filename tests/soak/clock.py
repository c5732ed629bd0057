"""The clock of a soak: real time and an offset, which every process at the same file sees.

It passes as real time does and is moved forward where hours have to pass; never back. It begins days ago, because the
scheduler's own clock is the real one, and a job whose first run lies ahead of that would wait for it.
"""

import mmap
import struct
from datetime import datetime, timedelta
from pathlib import Path

from autoscaler.clock import utc_now

BEGINS = timedelta(days=-6)
_SECONDS = struct.Struct("<d")


class MovedClock:
    """Tells the time; ``forward`` moves it for everybody."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(_SECONDS.pack(BEGINS.total_seconds()))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), _SECONDS.size)
        self.file = file

    def __call__(self) -> datetime:
        return utc_now() + self.offset

    @property
    def offset(self) -> timedelta:
        """From real time to this."""
        (seconds,) = _SECONDS.unpack(self._shared[: _SECONDS.size])
        return timedelta(seconds=seconds)

    def forward(self, by: timedelta) -> None:
        """Let time pass at once."""
        if by < timedelta(0) or self.offset + by >= timedelta(0):
            raise ValueError("the clock goes forward, and no further than real time")
        self._shared[: _SECONDS.size] = _SECONDS.pack((self.offset + by).total_seconds())

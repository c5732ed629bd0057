"""A deadline for requests that holds however slowly the other side drips: httpx only times each single read.

At the deadline the socket is shut down, which ends the read under way. httpx names the socket to its trace extension.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Timer
from types import TracebackType
from typing import Any, Self

import httpx


class Deadline:
    """Ends the requests made with its ``extensions`` after ``timeout``; for one connection, used as a context."""

    def __init__(self, timeout: timedelta) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._timer = Timer(timeout.total_seconds(), self.cut)
        self._timer.daemon = True

    @property
    def extensions(self) -> dict[str, Callable[[str, dict[str, Any]], None]]:
        """For httpx's argument of this name."""
        return {"trace": self._watch}

    def cut(self) -> None:
        """Ends them now, from any thread."""
        self.passed = True
        self._shut()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _watch(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.passed:
                self._shut()
        elif event.endswith("send_request_headers.started") and self.passed:
            raise httpx.ConnectTimeout("the time was over before the request was sent")

    def _shut(self) -> None:
        if self._socket is None:
            return
        # Not SSLSocket.shutdown: that takes the encryption off first, and what is being sent would go on in the clear.
        with suppress(OSError):  # closed already
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

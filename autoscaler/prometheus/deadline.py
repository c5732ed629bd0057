"""A deadline for requests: a server that sends a byte now and then passes every timeout of requests, which is per read.

A call knows the socket that it uses, so that another thread can cut it off when its time is up.
"""

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter


class Call:
    """One request under way, which another thread can cut off when its time is up."""

    def __init__(self, ends: float, kinds: frozenset[str]) -> None:
        """``ends`` by the monotonic clock; ``kinds`` of result that may come back."""
        self.kinds = kinds
        self._ends = ends
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def remaining(self) -> float:
        """Seconds left."""
        return self._ends - time.monotonic()

    def take(self, connected: socket.socket) -> None:
        """Remember what to cut; TimeoutError where it is too late to begin."""
        with self._lock:
            if self._over:
                raise TimeoutError
            self._socket = connected

    def release(self) -> None:
        """The connection may serve another call from now on."""
        with self._lock:
            self._socket = None

    def cut(self) -> None:
        """End it: whatever its thread waits for fails now."""
        with self._lock:
            self._over = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not the TLS socket's own method, which is not made for a second thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Thread(threading.local):
    """What the thread is at; the libraries between here and the socket have no place to carry it."""

    call: Call


under_way = _Thread()


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that tells the call which socket it uses, new or kept alive."""

    def connect(self) -> None:
        super().connect()
        under_way.call.take(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            under_way.call.take(self.sock)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class CutAdapter(HTTPAdapter):
    """An adapter of such connections, which does not retry."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

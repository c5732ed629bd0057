"""A proxy on loopback that loses a chosen request, or its answer, and cuts the connection: a network at its worst."""

import socket
import threading
from contextlib import suppress
from enum import StrEnum
from typing import Self


class Lost(StrEnum):
    """What does not arrive."""

    REQUEST = "the request"
    ANSWER = "the answer"


class TcpProxy:
    """Passes on what goes to a port of loopback. Use it as a context manager."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sign: bytes | None = None
        self._lost = Lost.ANSWER
        self._nth = 1
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        with self._lock:
            for end in self._open:
                _cut(end)

    def lose(self, lost: Lost, sign: bytes, nth: int = 1) -> None:
        """Of the ``nth`` request from now that holds ``sign``, lose it or its answer, and cut its connection."""
        with self._lock:
            self._lost, self._sign, self._nth = lost, sign, nth

    @property
    def has_lost(self) -> bool:
        """Whether what was to be lost is lost."""
        return self._sign is None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # nobody listens there now
                _cut(client)
                continue
            with self._lock:
                self._open |= {client, server}
            doomed = threading.Event()
            for run in (self._requests, self._answers):
                threading.Thread(target=run, args=(client, server, doomed), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        while data := _received(client):
            with self._lock:
                self._nth -= self._sign is not None and self._sign in data
                struck = self._sign is not None and self._nth == 0
                if struck:
                    self._sign = None
            if struck:
                doomed.set()
                if self._lost is Lost.REQUEST:
                    break
            if not _sent(server, data):
                break
        if not (doomed.is_set() and self._lost is Lost.ANSWER):
            _cut(client)
            _cut(server)

    def _answers(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        while data := _received(server):
            if doomed.is_set() or not _sent(client, data):
                break
        _cut(client)
        _cut(server)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _sent(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _cut(end: socket.socket) -> None:
    with suppress(OSError):  # it was cut before
        end.shutdown(socket.SHUT_RDWR)
    end.close()

"""A small HTTP/1.1 server on loopback that can misbehave on the wire.

The fakes of this package answer with a ``Reply``; how it is delivered (late, drop by drop, in part, not at all) is
part of the value, so that what a fake means and what becomes of it on the way are told apart.
"""

import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

IDLE_SECONDS = 60  # after which a kept connection without a request is closed


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over the wire; nothing is decoded but the header block."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]  # names in lower case, values without surrounding blanks
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header sent exactly once; None if it is missing or repeated."""
        values = [value for key, value in self.headers if key == name]
        return values[0] if len(values) == 1 else None

    @property
    def parameters(self) -> dict[str, str]:
        """The decoded query string; of a repeated name the last value."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def segments(self) -> tuple[str, ...]:
        """The decoded segments of the path."""
        return tuple(unquote(segment) for segment in self.path.strip("/").split("/"))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and how it is delivered."""

    status: int
    body: bytes
    content_type: str = "application/json"
    at: datetime | None = None  # its Date header; None: no such header
    after: timedelta = timedelta(0)  # time that passes before the first byte of it
    keep: int | None = None  # bytes of the body sent before the connection is cut; None: all
    drip: timedelta = timedelta(0)  # pause before each byte of the body


@dataclass(frozen=True, slots=True)
class Cutoff:
    """No answer: the connection is closed, or reset."""

    reset: bool = False


class LoopbackServer:
    """Serves ``answer`` on 127.0.0.1, each connection in its own thread.

    ``start`` may follow ``close``: the port stays the same, so that a server can be down for a while.
    Raises ``OSError`` from ``start`` when the port is taken.
    """

    def __init__(self, answer: Callable[[Request], Reply | Cutoff], *, port: int = 0) -> None:
        self._answer = answer
        self._port = port
        self._closing = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:<port>``; the port is known from the first ``start`` on."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen and serve until ``close``."""
        self._closing.clear()
        self._server = _Server(("127.0.0.1", self._port), self._answer, self._closing)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"sandbox-{self._port}", daemon=True
        )
        self._thread.start()

    def pause(self, duration: timedelta) -> bool:
        """Wait as a slow server does, but no longer than until it is closed: then False."""
        return not self._closing.wait(duration.total_seconds())

    def close(self) -> None:
        """Stop listening and drop every connection, also those with an answer due. Closing twice does nothing."""
        if self._server is None or self._thread is None:
            return
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()
        self._thread.join()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], answer: Callable[[Request], Reply | Cutoff], closing: threading.Event
    ) -> None:
        self.answer = answer
        self.closing = closing
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer asks DNS for its own name here, which takes seconds on a machine without a resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def drop_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that went away: that is what faults are for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        with suppress(OSError):
            super().finish()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        path, _, query = self.path.partition("?")
        request = Request(
            method=self.command,
            path=path,
            query=query,
            headers=tuple((name.lower(), value.strip()) for name, value in self.headers.items()),
            body=self.rfile.read(length),
        )
        if len(request.body) < length:
            self.close_connection = True
            return
        reply = self.server.answer(request)
        if isinstance(reply, Cutoff):
            self._cut(reply.reset)
        else:
            self._deliver(reply)

    do_GET = do_POST = _serve

    def _deliver(self, reply: Reply) -> None:
        if reply.after and self.server.closing.wait(reply.after.total_seconds()):
            self._cut(reset=False)
            return
        self.send_response_only(reply.status)
        if reply.at is not None:
            self.send_header("Date", format_datetime(reply.at, usegmt=True))
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        body = reply.body if reply.keep is None else reply.body[: reply.keep]
        if not reply.drip:
            self.wfile.write(body)
        else:
            for position in range(len(body)):
                if self.server.closing.wait(reply.drip.total_seconds()):
                    break
                self.wfile.write(body[position : position + 1])
        if reply.keep is not None:
            self._cut(reset=False)

    def _cut(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # Lingering for no time makes the kernel send RST in place of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
        else:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """The fakes keep their own log of requests."""

"""uvicorn in a thread of its own, beside the scheduler: it takes no signals and never ends the process."""

import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

# Scrapes and probes that are being answered may finish; a stopping daemon does not wait for more.
_GRACE_SECONDS = 2
_BACKLOG = 128


class ListenError(Exception):
    """The address cannot be listened on. The text names it and says why."""


class Server:
    """An application being served. Made by ``serve``."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        # A daemon thread: a request that hangs must not keep the process from ending. uvicorn installs its signal
        # handlers in the main thread only.
        self._thread = threading.Thread(target=self._uvicorn.run, args=([listener],), name="web", daemon=True)
        self.host, self.port = listener.getsockname()[:2]
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def stop(self) -> None:
        """Listen no longer, let what is being answered finish for two seconds, and return. May be called again."""
        self._uvicorn.should_exit = True
        self._thread.join(_GRACE_SECONDS + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def serve(app: ASGIApp, host: str, port: int) -> Server:
    """Serve ``app`` until ``Server.stop``. Connections are taken from the moment this returns.

    Args:
        app: the application.
        host: a name or an address, IPv6 without brackets.
        port: 0 takes a free one; ``Server.port`` tells which.

    Raises:
        ListenError: the port is taken, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        listener = socket.create_server(
            address,
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6(),
        )
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        why = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ListenError(f"cannot listen on {host} port {port}: {why}") from None
    return Server(app, listener)

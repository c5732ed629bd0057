"""The effects of a replica, numbered: every write and commit of its ledger, every request, every stage of a purchase's.

A process that dies between two effects leaves the same world behind wherever between them it dies, so that dying before
each effect is dying everywhere. The stages of a POST have points of their own, because the cloud works on while nobody
waits for it; so has the moment after a purchase's commit, because time may pass until the next effect.

A replica that is not to die but to stand still does so only between transactions: inside one it would hold the file's
lock, and no other replica could write. It stands still only where a purchase of its own is under way.
"""

import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any

import httpx
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool

DIED = 137

# Where in the course an effect belongs: the columns of the table.
PLACES = ("lease", "look", "note", "reserve", "claim", "connect", "send", "answer", "record", "settle", "person")

_UNDER_WAY = frozenset({"reserve", "claim", "connect", "send", "answer", "record", "settle"})

# Stages of a POST, as httpcore names them to a trace. What is not here changes nothing between two that are.
_STAGES = {
    "connect_tcp.started": ("connect", "before connecting"),
    "connect_tcp.complete": ("connect", "connected"),
    "send_request_headers.complete": ("send", "headers sent"),
    "send_request_body.complete": ("send", "body sent"),
    "receive_response_headers.complete": ("answer", "status and headers heard"),
    "receive_response_body.complete": ("answer", "answer heard"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """One effect, as a person reads it."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


class Kind(Enum):
    """What an effect is beside others."""

    WRITE = "write"  # inside a transaction
    COMMITTED = "committed"  # none, but the moment after one
    REQUEST = "request"


class Effects:
    """Counts effects, and ends or halts this process before number ``last``, or the first of that name; 0: never.

    ``link`` leads to whoever started it: it is told of the point, and tells one that stands still to go on.
    """

    def __init__(self, link: Connection, *, last: int | Point = 0, stands_still: bool = False) -> None:
        self.count = 0
        self.woken = False
        self.phase = "lease"
        self.posted = False
        self._link = link
        self._last = last
        self._stands_still = stands_still
        self._lock = threading.Lock()

    def reach(self, kind: Kind, point: Point) -> None:
        """Be about to make one more effect."""
        with self._lock:
            if not self._counts(kind, point):
                return
            self.count += 1
            if self._last not in (self.count, point):
                return
            self._last = 0
            if not self._stands_still:
                self._link.send(("died", point))
                os._exit(DIED)
            self._link.send(("stands", point))
            self._link.recv()
            self.woken = True

    def _counts(self, kind: Kind, point: Point) -> bool:
        if self._stands_still:
            return kind is not Kind.WRITE and point.place in _UNDER_WAY
        return kind is not Kind.COMMITTED or point.place in _UNDER_WAY or point.place == "person"

    def place(self) -> str:
        """The column that a write of this thread belongs to."""
        if threading.current_thread().name.startswith("send"):
            return "record" if self.posted else "claim"
        return {"evaluate": "note"}.get(self.phase, self.phase)


class Network:
    """Makes a transport for each connection; a replica says by ``watch`` who counts what is sent over it."""

    def __init__(self) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused: one that knows authorities takes 25 ms to make
        self._effects: Effects | None = None
        self._road: Callable[[], int | None] = lambda: None

    def watch(self, effects: Effects, road: Callable[[], int | None]) -> None:
        """``road`` is asked right before a purchase is sent: the port it goes to in place of its own, or None."""
        self._effects, self._road = effects, road

    def __call__(self) -> httpx.BaseTransport:
        assert self._effects is not None, "nobody watches"
        return _WatchedTransport(self._effects, self._road, httpx.HTTPTransport(verify=self._tls, retries=0))


class _WatchedTransport(httpx.BaseTransport):
    """Passes requests on, and tells of every stage of a purchase's."""

    def __init__(self, effects: Effects, road: Callable[[], int | None], network: httpx.BaseTransport) -> None:
        self._effects = effects
        self._road = road
        self._network = network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        effects = self._effects
        if request.method == "GET":
            place = "settle" if effects.phase == "settle" else "look"
            effects.reach(Kind.REQUEST, Point(place, "GET"))
            return self._network.handle_request(request)
        port = self._road()
        if port is not None:
            request.url = request.url.copy_with(port=port)
        tell = request.extensions["trace"]

        def trace(name: str, info: dict[str, Any]) -> None:
            tell(name, info)
            stage = _STAGES.get(name.partition(".")[2])
            if stage is not None:
                effects.reach(Kind.REQUEST, Point(*stage))

        effects.posted = True
        request.extensions = {**request.extensions, "trace": trace}
        return self._network.handle_request(request)

    def close(self) -> None:
        self._network.close()


def watch_ledger(effects: Effects) -> Callable[[], None]:
    """Count the writes and commits of every engine in this process; returns what ends that."""

    def before_statement(connection: Any, _: object, statement: str, *__: object) -> None:
        verb, *rest = statement.split(None, 4)
        if verb not in ("INSERT", "UPDATE", "DELETE"):
            return
        table = rest[0] if verb == "UPDATE" else rest[1]
        place = connection.info.get("place") or effects.place()
        if place == "note" and table == "purchases":
            place = "reserve"
        elif place == "note" and table in ("workers", "looks"):
            place = "look"
        connection.info["place"] = place
        effects.reach(Kind.WRITE, Point(place, f"{verb} {table}"))

    def before_commit(connection: Any) -> None:
        if "place" in connection.info:
            effects.reach(Kind.WRITE, Point(connection.info["place"], "COMMIT"))

    def after_commit(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        place = record.info.pop("place", None)
        if place is not None:
            effects.reach(Kind.COMMITTED, Point(place, "committed"))

    listeners: tuple[tuple[Any, str, Callable[..., None]], ...] = (
        (Engine, "before_cursor_execute", before_statement),
        (Engine, "commit", before_commit),
        (Pool, "checkin", after_commit),
    )
    for target, name, listener in listeners:
        event.listen(target, name, listener)

    def end() -> None:
        for target, name, listener in listeners:
            event.remove(target, name, listener)

    return end

"""Where a soak's ledger is: a file, or a PostgreSQL that is cut off and restarted; and its rows, read without us."""

import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tests.crashes.judge import Row
from tests.system.postgres_server import PostgresServer
from tests.system.tcp_proxy import Lost, TcpProxy

_PURCHASES = "SELECT id, nonce, state, asked FROM purchases ORDER BY id"
_EVENTS = "SELECT purchase_id, before, after, author FROM purchase_events ORDER BY id"
_OUTAGE = (0.0, 3.0)  # seconds


@dataclass(frozen=True, slots=True)
class Event:
    """A step of a purchase."""

    purchase_id: int
    before: str | None
    after: str
    author: str | None  # None: the daemon


class Store(Protocol):
    """A ledger's database, from outside."""

    url: str
    troubles: Sequence[str]  # what can be done to it

    def rows(self) -> list[Row]: ...

    def events(self) -> list[Event]: ...

    def trouble(self, kind: str, draw: random.Random) -> None:
        """Do one of ``troubles`` to it."""
        ...


class InFile:
    """SQLite: nothing happens to it but that its processes die."""

    troubles: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ledger.db"
        self.url = f"sqlite:///{self._file}"

    def rows(self) -> list[Row]:
        return [Row(*row) for row in self._ask(_PURCHASES)]

    def events(self) -> list[Event]:
        return [Event(*row) for row in self._ask(_EVENTS)]

    def trouble(self, kind: str, draw: random.Random) -> None:
        raise ValueError(f"nothing can be done to a file, {kind} neither")

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._file)) as connection:
            return connection.execute(statement).fetchall()


class InServer:
    """A database of a PostgreSQL, reached through a proxy; ``database`` is its name."""

    troubles: Sequence[str] = ("connections cut", "a commit lost", "a confirmation lost", "restarted", "crashed")

    def __init__(self, server: PostgresServer, proxy: TcpProxy) -> None:
        self._server = server
        self._proxy = proxy
        self.database = server.create_database()
        self.url = server.url(self.database, proxy.port)

    def rows(self) -> list[Row]:
        return [Row(*row) for row in self._server.execute(_PURCHASES, database=self.database)]

    def events(self) -> list[Event]:
        return [Event(*row) for row in self._server.execute(_EVENTS, database=self.database)]

    def execute(self, statement: str) -> None:
        """Run a statement there, as its owner."""
        self._server.execute(statement, database=self.database)

    def trouble(self, kind: str, draw: random.Random) -> None:
        match kind:
            case "connections cut":
                with suppress(psycopg.OperationalError):
                    self._server.cut_connections(self.database)
            case "a commit lost":
                self._proxy.lose(Lost.REQUEST, b"COMMIT", nth=draw.randint(1, 6))
            case "a confirmation lost":
                self._proxy.lose(Lost.ANSWER, b"COMMIT", nth=draw.randint(1, 6))
            case _:
                self._server.stop() if kind == "restarted" else self._server.kill()
                time.sleep(draw.uniform(*_OUTAGE))
                self._server.start()

"""The ledger in each of its forms, for tests that every form has to pass: two handles on one ledger, and its clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from autoscaler.ledger import MemoryLedger, SqlLedger, open_ledger
from tests.build import NOW
from tests.system.postgres_server import PostgresServer

Ledger = SqlLedger | MemoryLedger
Handles = tuple[Ledger, Ledger]  # as two threads or two daemons have them


class Clock:
    """The clock of the process, which also rules the leases of all forms but PostgreSQL."""

    def __init__(self) -> None:
        self.now = NOW
        self.followers: list[Callable[[timedelta], None]] = []

    def __call__(self) -> datetime:
        return self.now

    def passes(self, span: timedelta) -> None:
        """Let time pass."""
        self.now += span
        for follow in self.followers:
            follow(span)


def in_lists(clock: Clock) -> Handles:
    """One ledger in lists; its handles are the same."""
    ledger = MemoryLedger(clock=clock)
    return ledger, ledger


@contextmanager
def in_sqlite(file: Path, clock: Clock) -> Iterator[Handles]:
    """A ledger in a file."""
    both = open_ledger(f"sqlite:///{file}", clock=clock), open_ledger(f"sqlite:///{file}", clock=clock)
    yield both
    for handle in both:
        handle.close()


class InPostgres:
    """A database and two handles on it that tests take in turns: making one for each would take most of their time."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._clock = Clock()
        self._database = server.create_database()
        url = server.url(self._database)
        self._handles = open_ledger(url, clock=self._now), open_ledger(url, clock=self._now)
        self._tables = self._execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )

    def empty(self, clock: Clock) -> Handles:
        """The ledger as a new one, its leases ruled by ``clock``."""
        self._execute(
            "SET session_replication_role = replica;"  # whichever table comes first, no foreign key is in the way
            + "".join(f"DELETE FROM {name};" for (name,) in self._tables)
            + "SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences"
        )
        clock.followers.append(self._pass)
        self._clock = clock
        return self._handles

    def close(self) -> None:
        """Close the handles."""
        for handle in self._handles:
            handle.close()

    def _now(self) -> datetime:
        return self._clock()

    def _pass(self, span: timedelta) -> None:
        # The server's clock cannot be set. To be announced for less long comes to the same.
        self._execute("UPDATE replicas SET expires_at = expires_at - %s", span // timedelta(microseconds=1))

    def _execute(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        return self._server.execute(statement, *parameters, database=self._database)

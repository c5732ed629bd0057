"""One database: its connections, its transactions and its errors.

Writers are kept apart from the first statement on (SQLite's BEGIN IMMEDIATE, PostgreSQL's advisory lock), so that what
a write transaction has read is still true when it commits. Readers see one moment and wait for nobody.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from autoscaler.ledger.errors import LedgerError, LedgerMissing, LedgerUnavailable
from autoscaler.ledger.file import LedgerFile
from autoscaler.ledger.postgres import ask, concerns, refusal
from autoscaler.purchase import Raced

BUSY_SECONDS = 10
"""How long to wait for another writer. A write transaction takes milliseconds; this is for a stalled disk."""

STALLED_SECONDS = 5
"""How long PostgreSQL lets a writer do nothing. A stopped process, or one whose machine is gone, would otherwise keep
all others from writing; in less than the time between their renewals and the end of their leases they go on."""

_WRITERS = int.from_bytes(b"autoscal")  # any number will do, as long as every replica takes the same
_ALONE = f"""
SET LOCAL lock_timeout = '{BUSY_SECONDS}s';
SET LOCAL idle_in_transaction_session_timeout = '{STALLED_SECONDS}s';
SELECT pg_advisory_xact_lock({_WRITERS})
"""
_PATIENCE = {  # libpq's own words: a server that is gone without a word is noticed by these
    "connect_timeout": str(BUSY_SECONDS),
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": str(BUSY_SECONDS * 1000),
}
_FAILURES = "autoscaler's failures"  # how many there had been when a connection was opened
_LOST_RACE = frozenset({"23505", "40001", "40P01"})  # SQLSTATE: unique violation, serialization failure, deadlock
_LOST_RACE_SQLITE = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})

_CHECK = "see that the database answers and that AUTOSCALER_LEDGER names it"
_MENDS = (
    ("unable to open", "see that its folder exists and that this user may write there, or set AUTOSCALER_LEDGER"),
    ("readonly", "let this user write the file, its -wal and -shm, and its folder"),
    ("locked", "another process is holding a write open: find and end it"),
    ("full", "free some space on its disk"),
    ("no space left", "free some space on its disk"),
    ("not a database", "the file is something else or damaged: put a backup in its place"),
    ("malformed", "the file is damaged: put a backup in its place"),
    ("disk i/o error", "its -wal was removed, or its disk fails: see the system's log"),
    ("no such table", "the file holds no ledger any more: put a backup in its place"),
    ('relation "', "the database holds no ledger any more: restore it, and say `autoscaler ledger restored`"),
    ("no module named", "install the extra: pip install 'autoscaler[postgres]'"),
    ("password", "see that AUTOSCALER_LEDGER holds the user's password"),
    ('database "', "create it (createdb), and see that the user in AUTOSCALER_LEDGER may connect to it"),
    ("connection slots", "let the server take more connections (max_connections), or end some"),
    ("too many clients", "let the server take more connections (max_connections), or end some"),
    ("permission denied", "make the user in AUTOSCALER_LEDGER the owner of the database"),
    ("lock timeout", "another process is holding a write open: find it in pg_stat_activity and end it"),
    ("idle-in-transaction", "this process stood still while it was writing: nothing was written, and it goes on"),
    ("read-only transaction", "name the primary in AUTOSCALER_LEDGER"),
)


class Database:
    """A pool of connections to the ledger's database."""

    def __init__(self, url: str, clock: Callable[[], datetime], *, read_only: bool = False) -> None:
        """``clock`` is this process's. It stands for SQLite's too, which has none; others tell the time themselves.

        ``read_only`` makes the database itself refuse every write, and begins no file that is not there.

        LedgerUnavailable if ``url`` is not an address of a database that the ledger can be kept in; LedgerMissing.
        """
        address = _parsed(url)
        self.is_sqlite = address.get_backend_name() == "sqlite"
        self._shown = address.set(username=None, password=None, query={}).render_as_string()
        self._secrets = _secrets(address)
        self.clock = clock
        self._file = LedgerFile()
        self._failures = 0
        with self._translated():
            if self.is_sqlite:
                address = _existing(address) if read_only else address
                engine = create_engine(address, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})
                event.listen(engine, "connect", _forbid_writes if read_only else _prepare_sqlite)
                event.listen(engine, "connect", self._opened)
                event.listen(engine, "checkin", self._close_outdated)
                event.listen(engine, "begin", _begin_sqlite)
                self._reader = engine
                self._writer = engine.execution_options(ledger_writes=True)
            else:
                engine = create_engine(_patient(address), pool_pre_ping=True)
                if read_only:
                    engine = engine.execution_options(postgresql_readonly=True)
                else:
                    event.listen(engine, "connect", self._require_safe)
                self._reader = engine.execution_options(isolation_level="REPEATABLE READ")
                # Said, lest the server's default be another: a snapshot may not be older than the writers' lock.
                self._writer = engine.execution_options(isolation_level="READ COMMITTED")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it is at its first query."""
        with self._translated():
            self._file.require()
            with self._reader.connect() as connection, connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction alone among writers; it commits at the end of the block, and not at all if that raises.

        Raced if a unique key was taken; LedgerUnavailable also if a commit was not confirmed.
        """
        with self._translated():
            self._file.require()
            with self._writer.connect() as connection, connection.begin():
                info = connection.info
                self._file.require_log(info)
                if not self.is_sqlite:
                    connection.exec_driver_sql(_ALONE)
                yield connection
            self._file.require()  # else it may have been committed to files that nobody will find again
            self._file.require_log(info)

    def now(self, connection: Connection) -> datetime:
        """The time by the database's clock, which is the one that rules leases."""
        if self.is_sqlite:
            return self.clock()
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    @property
    def file(self) -> Path:
        """The file that a ledger in SQLite is kept in, once a connection was made to it."""
        return self._file.path

    def concerns(self) -> tuple[str, ...]:
        """What is doubtful about the way the database keeps what it has confirmed; one clause each."""
        if self.is_sqlite:
            return ()
        with self.reading() as connection:
            server = ask(lambda statement: tuple(connection.exec_driver_sql(statement).one()))
            return concerns(server, self.clock())

    def upsert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that replaces the row of the same primary key."""
        insert = sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)
        key = [column.name for column in table.primary_key]
        values = {column.name: insert.excluded[column.name] for column in table.c if column.name not in key}
        return insert.on_conflict_do_update(index_elements=key, set_=values)

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._writer.dispose()

    def _opened(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_FAILURES] = self._failures
        self._file.opened(connection, record.info)

    def _close_outdated(self, connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None and record.info.get(_FAILURES) != self._failures:
            record.invalidate()

    def _require_safe(self, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        """Refuse a server that may forget what it has confirmed."""

        def run(statement: str) -> tuple[Any, ...]:
            cursor = connection.cursor()
            cursor.execute(statement)
            row = cursor.fetchone()
            connection.rollback()
            return tuple(row or ())

        found = refusal(ask(run))
        if found is not None:
            connection.close()
            why, mend = found
            raise LedgerUnavailable(f"the ledger {self._shown} cannot be used: {why}", mend)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _lost_race(error):
                raise Raced("another writer was first") from error
            if isinstance(error, IntegrityError):
                raise LedgerError(f"the ledger refuses the row: {self._said(error.orig)}") from error
            if self.is_sqlite:
                # What was opened while the file could not be written stays so, and so does what is opened beside it:
                # all are closed, those in use by other threads as soon as they are not.
                self._failures += 1
                self._writer.dispose()
            # Without its cause, here and below: what the driver said is in the message, and only there is it censored.
            raise self._unavailable(error.orig) from None
        except (SQLAlchemyError, ImportError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: BaseException | None) -> LedgerUnavailable:
        said = self._said(error)
        mend = next((mend for sign, mend in _MENDS if sign in said.lower()), _CHECK)
        return LedgerUnavailable(f"the ledger {self._shown} cannot be used: {said}", mend)

    def _said(self, error: BaseException | None) -> str:
        said = " ".join(str(error).split())
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return said


def address_of_file(path: Path) -> str:
    """The address of a ledger in this file, whatever signs its name is made of."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


def address_without_secrets(url: str) -> str:
    """The address of a PostgreSQL database as its own programs take it, without passwords. LedgerUnavailable."""
    address = _parsed(url)
    kept = {name: value for name, value in address.query.items() if "password" not in name.lower()}
    plain = address.set(drivername=address.get_backend_name(), password=None, query=kept)
    return plain.render_as_string().replace(":***@", "@")


def _secrets(address: URL) -> tuple[str, ...]:
    """What no message may hold: drivers take a password also as an option, and quote what they were given."""
    options = (str(value) for name, value in address.query.items() if "password" in name.lower())
    return tuple(secret for secret in (address.password, *options) if secret)


def _parsed(url: str) -> URL:
    mend = "write sqlite:///path/to/file or postgresql+psycopg://user@host/name"
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        # Without its cause: what cannot be parsed is quoted there, and may hold a password.
        raise LedgerUnavailable("AUTOSCALER_LEDGER is not the address of a database", mend) from None
    backend = address.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise LedgerUnavailable(f"the ledger cannot be kept in {backend}", mend)
    if backend == "sqlite" and address.database in (None, "", ":memory:"):
        raise LedgerUnavailable("a ledger in memory would forget what was bought", mend)
    return address


def _patient(address: URL) -> URL:
    """The address with our own limits of patience, where it says none."""
    unsaid = {name: value for name, value in _PATIENCE.items() if name not in address.query}
    return address.update_query_dict(unsaid)


def _existing(address: URL) -> URL:
    """The address by which SQLite opens a file without beginning it."""
    path = Path(address.database or "")
    if not path.exists():
        raise LedgerMissing(f"there is no ledger at {path}", "`autoscaler run` begins one, AUTOSCALER_LEDGER names it")
    # Not mode=ro, which leaves files of this user behind where the daemon is down, and the daemon may not write them.
    by_name = {"mode": "rw", "uri": "true"}
    return address.set(database=f"file:{quote(str(path.absolute()))}").update_query_dict(by_name)


def _forbid_writes(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    with suppress(sqlite3.OperationalError):
        # Refused while another process is at the file. The mode is the file's: whoever comes first or next sets it.
        cursor.execute("PRAGMA journal_mode = WAL")
    # A purchase must survive loss of power once its reservation has returned; evaluations come in batches.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("ledger_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lost_race(error: DBAPIError) -> bool:
    cause: Any = error.orig
    return (
        getattr(cause, "sqlstate", None) in _LOST_RACE or getattr(cause, "sqlite_errorcode", None) in _LOST_RACE_SQLITE
    )

"""A copy of a ledger in SQLite: one whole file, of one moment, that says of itself that it is a copy.

A daemon that is started on it therefore knows that it may lack purchases, whoever put it there and however.
"""

import os
import sqlite3
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from autoscaler.ledger.database import BUSY_SECONDS, Database
from autoscaler.ledger.errors import LedgerError
from autoscaler.ledger.migrate import require_current
from autoscaler.ledger.records import MarkName
from autoscaler.ledger.tables import microseconds

_MADE = "autoscaler ledger backup"


class BackupFailed(LedgerError):
    """The copy could not be made, and nothing is left of it."""


def back_up(url: str, target: Path, now: datetime) -> None:
    """Copy the ledger in the SQLite file that ``url`` names to ``target``, while daemons write.

    The copy is on disk when this returns. FileExistsError if something is there: nothing is ever overwritten.
    BackupFailed; LedgerMissing, LedgerOutdated, LedgerTooNew and LedgerUnavailable of the ledger.
    """
    database = Database(url, lambda: now, read_only=True)
    try:
        require_current(database)
        source = database.file
    finally:
        database.close()
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    try:
        _copy(source, unfinished, now)
        os.link(unfinished, target)  # which overwrites nothing, as renaming would
        _sync(target.parent)
    except FileExistsError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"the copy {target} cannot be written: {error}") from None
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        with suppress(FileNotFoundError):
            unfinished.with_name(f"{unfinished.name}-journal").unlink()


def _copy(source: Path, target: Path, now: datetime) -> None:
    # Readable by its owner alone from the first byte on; SQLite takes an empty file for one to begin.
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(source, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", [str(target)])
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"it is damaged ({found}), and so may be the ledger")
        row = [MarkName.BACKUP.value, microseconds(now), _MADE]
        copy.execute("INSERT INTO marks (name, at, reason) VALUES (?, ?, ?)", row)
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The file of a ledger in SQLite, with the log beside it, and that they stay the ones that were opened.

SQLite goes on in files that were deleted or replaced, and what it confirms is then lost when the last process that has
them open ends; nor does it keep out a process that opened others. A purchase must not rest on such a row: whoever
writes looks here before and after.
"""

import os
import sqlite3
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection

from autoscaler.ledger.errors import LedgerUnavailable

_LOG = "autoscaler's log"  # what is kept of it with each connection
_RESTORE = 'put a copy back as README says under "The ledger", and start again'


class LedgerFile:
    """Where the file is, and which one it is, once a connection has been opened to it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._identity: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        if self._path is None:
            raise ValueError("no connection was made to it")
        return self._path

    def opened(self, connection: DBAPIConnection, connection_info: MutableMapping[Any, Any]) -> None:
        """The first connection's file is the ledger's. LedgerUnavailable if a later one opens another."""
        cursor = connection.cursor()
        if self._path is None:
            cursor.execute("PRAGMA database_list")
            row = cursor.fetchone()
            path = Path(row[2] if row else "")
            self._path, self._identity = path, _identity(path)
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA schema_version")  # by reading it opens the log
            cursor.fetchall()
        cursor.close()
        self.require()
        self.require_log(connection_info)

    def require(self) -> None:
        """LedgerUnavailable if the file is gone, or another one is in its place."""
        if self._path is None:
            return
        found = _identity(self._path)
        if found == self._identity:
            return
        if found is None:
            raise LedgerUnavailable(
                f"the ledger's file {self._path} is gone", f"put it back, and it goes on by itself; or {_RESTORE}"
            )
        raise LedgerUnavailable(
            f"another file was put in the place of the ledger {self._path} while it was in use",
            f"put the first one back, and it goes on by itself; or end every daemon on it, {_RESTORE}",
        )

    def require_log(self, connection_info: MutableMapping[Any, Any]) -> None:
        """LedgerUnavailable if the write-ahead log is not the one that the connection writes to.

        It stays as long as any connection is open, so that one whose log is another has lost its own.
        """
        if self._path is None:
            return
        log = Path(f"{self._path}-wal")
        found, known = _identity(log), connection_info.get(_LOG)
        if known is None:
            connection_info[_LOG] = found
        elif found != known:
            raise LedgerUnavailable(
                f"the ledger's log {log} was removed or replaced while it was in use",
                "put it back, and it goes on by itself; or end every daemon on it by SIGTERM, so that they save what "
                f"it held, and start again. If one was killed, {_RESTORE}",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino

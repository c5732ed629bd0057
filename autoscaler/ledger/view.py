"""The ledger for those who only look at it: not begun, not upgraded and not written by that.

What a look at a cluster adds to what is known is worked out in memory and forgotten, so that a decision explained is
the one that the daemon would come to.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from autoscaler.ledger import cluster_rows
from autoscaler.ledger.database import Database
from autoscaler.ledger.export import Line, lines
from autoscaler.ledger.migrate import require_current
from autoscaler.ledger.sql import SqlLedger
from autoscaler.model import Inventory, Worker


class LedgerView(SqlLedger):
    """A ledger in a database that refuses every write; methods that write raise LedgerUnavailable."""

    def record_look(self, inventory: Inventory) -> tuple[Worker, ...]:
        """The workers that a ledger would know after this look, which stays unrecorded."""
        with self._database.reading() as connection:
            return cluster_rows.workers_after(self._database, connection, inventory)

    def export(self) -> Iterator[Line]:
        """Everything about money, of one moment: kind and values of each line."""
        with self._database.reading() as connection:
            yield from lines(connection)


def view_ledger(url: str, *, clock: Callable[[], datetime]) -> LedgerView:
    """The ledger at ``url`` to look at, as ``open_ledger`` has made it.

    LedgerMissing if nobody has begun one; LedgerUnavailable, LedgerTooNew.
    """
    database = Database(url, clock, read_only=True)
    try:
        require_current(database)
    except BaseException:
        database.close()
        raise
    return LedgerView(database)

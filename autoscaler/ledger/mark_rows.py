"""Marks as rows: what happened to the ledger as a whole."""

from dataclasses import asdict, fields
from datetime import datetime

from sqlalchemy import Connection, insert, select

from autoscaler.ledger import override_rows, purchase_rows
from autoscaler.ledger.agreement import ENDED_BY_RESTORING, restoral_of, to_end
from autoscaler.ledger.records import Mark, MarkName
from autoscaler.ledger.tables import marks, purchases
from autoscaler.model import PurchaseState, Restoral
from autoscaler.purchase import copied

_MARK = tuple(marks.c[field.name] for field in fields(Mark))


def load(connection: Connection) -> tuple[Mark, ...]:
    """Every mark, oldest first."""
    return tuple(Mark(*row) for row in connection.execute(select(*_MARK).order_by(marks.c.id)))


def restoral(connection: Connection, now: datetime) -> Restoral | None:
    """What the ledger may have forgotten."""
    return restoral_of(load(connection), now)


def add(connection: Connection, mark: Mark) -> None:
    """Append a mark. Of a restored ledger, what was about to be sent or served may have been since it was copied."""
    connection.execute(insert(marks).values(asdict(mark)))
    if mark.name is MarkName.RESTORED:
        intended = select(purchases.c.id).where(purchases.c.state == PurchaseState.INTENDED)
        for purchase in purchase_rows.load(connection, intended):
            purchase_rows.change(connection, purchase.id, copied, mark.at, "the ledger was restored", mark.author)
        for order_id in to_end(mark, override_rows.active(connection, mark.at)):
            override_rows.end(connection, order_id, *ENDED_BY_RESTORING, mark.at)

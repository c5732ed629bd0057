"""Everything in a ledger that is about money, as values to be written line by line."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, select

from autoscaler.decision import Decision
from autoscaler.ledger import mark_rows, purchase_rows
from autoscaler.ledger.tables import decisions, override_ends, overrides, purchases

Line = tuple[str, Mapping[str, Any]]


def lines(connection: Connection) -> Iterator[Line]:
    """Kind and values: purchases with what became of each, orders and their ends, decisions, marks; oldest first."""
    ids = connection.execute(select(purchases.c.id).order_by(purchases.c.id)).scalars().all()
    for key in ids:
        purchase = purchase_rows.find(connection, key)
        if purchase is not None:
            numbers = {"arrived": purchase.arrived, "outstanding": purchase.outstanding}
            yield "purchase", {field.name: getattr(purchase, field.name) for field in fields(purchase)} | numbers
    for key in ids:
        for event in purchase_rows.events(connection, key):
            yield "purchase_event", {"purchase_id": key, **asdict(event)}
    for order in connection.execute(select(overrides).order_by(overrides.c.id)).mappings():
        yield "override", dict(order)
    for end in connection.execute(select(override_ends).order_by(override_ends.c.override_id)).mappings():
        yield "override_end", dict(end)
    columns = (decisions.c.id, decisions.c.purchase_id, decisions.c.decision)
    for key, purchase_id, decision in connection.execute(select(*columns).order_by(decisions.c.id)):
        values = {field.name: getattr(decision, field.name) for field in fields(Decision)}
        yield "decision", {"id": key, "purchase_id": purchase_id, **values}
    for mark in mark_rows.load(connection):
        yield "mark", asdict(mark)

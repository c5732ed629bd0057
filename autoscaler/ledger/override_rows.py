"""Orders of people as rows; an order is never changed, and ended early by a row of its own."""

from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, or_, select

from autoscaler.ledger.errors import NotFound
from autoscaler.ledger.tables import override_ends, overrides
from autoscaler.model import Override

_GIVEN = tuple(field.name for field in fields(Override) if field.name not in ("id", "ended_at"))


def add(connection: Connection, override: Override) -> Override:
    """The order, written, with the id it got."""
    values = {name: getattr(override, name) for name in _GIVEN}
    id = connection.execute(insert(overrides).values(values).returning(overrides.c.id)).scalar_one()
    return replace(override, id=id)


def active(connection: Connection, now: datetime) -> tuple[Override, ...]:
    """The orders that hold at ``now``, by id."""
    not_ended = or_(override_ends.c.at.is_(None), override_ends.c.at > now)
    rows = connection.execute(_selected().where(overrides.c.starts_at <= now, overrides.c.ends_at > now, not_ended))
    return tuple(Override(*row) for row in rows)


def end(connection: Connection, override_id: int, author: str, reason: str, at: datetime) -> Override:
    """The order as it stands once ended; the first end of an order wins."""
    row = connection.execute(_selected().where(overrides.c.id == override_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no override {override_id}")
    override = Override(*row)
    if override.ended_at is not None:
        return override
    connection.execute(insert(override_ends).values(override_id=override_id, author=author, reason=reason, at=at))
    return replace(override, ended_at=at)


def _selected() -> Select[*tuple[Any, ...]]:
    given = (overrides.c[name] for name in ("id", *_GIVEN))
    query: Select[*tuple[Any, ...]] = select(*given, override_ends.c.at)
    return query.outerjoin(override_ends, override_ends.c.override_id == overrides.c.id).order_by(overrides.c.id)

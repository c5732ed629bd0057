"""Orders of people as rows; an order is never changed, and ended early by a row of its own."""

from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select

from autoscaler.ledger.agreement import KEYS_KEPT
from autoscaler.ledger.errors import NotFound
from autoscaler.ledger.tables import override_ends, override_keys, overrides
from autoscaler.model import Override
from autoscaler.override import KeyReused, OrderKey

_ENDED = ("ended_at", "ended_by", "ended_reason")
_GIVEN = tuple(field.name for field in fields(Override) if field.name not in ("id", *_ENDED))


def add(connection: Connection, override: Override, key: OrderKey | None = None) -> Override:
    """The order, written, with the id it got; or the one that was written for the same key before."""
    if key is not None:
        connection.execute(delete(override_keys).where(override_keys.c.at <= override.starts_at - KEYS_KEPT))
        used = connection.execute(
            select(override_keys.c.override_id, override_keys.c.digest).where(
                override_keys.c.author == override.author, override_keys.c.key == key.key
            )
        ).one_or_none()
        if used is not None:
            if used.digest != key.digest:
                raise KeyReused(used.override_id)
            return find(connection, used.override_id)
    values = {name: getattr(override, name) for name in _GIVEN}
    id = connection.execute(insert(overrides).values(values).returning(overrides.c.id)).scalar_one()
    if key is not None:
        row = {"author": override.author, "key": key.key, "digest": key.digest, "override_id": id}
        connection.execute(insert(override_keys).values(row | {"at": override.starts_at}))
    return replace(override, id=id)


def active(connection: Connection, now: datetime) -> tuple[Override, ...]:
    """The orders that hold at ``now``, by id."""
    # Not by their start or early end: what was recorded is to be obeyed, also where the clock of its author was ahead.
    not_ended = override_ends.c.at.is_(None)
    rows = connection.execute(_selected().where(overrides.c.ends_at > now, not_ended).order_by(overrides.c.id))
    return tuple(Override(*row) for row in rows)


def newest(connection: Connection, before_id: int | None, limit: int) -> tuple[Override, ...]:
    """One page of all orders ever given, newest first."""
    query = _selected().order_by(overrides.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(overrides.c.id < before_id)
    return tuple(Override(*row) for row in connection.execute(query))


def find(connection: Connection, override_id: int) -> Override:
    """The order of that id. NotFound."""
    row = connection.execute(_selected().where(overrides.c.id == override_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no override {override_id}")
    return Override(*row)


def end(connection: Connection, override_id: int, author: str, reason: str, at: datetime) -> Override:
    """The order as it stands once ended; the first end of an order wins."""
    override = find(connection, override_id)
    if override.ended_at is not None:
        return override
    connection.execute(insert(override_ends).values(override_id=override_id, author=author, reason=reason, at=at))
    return replace(override, ended_at=at, ended_by=author, ended_reason=reason)


def _selected() -> Select[*tuple[Any, ...]]:
    given = (overrides.c[name] for name in ("id", *_GIVEN))
    ended = (override_ends.c.at, override_ends.c.author, override_ends.c.reason)
    query: Select[*tuple[Any, ...]] = select(*given, *ended)
    return query.outerjoin(override_ends, override_ends.c.override_id == overrides.c.id)

"""The ledger's tables, as the newest migration leaves them.

Columns bear the names of the fields they keep, so that rows and values map onto each other without a list of pairs.
Instants are whole microseconds since 1970 and fractions are text: both are exact, and instants compare rightly in every
database. What no query filters by is JSON text.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    false,
)

from autoscaler.decision import Decision
from autoscaler.ledger.records import MarkName
from autoscaler.model import CheckReading, OverrideKind, PurchaseState, RefusalClass, Run, Terms
from autoscaler.purchase import UNRESOLVED

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """An instant as it is kept; a naive one is a TypeError."""
    return (instant - _EPOCH) // _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970; a naive one is a TypeError."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class Exact(TypeDecorator[Fraction]):
    """A fraction as its text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Fraction | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Fraction | None:
        return None if value is None else Fraction(value)


class Json(TypeDecorator[Any]):
    """A value as the JSON text that its pydantic adapter makes of it."""

    impl = Text
    cache_ok = True

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        super().__init__()
        self.adapter = adapter

    def process_bind_param(self, value: object, dialect: Dialect) -> str | None:
        return None if value is None else self.adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self.adapter.validate_json(value)


def _word(enum: type[StrEnum]) -> Enum:
    return Enum(enum, native_enum=False, length=32, values_callable=lambda members: [m.value for m in members])


_STRINGS = Json(TypeAdapter(tuple[str, ...]))
_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER key

metadata = MetaData()

policy_versions = Table(
    "policy_versions",
    metadata,
    Column("version", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

latest = Table(
    "latest",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("decision", Json(TypeAdapter(Decision)), nullable=False),
    Column("runs", Json(TypeAdapter(tuple[Run, ...])), nullable=False),
    Column("readings", Json(TypeAdapter(tuple[CheckReading, ...]))),
)

# Ordered by time, so that writing and pruning touch one end of it; a chart asks for each of its minutes by key.
samples = Table(
    "samples",
    metadata,
    Column("at", Instant, primary_key=True, autoincrement=False),
    Column("policy", Text, primary_key=True),
    Column("demand", Exact),
    Column("wanted", Integer),
    Column("serving", Integer),
    Column("expected", Integer),
    Column("joining", Integer),
    Column("warming", Integer),
    Column("lost", Integer),
    Column("written_off", Integer),
    Column("lapsing", Integer),
    Column("imagined", Integer),
    Column("paid", Integer),
    Column("unhealthy", Boolean),
    sqlite_with_rowid=False,
)

purchases = Table(
    "purchases",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("cluster_id", Text, nullable=False),
    Column("state", _word(PurchaseState), nullable=False),
    Column("asked", Integer, nullable=False),
    Column("terms", Json(TypeAdapter(Terms)), nullable=False),
    Column("imagined", Boolean, nullable=False),
    Column("nonce", Text, nullable=False, unique=True),
    Column("signed_at", Instant, nullable=False),
    Column("reserved_at", Instant, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("supply_before", Integer, nullable=False),
    Column("tasks_before", _STRINGS, nullable=False),
    Column("order_id", BigInteger),
    Column("sent_at", Instant),
    Column("answered_at", Instant),
    Column("ended_at", Instant),
    Column("task_id", Text),
    Column("request_id", Text),
    Column("refusal", _word(RefusalClass)),
    Column("code", Text),
    Column("message", Text),
    Column("failed", Integer, nullable=False),
    Column("failures", _STRINGS, nullable=False),
    Column("adopted", Boolean, nullable=False),
    Column("overdue_at", Instant),
    Column("retried_at", Instant),
    sqlite_autoincrement=True,
)
_open = purchases.c.state.in_(sorted(UNRESOLVED))
Index(
    "one_open_purchase",
    purchases.c.cluster_id,
    purchases.c.imagined,
    unique=True,
    sqlite_where=_open,
    postgresql_where=_open,
)
Index("purchases_of_policy", purchases.c.policy, purchases.c.cluster_id, purchases.c.state, purchases.c.imagined)
Index("purchases_of_state", purchases.c.state)
Index("purchases_of_cluster", purchases.c.cluster_id, purchases.c.state)
Index("purchases_refused", purchases.c.refusal, purchases.c.cluster_id)

purchase_budgets = Table(
    "purchase_budgets",
    metadata,
    Column("purchase_id", _ID, ForeignKey(purchases.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("budget", Text, nullable=False, index=True),
)

purchase_events = Table(
    "purchase_events",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("purchase_id", _ID, ForeignKey(purchases.c.id), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("before", _word(PurchaseState)),
    Column("after", _word(PurchaseState), nullable=False),
    Column("what", Text, nullable=False),
    Column("author", Text),
    sqlite_autoincrement=True,
)

arrivals = Table(
    "arrivals",
    metadata,
    Column("cluster_id", Text, primary_key=True),
    Column("instance_id", Text, primary_key=True),
    Column("purchase_id", _ID, ForeignKey(purchases.c.id), nullable=False, index=True),
    Column("at", Instant, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("policy_version", Text, ForeignKey(policy_versions.c.version), nullable=False),
    Column("at", Instant, nullable=False, index=True),
    Column("purchase_id", _ID, ForeignKey(purchases.c.id)),
    Column("decision", Json(TypeAdapter(Decision)), nullable=False),
    Column("facts", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
Index("decisions_of_policy", decisions.c.policy, decisions.c.id)

overrides = Table(
    "overrides",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", _word(OverrideKind), nullable=False),
    Column("policies", _STRINGS, nullable=False),
    Column("workers", Integer),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("starts_at", Instant, nullable=False),
    Column("ends_at", Instant, nullable=False, index=True),
    sqlite_autoincrement=True,
)

override_ends = Table(
    "override_ends",
    metadata,
    Column("override_id", _ID, ForeignKey(overrides.c.id), primary_key=True),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Instant, nullable=False),
)

override_keys = Table(
    "override_keys",
    metadata,
    Column("author", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("override_id", _ID, ForeignKey(overrides.c.id), nullable=False),
    Column("at", Instant, nullable=False, index=True),
)

looks = Table(
    "looks",
    metadata,
    Column("cluster_id", Text, primary_key=True),
    Column("at", Instant, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("cluster_id", Text, primary_key=True),
    Column("instance_id", Text, primary_key=True),
    Column("instance_type", Text, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("created_at", Instant),
    Column("expires_at", Instant),
    Column("first_seen_at", Instant, nullable=False),
    Column("ready_at", Instant),
    Column("last_ready_at", Instant),
    Column("last_seen_at", Instant),
    Column("missing_at", Instant),
    Column("gone_at", Instant),
)

marks = Table(
    "marks",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", _word(MarkName), nullable=False),
    Column("at", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("author", Text),
    sqlite_autoincrement=True,
)

replicas = Table(
    "replicas",
    metadata,
    Column("holder", Text, primary_key=True),
    Column("expires_at", Instant, nullable=False),
    Column("asks", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("cluster_id", Text, primary_key=True),
    Column("holder", Text),
    Column("fence", Integer, nullable=False),
)


def is_named(column: Column[str], policy: str) -> ColumnElement[bool]:
    """Whether a row is of the policy of this name. No name holds a NUL, and PostgreSQL takes no text that does."""
    return false() if "\0" in policy else column == policy

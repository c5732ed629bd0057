"""The first schema.

Written out rather than taken from ``tables.py``: a migration says what was, whatever the tables become later.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OPEN = sa.text("state IN ('intended', 'sending', 'unknown')")


def _required(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    """Create every table."""
    _policies()
    _purchases()
    op.create_table(
        "decisions",
        sa.Column("id", _ID, primary_key=True),
        _required("policy", sa.Text()),
        sa.Column("policy_version", sa.Text(), sa.ForeignKey("policy_versions.version"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False, index=True),
        sa.Column("purchase_id", _ID, sa.ForeignKey("purchases.id")),
        _required("decision", sa.Text()),
        _required("facts", sa.LargeBinary()),
        sqlite_autoincrement=True,
    )
    op.create_index("decisions_of_policy", "decisions", ["policy", "id"])
    _overrides()
    _clusters()


def _policies() -> None:
    op.create_table(
        "policy_versions",
        sa.Column("version", sa.Text(), primary_key=True),
        _required("body", sa.Text()),
    )
    op.create_table(
        "latest",
        sa.Column("policy", sa.Text(), primary_key=True),
        _required("decision", sa.Text()),
        _required("runs", sa.Text()),
    )
    op.create_table(
        "samples",
        sa.Column("at", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("policy", sa.Text(), primary_key=True),
        sa.Column("demand", sa.Text()),
        sa.Column("wanted", sa.Integer()),
        sa.Column("serving", sa.Integer()),
        sa.Column("expected", sa.Integer()),
        sa.Column("joining", sa.Integer()),
        sa.Column("warming", sa.Integer()),
        sa.Column("lost", sa.Integer()),
        sa.Column("written_off", sa.Integer()),
        sa.Column("lapsing", sa.Integer()),
        sa.Column("imagined", sa.Integer()),
        sa.Column("paid", sa.Integer()),
        sa.Column("unhealthy", sa.Boolean()),
        sqlite_with_rowid=False,
    )


def _purchases() -> None:
    op.create_table(
        "purchases",
        sa.Column("id", _ID, primary_key=True),
        _required("policy", sa.Text()),
        _required("policy_version", sa.Text()),
        _required("cluster_id", sa.Text()),
        _required("state", sa.String(32)),
        _required("asked", sa.Integer()),
        _required("terms", sa.Text()),
        _required("imagined", sa.Boolean()),
        sa.Column("nonce", sa.Text(), nullable=False, unique=True),
        _required("signed_at", sa.BigInteger()),
        _required("reserved_at", sa.BigInteger()),
        _required("endpoint", sa.Text()),
        _required("credential", sa.Text()),
        _required("supply_before", sa.Integer()),
        _required("tasks_before", sa.Text()),
        sa.Column("order_id", sa.BigInteger()),
        sa.Column("sent_at", sa.BigInteger()),
        sa.Column("answered_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("task_id", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("refusal", sa.String(32)),
        sa.Column("code", sa.Text()),
        sa.Column("message", sa.Text()),
        _required("failed", sa.Integer()),
        _required("failures", sa.Text()),
        _required("adopted", sa.Boolean()),
        sa.Column("overdue_at", sa.BigInteger()),
        sa.Column("retried_at", sa.BigInteger()),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "one_open_purchase",
        "purchases",
        ["cluster_id", "imagined"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("purchases_of_policy", "purchases", ["policy", "cluster_id", "state", "imagined"])
    op.create_index("purchases_of_state", "purchases", ["state"])
    op.create_index("purchases_of_cluster", "purchases", ["cluster_id", "state"])
    op.create_index("purchases_refused", "purchases", ["refusal", "cluster_id"])
    op.create_table(
        "purchase_budgets",
        sa.Column("purchase_id", _ID, sa.ForeignKey("purchases.id"), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("budget", sa.Text(), nullable=False, index=True),
    )
    op.create_table(
        "purchase_events",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("purchase_id", _ID, sa.ForeignKey("purchases.id"), nullable=False, index=True),
        _required("at", sa.BigInteger()),
        sa.Column("before", sa.String(32)),
        _required("after", sa.String(32)),
        _required("what", sa.Text()),
        sa.Column("author", sa.Text()),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "arrivals",
        sa.Column("cluster_id", sa.Text(), primary_key=True),
        sa.Column("instance_id", sa.Text(), primary_key=True),
        sa.Column("purchase_id", _ID, sa.ForeignKey("purchases.id"), nullable=False, index=True),
        _required("at", sa.BigInteger()),
    )


def _overrides() -> None:
    op.create_table(
        "overrides",
        sa.Column("id", _ID, primary_key=True),
        _required("kind", sa.String(32)),
        _required("policies", sa.Text()),
        sa.Column("workers", sa.Integer()),
        _required("author", sa.Text()),
        _required("reason", sa.Text()),
        _required("starts_at", sa.BigInteger()),
        sa.Column("ends_at", sa.BigInteger(), nullable=False, index=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "override_ends",
        sa.Column("override_id", _ID, sa.ForeignKey("overrides.id"), primary_key=True),
        _required("author", sa.Text()),
        _required("reason", sa.Text()),
        _required("at", sa.BigInteger()),
    )


def _clusters() -> None:
    op.create_table(
        "looks",
        sa.Column("cluster_id", sa.Text(), primary_key=True),
        _required("at", sa.BigInteger()),
    )
    op.create_table(
        "workers",
        sa.Column("cluster_id", sa.Text(), primary_key=True),
        sa.Column("instance_id", sa.Text(), primary_key=True),
        _required("instance_type", sa.Text()),
        _required("listed", sa.Boolean()),
        _required("ready", sa.Boolean()),
        sa.Column("created_at", sa.BigInteger()),
        sa.Column("expires_at", sa.BigInteger()),
        _required("first_seen_at", sa.BigInteger()),
        sa.Column("ready_at", sa.BigInteger()),
        sa.Column("last_ready_at", sa.BigInteger()),
        sa.Column("last_seen_at", sa.BigInteger()),
        sa.Column("missing_at", sa.BigInteger()),
        sa.Column("gone_at", sa.BigInteger()),
    )
    op.create_table(
        "leases",
        sa.Column("cluster_id", sa.Text(), primary_key=True),
        _required("holder", sa.Text()),
        _required("expires_at", sa.BigInteger()),
        _required("fence", sa.Integer()),
    )

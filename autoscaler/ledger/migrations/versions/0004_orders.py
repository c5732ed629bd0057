"""Orders that are asked for twice by one key are one order; the latest evaluation keeps what its checks read."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the keys of orders, and the readings of the latest evaluations, unknown until the next ones."""
    op.add_column("latest", sa.Column("readings", sa.Text()))
    op.create_table(
        "override_keys",
        sa.Column("author", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column(
            "override_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("overrides.id"),
            nullable=False,
        ),
        sa.Column("at", sa.BigInteger(), nullable=False, index=True),
    )

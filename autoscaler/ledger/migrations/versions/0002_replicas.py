"""Replicas announce themselves, and their leases last as long as the announcement.

Leases held now end by that: who holds one asks again within seconds. Their fences go on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Move the time that leases end from them to their holder."""
    op.create_table(
        "replicas",
        sa.Column("holder", sa.Text(), primary_key=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("asks", sa.Text(), nullable=False),
    )
    with op.batch_alter_table("leases") as leases:
        leases.drop_column("expires_at")
        leases.alter_column("holder", existing_type=sa.Text(), nullable=True)

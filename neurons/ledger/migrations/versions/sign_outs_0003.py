"""Which sign-ins of the pages have ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "sign_outs",
        sa.Column("sign_in_id", sa.String(length=36), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sign_in_id", name=op.f("pk_sign_outs")),
    )
    op.create_index(op.f("ix_sign_outs_at_ms"), "sign_outs", ["at_ms"], unique=False)

"""What a round takes for granted, and who sets weights."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "round_steps",
        sa.Column("step_id", sa.String(length=36), nullable=False),
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.String(length=128), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", name=op.f("pk_round_steps")),
    )
    op.create_index(op.f("ix_round_steps_round_id"), "round_steps", ["round_id"], unique=False)
    op.create_table(
        "weight_claims",
        sa.Column("claim_id", sa.String(length=36), nullable=False),
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("hotkey", sa.String(length=64), nullable=False),
        sa.Column("registered_block", sa.BigInteger(), nullable=False),
        sa.Column("netuid", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("since_block", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("claim_id", name=op.f("pk_weight_claims")),
    )
    op.create_index(
        op.f("ix_weight_claims_hotkey_registered_block_at_ms"),
        "weight_claims",
        ["hotkey", "registered_block", "at_ms"],
        unique=False,
    )
    op.create_index(op.f("ix_weight_claims_round_id"), "weight_claims", ["round_id"], unique=False)
    op.create_table(
        "weight_events",
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("claim_id", sa.String(length=36), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.String(length=1024), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_weight_events")),
    )
    op.create_index(op.f("ix_weight_events_claim_id"), "weight_events", ["claim_id"], unique=False)

"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:  # noqa: PLR0915 - one statement a table and index
    """Bring the tables up to this revision."""
    op.create_table(
        "answers",
        sa.Column("answer_id", sa.String(length=36), nullable=False),
        sa.Column("question_id", sa.String(length=36), nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("hotkey", sa.String(length=64), nullable=False),
        sa.Column("registered_block", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("text_by", sa.String(length=64), nullable=True),
        sa.Column("failure", sa.String(length=64), nullable=False),
        sa.Column("first_token_ms", sa.BigInteger(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column("adapter_digest", sa.String(length=71), nullable=True),
        sa.Column("base_digest", sa.String(length=71), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.Column("receipt_valid", sa.Boolean(), nullable=True),
        sa.Column("score_milli", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("answer_id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_at_ms"), "answers", ["at_ms"], unique=False)
    op.create_index(
        op.f("ix_answers_hotkey_registered_block_at_ms"),
        "answers",
        ["hotkey", "registered_block", "at_ms"],
        unique=False,
    )
    op.create_index(op.f("ix_answers_patient_id"), "answers", ["patient_id"], unique=False)
    op.create_index(op.f("ix_answers_question_id"), "answers", ["question_id"], unique=False)
    op.create_table(
        "chosen",
        sa.Column("question_id", sa.String(length=36), nullable=False),
        sa.Column("answer_id", sa.String(length=36), nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("question_id", name=op.f("pk_chosen")),
    )
    op.create_index(op.f("ix_chosen_at_ms"), "chosen", ["at_ms"], unique=False)
    op.create_index(op.f("ix_chosen_patient_id"), "chosen", ["patient_id"], unique=False)
    op.create_index(op.f("ix_chosen_session_id"), "chosen", ["session_id"], unique=False)
    op.create_table(
        "consents",
        sa.Column("consent_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("given", sa.Boolean(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("wording", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("consent_id", name=op.f("pk_consents")),
    )
    op.create_index(op.f("ix_consents_patient_id"), "consents", ["patient_id"], unique=False)
    op.create_table(
        "corrections",
        sa.Column("correction_id", sa.String(length=36), nullable=False),
        sa.Column("answer_id", sa.String(length=36), nullable=False),
        sa.Column("question_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("doctor_id", sa.String(length=36), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_by", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("correction_id", name=op.f("pk_corrections")),
    )
    op.create_index(op.f("ix_corrections_answer_id"), "corrections", ["answer_id"], unique=False)
    op.create_index(op.f("ix_corrections_at_ms"), "corrections", ["at_ms"], unique=False)
    op.create_index(op.f("ix_corrections_patient_id"), "corrections", ["patient_id"], unique=False)
    op.create_index(op.f("ix_corrections_question_id"), "corrections", ["question_id"], unique=False)
    op.create_table(
        "dataset_lines",
        sa.Column("dataset_digest", sa.String(length=71), nullable=False),
        sa.Column("line_id", sa.String(length=36), nullable=False),
        sa.Column("line_digest", sa.String(length=32), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=True),
        sa.Column("erasure_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("dataset_digest", "line_id", name=op.f("pk_dataset_lines")),
    )
    op.create_index(op.f("ix_dataset_lines_erasure_id"), "dataset_lines", ["erasure_id"], unique=False)
    op.create_index(op.f("ix_dataset_lines_line_id"), "dataset_lines", ["line_id"], unique=False)
    op.create_index(op.f("ix_dataset_lines_patient_id"), "dataset_lines", ["patient_id"], unique=False)
    op.create_table(
        "datasets",
        sa.Column("dataset_digest", sa.String(length=71), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("line_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_digest", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_twin_uid_day"), "datasets", ["twin_uid", "day"], unique=False)
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.String(length=36), nullable=False),
        sa.Column("patient_digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("patient_digest"),
    )
    op.create_table(
        "preferences",
        sa.Column("preference_id", sa.String(length=36), nullable=False),
        sa.Column("question_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("preferred_id", sa.String(length=36), nullable=False),
        sa.Column("rejected_id", sa.String(length=36), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("preference_id", name=op.f("pk_preferences")),
    )
    op.create_index(op.f("ix_preferences_at_ms"), "preferences", ["at_ms"], unique=False)
    op.create_index(op.f("ix_preferences_patient_id"), "preferences", ["patient_id"], unique=False)
    op.create_index(op.f("ix_preferences_question_id"), "preferences", ["question_id"], unique=False)
    op.create_table(
        "questions",
        sa.Column("question_id", sa.String(length=36), nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_by", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("emergency", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("question_id", name=op.f("pk_questions")),
    )
    op.create_index(op.f("ix_questions_at_ms"), "questions", ["at_ms"], unique=False)
    op.create_index(op.f("ix_questions_patient_id"), "questions", ["patient_id"], unique=False)
    op.create_index(op.f("ix_questions_session_id_at_ms"), "questions", ["session_id", "at_ms"], unique=False)
    op.create_index(op.f("ix_questions_twin_uid_at_ms"), "questions", ["twin_uid", "at_ms"], unique=False)
    op.create_table(
        "ratings",
        sa.Column("rating_id", sa.String(length=36), nullable=False),
        sa.Column("answer_id", sa.String(length=36), nullable=False),
        sa.Column("question_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("stars", sa.SmallInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("comment_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("rating_id", name=op.f("pk_ratings")),
    )
    op.create_index(op.f("ix_ratings_answer_id"), "ratings", ["answer_id"], unique=False)
    op.create_index(op.f("ix_ratings_at_ms"), "ratings", ["at_ms"], unique=False)
    op.create_index(op.f("ix_ratings_patient_id"), "ratings", ["patient_id"], unique=False)
    op.create_index(op.f("ix_ratings_question_id"), "ratings", ["question_id"], unique=False)
    op.create_table(
        "retrainings",
        sa.Column("erasure_id", sa.String(length=36), nullable=False),
        sa.Column("adapter_digest", sa.String(length=71), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("run", sa.String(length=253), nullable=False),
        sa.Column("clean_ancestor", sa.String(length=71), nullable=True),
        sa.Column("certain", sa.Boolean(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("done_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("erasure_id", "adapter_digest", name=op.f("pk_retrainings")),
    )
    op.create_index(op.f("ix_retrainings_twin_uid"), "retrainings", ["twin_uid"], unique=False)
    op.create_table(
        "round_answers",
        sa.Column("answer_id", sa.String(length=36), nullable=False),
        sa.Column("item_id", sa.String(length=36), nullable=False),
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("hotkey", sa.String(length=64), nullable=False),
        sa.Column("registered_block", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("text_by", sa.String(length=64), nullable=True),
        sa.Column("failure", sa.String(length=64), nullable=False),
        sa.Column("adapter_digest", sa.String(length=71), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.Column("receipt_valid", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("answer_id", name=op.f("pk_round_answers")),
    )
    op.create_index(op.f("ix_round_answers_at_ms"), "round_answers", ["at_ms"], unique=False)
    op.create_index(op.f("ix_round_answers_item_id"), "round_answers", ["item_id"], unique=False)
    op.create_index(op.f("ix_round_answers_patient_id"), "round_answers", ["patient_id"], unique=False)
    op.create_index(op.f("ix_round_answers_round_id"), "round_answers", ["round_id"], unique=False)
    op.create_table(
        "round_items",
        sa.Column("item_id", sa.String(length=36), nullable=False),
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_by", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=True),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_round_items")),
    )
    op.create_index(op.f("ix_round_items_at_ms"), "round_items", ["at_ms"], unique=False)
    op.create_index(op.f("ix_round_items_patient_id"), "round_items", ["patient_id"], unique=False)
    op.create_index(op.f("ix_round_items_round_id"), "round_items", ["round_id"], unique=False)
    op.create_table(
        "rounds",
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("hotkey", sa.String(length=64), nullable=False),
        sa.Column("registered_block", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("challenge_digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_rounds")),
    )
    op.create_index(op.f("ix_rounds_at_ms"), "rounds", ["at_ms"], unique=False)
    op.create_index(op.f("ix_rounds_name"), "rounds", ["name"], unique=False)
    op.create_table(
        "rounds_finished",
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("results_digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_rounds_finished")),
    )
    op.create_table(
        "scores",
        sa.Column("score_id", sa.String(length=36), nullable=False),
        sa.Column("round_id", sa.String(length=36), nullable=False),
        sa.Column("hotkey", sa.String(length=64), nullable=False),
        sa.Column("registered_block", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.String(length=64), nullable=False),
        sa.Column("value_milli", sa.Integer(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=True),
        sa.Column("item_id", sa.String(length=36), nullable=True),
        sa.Column("patient_id", sa.String(length=36), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("score_id", name=op.f("pk_scores")),
    )
    op.create_index(op.f("ix_scores_at_ms"), "scores", ["at_ms"], unique=False)
    op.create_index(
        op.f("ix_scores_hotkey_registered_block_at_ms"), "scores", ["hotkey", "registered_block", "at_ms"], unique=False
    )
    op.create_index(op.f("ix_scores_patient_id"), "scores", ["patient_id"], unique=False)
    op.create_index(op.f("ix_scores_round_id"), "scores", ["round_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("patient_id", sa.String(length=36), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_at_ms"), "sessions", ["at_ms"], unique=False)
    op.create_index(op.f("ix_sessions_patient_id_at_ms"), "sessions", ["patient_id", "at_ms"], unique=False)
    op.create_table(
        "task_events",
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("adapter_digest", sa.String(length=71), nullable=True),
        sa.Column("detail", sa.String(length=1024), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_task_events")),
    )
    op.create_index(op.f("ix_task_events_task_id"), "task_events", ["task_id"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("hotkey", sa.String(length=64), nullable=False),
        sa.Column("registered_block", sa.BigInteger(), nullable=False),
        sa.Column("dataset_uri", sa.String(length=2048), nullable=False),
        sa.Column("dataset_digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("parent_digest", sa.String(length=71), nullable=True),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_dataset_digest"), "tasks", ["dataset_digest"], unique=False)
    op.create_index(op.f("ix_tasks_hotkey_registered_block"), "tasks", ["hotkey", "registered_block"], unique=False)
    op.create_table(
        "tombstones",
        sa.Column("patient_digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("patient_digest", name=op.f("pk_tombstones")),
    )
    op.create_table(
        "trainings",
        sa.Column("training_id", sa.String(length=36), nullable=False),
        sa.Column("run", sa.String(length=253), nullable=False),
        sa.Column("twin_uid", sa.String(length=36), nullable=False),
        sa.Column("twin_name", sa.String(length=253), nullable=False),
        sa.Column("dataset_digest", sa.String(length=71), nullable=False),
        sa.Column("adapter_digest", sa.String(length=71), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("parent_digest", sa.String(length=71), nullable=True),
        sa.Column("line_digests", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("training_id", name=op.f("pk_trainings")),
    )
    op.create_index(op.f("ix_trainings_adapter_digest"), "trainings", ["adapter_digest"], unique=False)
    op.create_index(op.f("ix_trainings_dataset_digest"), "trainings", ["dataset_digest"], unique=False)
    op.create_index(op.f("ix_trainings_twin_uid"), "trainings", ["twin_uid"], unique=False)

"""Alembic's environment: on the connection that `neurons.ledger.migrate` gives."""

from __future__ import annotations

from alembic import context

from neurons.ledger.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()

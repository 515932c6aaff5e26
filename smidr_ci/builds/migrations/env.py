"""Run by Alembic: migrates on the connection that `builds.database` hands over."""

from __future__ import annotations

from alembic import context

from smidr_ci.builds.tables import metadata

# batch: SQLite can't alter a table in place.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

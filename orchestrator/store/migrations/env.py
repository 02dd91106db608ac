"""Alembic's environment: works on the connection that it is given, never on a configuration file."""

from alembic import context

from orchestrator.store.schema import METADATA

connection = context.config.attributes["connection"]
# SQLite cannot alter tables in place: batch mode copies them.
context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

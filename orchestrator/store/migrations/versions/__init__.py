"""Alembic's migrations of the run table, run by `orchestrator.store.database`."""

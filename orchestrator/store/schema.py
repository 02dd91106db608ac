"""Tables of the run table. The migrations make them; this names them for queries.

One experiment per database. Times are aware UTC, kept as ISO 8601 text of fixed width, so that SQLite and PostgreSQL
compare and return them alike.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

RUN_TABLE = "run_table.sqlite"
"""File name of the run table in an experiment's folder."""

PAUSE_KEY = "pause"
"""Fact: who paused the campaign, why and when; absent while it is not paused."""

HEAD = "0002"
"""The newest migration."""


class UtcText(TypeDecorator[datetime]):
    """Aware datetime <-> `2026-11-21T12:00:00.000000+00:00`."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To text."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From text."""
        return None if value is None else datetime.fromisoformat(value)


METADATA = MetaData()

EXPERIMENT = Table(
    "experiment",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("factors", JSON, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("config_text", Text, nullable=False),
    Column("design", JSON, nullable=False),
    Column("plan_sha256", String(64), nullable=False),
    Column("created_at", UtcText, nullable=False),
    Column("software_version", Text, nullable=False),
)

RUN = Table(
    "run",
    METADATA,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("run_id", String(128), nullable=False, unique=True),
    Column("treatment", JSON, nullable=False),
    Column("repetition", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    # Attempts up to this number count no more: the run was given new ones by hand.
    Column("reopened_after", Integer, nullable=False, server_default="0"),
    Index("ix_run_state_position", "state", "position"),
)

ATTEMPT = Table(
    "attempt",
    METADATA,
    Column("attempt_id", String(128), primary_key=True),
    Column("run_id", String(128), ForeignKey("run.run_id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("testbed", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", UtcText),
    Column("claimed_at", UtcText, nullable=False),
    Column("updated_at", UtcText, nullable=False),
    Column("finished_at", UtcText),
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    # How the pause before it went, as far as this side knows; written before the testbed hears of the attempt.
    Column("cooldown", JSON(none_as_null=True)),
    # Why the result is doubted: the testbed's reasons and the orchestrator's own. `result` stays as it was received.
    Column("reasons", JSON(none_as_null=True)),
    UniqueConstraint("run_id", "number"),
    # The rule that no run has two accepted attempts is the database's own, whatever the program does.
    Index(
        "ux_attempt_accepted",
        "run_id",
        unique=True,
        sqlite_where=text("accepted"),
        postgresql_where=text("accepted"),
    ),
    # Open attempts are few among many: a partial index finds them at any size.
    Index(
        "ix_attempt_open",
        "claimed_at",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
)

EVENT = Table(
    "event",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", UtcText, nullable=False),
    # Of an event of the whole campaign both are null; of one of a run the first, and the states.
    Column("attempt_id", String(128)),
    Column("run_id", String(128), index=True),
    Column("state_before", String(16)),
    Column("state_after", String(16)),
    Column("message", Text, nullable=False),
)

FACT = Table("fact", METADATA, Column("key", String(128), primary_key=True), Column("value", JSON))

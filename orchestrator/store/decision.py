"""One decision of a person about the campaign: facts and the event that tells of them, in one transaction."""

from datetime import datetime
from typing import Any, Protocol

from pydantic import JsonValue
from sqlalchemy import Connection, delete, insert, select

from contract.attempt_state import RunState
from contract.errors import UsageError
from orchestrator.store import statement
from orchestrator.store.schema import FACT, RUN


class Decision:
    """What a decision may read and write; valid inside `SqlStore.deciding` only.

    Args:
        connection: in a transaction that writes.
        now: aware UTC.
    """

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    def fact(self, key: str) -> JsonValue:
        """A fact, or None."""
        value: JsonValue = self._connection.execute(select(FACT.c.value).where(FACT.c.key == key)).scalar()
        return value

    def set_fact(self, key: str, value: JsonValue) -> None:
        """Keep a fact; replaces an older one."""
        self.forget(key)
        self._connection.execute(insert(FACT).values(key=key, value=value))

    def forget(self, key: str) -> None:
        """Remove a fact. Idempotent."""
        self._connection.execute(delete(FACT).where(FACT.c.key == key))

    def run_state(self, run_id: str) -> RunState:
        """How a run stands.

        Raises:
            UsageError: it is not planned.
        """
        state = self._connection.execute(select(RUN.c.state).where(RUN.c.run_id == run_id)).scalar()
        if state is None:
            raise UsageError(f"The run table has no run {run_id}. See `__run_id` in run_table.csv.")
        return RunState(state)

    def tell(self, message: str, run_id: str | None = None) -> None:
        """Add an event: of a run, or of the campaign."""
        event: dict[str, Any] = {
            "at": self.now,
            "attempt_id": None,
            "run_id": run_id,
            "state_before": None,
            "state_after": None,
            "message": message,
        }
        self._connection.execute(statement.ADD_EVENT, event)


class FactReader(Protocol):
    """What reading a campaign's controls takes; every run table has it."""

    def recall(self, key: str) -> JsonValue:
        """See `RunReader`."""
        ...

    def facts(self, prefix: str) -> dict[str, JsonValue]:
        """See `RunReader`."""
        ...

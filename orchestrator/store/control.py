"""What a person decides about a campaign: pause and resume it, leave runs out of its results, have runs tried again.

Each decision is one transaction: the fact, and the event that says who decided what, and why.
"""

import getpass
import socket
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from contract.attempt_state import RunState
from contract.errors import UsageError
from orchestrator.decision_journal import Decided, DecisionJournal
from orchestrator.store.decision import FactReader
from orchestrator.store.schema import PAUSE_KEY

if TYPE_CHECKING:
    from orchestrator.store.sql_store import SqlStore

EXCLUDED_PREFIX = "excluded/"
"""Beginning of the facts' keys that leave runs out of the results; the rest is the run's id."""

MAX_TEXT = 500
"""Longest name or reason, in characters."""


class Pause(BaseModel):
    """A campaign takes up no run until somebody resumes it.

    Attributes:
        by: who paused it.
        reason: why; may be empty.
        at: since when; aware UTC.
    """

    model_config = ConfigDict(frozen=True)

    by: str
    reason: str = ""
    at: datetime

    @property
    def words(self) -> str:
        """`paused by ANNA: the room is too warm`."""
        return f"paused by {self.by}{f': {self.reason}' if self.reason else ''}"


class Exclusion(BaseModel):
    """A run is left out of the results; its measurements stay as evidence.

    Attributes:
        by: who left it out.
        reason: why; never empty.
        at: since when; aware UTC.
    """

    model_config = ConfigDict(frozen=True)

    by: str
    reason: str
    at: datetime

    @property
    def words(self) -> str:
        """`excluded by ANNA: the window was open`."""
        return f"excluded by {self.by}: {self.reason}"


class Controls(NamedTuple):
    """All that was decided and still holds.

    Attributes:
        pause: None while the campaign is not paused.
        exclusions: run id -> why it is left out.
    """

    pause: Pause | None
    exclusions: dict[str, Exclusion]


def this_person() -> str:
    """Who decides at a command line: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def paused(store: FactReader) -> Pause | None:
    """Who paused the campaign, or None. One cheap read."""
    return _pause(store.recall(PAUSE_KEY))


def exclusions(store: FactReader) -> dict[str, Exclusion]:
    """Run id -> why it is left out, in order of the ids. One read."""
    found = {}
    for key, value in store.facts(EXCLUDED_PREFIX).items():
        exclusion = _exclusion(value)
        if exclusion is not None:
            found[key.removeprefix(EXCLUDED_PREFIX)] = exclusion
    return found


class CampaignControl:
    """Decides; the store stays the caller's to close. Thread-safe as the store is.

    Args:
        store: the run table.
    """

    def __init__(self, store: "SqlStore") -> None:
        self._store = store

    def paused(self) -> Pause | None:
        """Who paused the campaign, or None."""
        return paused(self._store)

    def exclusions(self) -> dict[str, Exclusion]:
        """Run id -> why it is left out."""
        return exclusions(self._store)

    def pause(self, by: str, reason: str = "") -> Pause:
        """Let the campaign take up no further run; the trial under way goes on to its end. Idempotent.

        A pause that is there already stays as it is, with its reason and its time.

        Args:
            by: who decides.
            reason: why.

        Returns:
            The pause that holds now.

        Raises:
            UsageError: a text is empty where it must not be, or too long.
        """
        by, reason = _text(by, "name"), _text(reason, "reason", may_be_empty=True)
        with self._store.deciding() as decision:
            known = _pause(decision.fact(PAUSE_KEY))
            if known is not None:
                return known
            new = Pause(by=by, reason=reason, at=decision.now)
            decision.set_fact(PAUSE_KEY, new.model_dump(mode="json"))
            decision.tell(new.words)
        self._note(new.at, PAUSE_KEY, new)
        return new

    def resume(self, by: str) -> Pause | None:
        """Let the campaign go on. Idempotent.

        Args:
            by: who decides.

        Returns:
            The pause that ended; None where there was none, and nothing was written.

        Raises:
            UsageError: the name is empty or too long.
        """
        by = _text(by, "name")
        with self._store.deciding() as decision:
            known = _pause(decision.fact(PAUSE_KEY))
            decision.forget(PAUSE_KEY)
            if known is not None:
                decision.tell(f"resumed by {by} (was {known.words})")
            at = decision.now
        if known is not None:
            self._note(at, PAUSE_KEY, None)
        return known

    def exclude(self, run_id: str, reason: str, by: str) -> Exclusion:
        """Leave an ended run out of the results; what was measured stays. A newer reason replaces an older one.

        Args:
            run_id: a planned run.
            reason: why; readers of the results are told.
            by: who decides.

        Raises:
            UsageError: it is not planned or has not ended, or a text is empty or too long; nothing was changed.
        """
        by, reason = _text(by, "name"), _text(reason, "reason")
        with self._store.deciding() as decision:
            state = decision.run_state(run_id)
            if state in (RunState.TODO, RunState.RUNNING):
                raise UsageError(
                    f"{run_id} is {state.value.lower()}: only a run that has ended can be excluded. Wait for its end."
                )
            new = Exclusion(by=by, reason=reason, at=decision.now)
            decision.set_fact(EXCLUDED_PREFIX + run_id, new.model_dump(mode="json"))
            decision.tell(new.words, run_id)
        self._note(new.at, EXCLUDED_PREFIX + run_id, new)
        return new

    def include(self, run_id: str, by: str) -> Exclusion | None:
        """Take an excluded run back into the results. Idempotent.

        Args:
            run_id: a planned run.
            by: who decides.

        Returns:
            The exclusion that ended; None where there was none, and nothing was written.

        Raises:
            UsageError: it is not planned, or the name is empty or too long.
        """
        by = _text(by, "name")
        with self._store.deciding() as decision:
            decision.run_state(run_id)
            known = _exclusion(decision.fact(EXCLUDED_PREFIX + run_id))
            decision.forget(EXCLUDED_PREFIX + run_id)
            if known is not None:
                decision.tell(f"included again by {by} (was {known.words})", run_id)
            at = decision.now
        if known is not None:
            self._note(at, EXCLUDED_PREFIX + run_id, None)
        return known

    def retry(self, run_ids: Collection[str], by: str) -> list[str]:
        """Make ended runs TODO again; see `SqlStore.reopen`.

        Args:
            run_ids: planned runs.
            by: who decides.

        Returns:
            Those that are to do again, in order.

        Raises:
            UsageError: one is not planned, is done, or is excluded; nothing was changed.
        """
        by = _text(by, "name")
        excluded = sorted(set(run_ids) & self.exclusions().keys())
        if excluded:
            raise UsageError(
                f"{excluded[0]} is excluded from the results: take it back first (orchestrator include), then retry it."
            )
        return self._store.reopen(run_ids, by=by)

    def _note(self, at: datetime, key: str, value: Pause | Exclusion | None) -> None:
        folder = self._store.folder
        if folder is not None:
            DecisionJournal(folder).note(
                Decided(at=at, key=key, value=value.model_dump(mode="json") if value else None)
            )


def controls_of(facts: Mapping[str, JsonValue]) -> Controls:
    """The decisions among a run table's facts.

    Args:
        facts: key -> value, of all kinds.
    """
    found = {}
    for key, value in sorted(facts.items()):
        if key.startswith(EXCLUDED_PREFIX) and (exclusion := _exclusion(value)) is not None:
            found[key.removeprefix(EXCLUDED_PREFIX)] = exclusion
    return Controls(_pause(facts.get(PAUSE_KEY)), found)


def _pause(value: JsonValue) -> Pause | None:
    if value is None:
        return None
    try:
        return Pause.model_validate(value)
    except ValidationError:
        # Somebody wanted a pause, whatever became of the text: going on would be worse than to wait.
        return Pause(by="somebody", reason="the note of it cannot be read", at=datetime.fromtimestamp(0, UTC))


def _exclusion(value: JsonValue) -> Exclusion | None:
    if value is None:
        return None
    try:
        return Exclusion.model_validate(value)
    except ValidationError:
        return Exclusion(by="somebody", reason="the note of it cannot be read", at=datetime.fromtimestamp(0, UTC))


def _text(text: str, what: str, *, may_be_empty: bool = False) -> str:
    """One line of printable text."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not line and not may_be_empty:
        raise UsageError(f"Give a {what}: it is kept with the decision, for whoever reads the results.")
    if len(line) > MAX_TEXT:
        raise UsageError(f"The {what} has {len(line)} characters; {MAX_TEXT} are enough.")
    return line

"""The states of an attempt and of a run, and which may follow which."""

from collections.abc import Iterable
from enum import StrEnum


class AttemptState(StrEnum):
    """One execution of a planned run."""

    CLAIMED = "CLAIMED"
    """Reserved in the run table; the testbed may not know it yet."""
    SUBMITTED = "SUBMITTED"
    """The testbed has it on disk."""
    LOADING = "LOADING"
    """The engine loads the model."""
    BASELINE = "BASELINE"
    """Idle power is measured with the model loaded."""
    WARMUP = "WARMUP"
    """Unmeasured requests."""
    MEASURING = "MEASURING"
    """The measured phase."""
    COLLECTING = "COLLECTING"
    """Energy is computed, answers are scored, files are written."""
    SUCCEEDED = "SUCCEEDED"
    """A result without reservations."""
    SUSPECT = "SUSPECT"
    """A result with reasons to doubt it."""
    FAILED = "FAILED"
    """No result; an error with a code."""
    CANCELLED = "CANCELLED"
    """Stopped by a person."""
    TIMED_OUT = "TIMED_OUT"
    """Stopped at a deadline."""
    LOST = "LOST"
    """The testbed no longer knows it, or gives no sign of life."""

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]

    @property
    def has_result(self) -> bool:
        """Whether the attempt ended with measurements."""
        return self in (AttemptState.SUCCEEDED, AttemptState.SUSPECT)


_PATH = [
    AttemptState.CLAIMED,
    AttemptState.SUBMITTED,
    AttemptState.LOADING,
    AttemptState.BASELINE,
    AttemptState.WARMUP,
    AttemptState.MEASURING,
    AttemptState.COLLECTING,
]
_BROKEN = frozenset({AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.TIMED_OUT, AttemptState.LOST})

TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    # The path is walked forwards. An observer that polls may see it with steps left out, and a trial may have
    # no baseline or warm-up, so every later step may follow; only COLLECTING leads to a result.
    **{state: frozenset(_PATH[i + 1 :]) | _BROKEN for i, state in enumerate(_PATH)},
    AttemptState.COLLECTING: _BROKEN | {AttemptState.SUCCEEDED, AttemptState.SUSPECT},
    **{state: frozenset[AttemptState]() for state in (*_BROKEN, AttemptState.SUCCEEDED, AttemptState.SUSPECT)},
}
"""State -> the states that may follow it."""


def may_follow(before: AttemptState, after: AttemptState) -> bool:
    """Whether `after` may be recorded directly after `before`."""
    return after in TRANSITIONS[before]


class RunState(StrEnum):
    """A planned row of the run table, derived from its attempts."""

    TODO = "TODO"
    """No attempt is open, and more may follow."""
    RUNNING = "RUNNING"
    """One attempt is open."""
    DONE = "DONE"
    """Exactly one attempt is accepted."""
    SUSPECT = "SUSPECT"
    """There is a result with reservations, and no attempt is to follow."""
    FAILED = "FAILED"
    """No attempts are left."""


def derive_run_state(attempts: Iterable[tuple[AttemptState, bool]], *, may_retry: bool) -> RunState:
    """The state of a run.

    A suspect result that is kept outlives later attempts that bring none: nothing measured is lost to a retry.

    Args:
        attempts: (state, accepted) of each attempt, oldest first.
        may_retry: whether a run without an accepted attempt is to be tried again.
    """
    history = list(attempts)
    if any(accepted for _, accepted in history):
        return RunState.DONE
    if not history:
        return RunState.TODO
    last, _ = history[-1]
    if not last.is_final:
        return RunState.RUNNING
    if last is AttemptState.CANCELLED or may_retry:
        return RunState.TODO
    if any(state is AttemptState.SUSPECT for state, _ in history):
        return RunState.SUSPECT
    return RunState.FAILED

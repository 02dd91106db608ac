"""What the orchestrator makes of a doubted result: its own reasons beside the testbed's, and what follows from them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contract.attempt_state import AttemptState
from contract.errors import ErrorBody, JouleBedError
from contract.trial_result import SuspectReason, TrialResult
from orchestrator.config import OnSuspect
from orchestrator.cooldown import CooldownOutcome

ON_SUSPECT_KEY = "on_suspect"
"""Remembered fact: what was last to become of doubted results; one of `OnSuspect`."""

STARTED_WARM = "started_warm"
"""Reason: the thermal gate ran out of time, and the trial began warmer than the campaign's idle temperature allows."""


class SuspectResultError(JouleBedError):
    """A result is doubted, and is not to be kept as it is."""

    code = "suspect"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a result.

    Attributes:
        state: of its attempt.
        reasons: all of them; the testbed's come first.
        error: why the result is not accepted; retryable when the run is to be tried again. None when it is kept,
            doubted or not.
    """

    state: AttemptState
    reasons: tuple[SuspectReason, ...]
    error: ErrorBody | None


def judge(result: TrialResult, cooldown: CooldownOutcome | None, policy: OnSuspect) -> Verdict:
    """Weigh a result with what the orchestrator knows; the result itself stays as it was received.

    Args:
        result: from the testbed.
        cooldown: before the trial; None where none was recorded.
        policy: what is to become of doubted results.
    """
    reasons = tuple(result.reasons)
    if not result.state.has_result:
        return Verdict(result.state, reasons, result.error)
    reasons += gate_reasons(cooldown)
    if result.state is AttemptState.SUCCEEDED and not reasons:
        return Verdict(result.state, (), result.error)
    return Verdict(AttemptState.SUSPECT, reasons, _objection(reasons, policy))


def gate_reasons(cooldown: CooldownOutcome | None) -> tuple[SuspectReason, ...]:
    """Why the pause before a trial makes its result doubtful; empty when it does not."""
    if cooldown is None or cooldown.gate != "timed_out":
        return ()
    return (SuspectReason(code=STARTED_WARM, message=cooldown.message),)


def is_refused(error: ErrorBody | None) -> bool:
    """Whether a suspect attempt's result was refused for good (`OnSuspect.FAIL`)."""
    return error is not None and error.code == SuspectResultError.code and not error.retryable


def reason_text(reasons: Iterable[SuspectReason]) -> str:
    """Reasons in one line, each with its code."""
    return "; ".join(f"{reason.code}: {reason.message}" for reason in reasons)


def count_codes(doubted: Iterable[Sequence[SuspectReason]]) -> Counter[str]:
    """Reason code -> number of results with it; a result with two codes counts for both."""
    return Counter(code for reasons in doubted for code in dict.fromkeys(reason.code for reason in reasons))


def told_codes(codes: Counter[str]) -> str:
    """`5 started_warm, 2 gap`; the most frequent first."""
    return ", ".join(f"{n} {code}" for code, n in sorted(codes.items(), key=lambda item: (-item[1], item[0])))


def _objection(reasons: Sequence[SuspectReason], policy: OnSuspect) -> ErrorBody | None:
    if policy is OnSuspect.KEEP:
        return None
    codes = list(dict.fromkeys(reason.code for reason in reasons))
    body = SuspectResultError(reason_text(reasons) or "The testbed gave no reason.", codes=codes).body()
    return body.model_copy(update={"retryable": policy is OnSuspect.RETRY})

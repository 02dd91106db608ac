"""How long each step of an attempt may take: pure, so that the rules are tested without waiting.

| limit | counts from | while the attempt is |
|---|---|---|
| load_s | the submission | SUBMITTED, LOADING |
| baseline | the start of the baseline | BASELINE: `TrialSpec.baseline_s` and `BASELINE_SLACK_S` |
| warmup_s | the start of the warm-up | WARMUP |
| measure_s | the start of the measured phase | MEASURING |
| stall_s | the last finished request | MEASURING |
| collect_s | the end of the measured phase | COLLECTING, as the child tells it |
| total_s | the submission | everything up to the end of the child |

What the testbed does itself afterwards, `testbed.collect`, gets `collect_s` of its own from the supervisor.
"""

from dataclasses import dataclass

from contract.attempt_state import AttemptState
from contract.errors import DeadlineExceededError
from contract.trial_spec import TrialSpec
from testbed.attempt_folder import Progress

BASELINE_SLACK_S = 60.0
"""A baseline only sleeps: one that takes so much longer hangs, in a meter or in the engine."""

_BEFORE_LOADED = frozenset({AttemptState.SUBMITTED, AttemptState.LOADING})


@dataclass(frozen=True)
class Limit:
    """One limit that is in force.

    Attributes:
        name: of the field of `DeadlineSpec`, or `baseline`.
        limit_s: its length.
        since_s: what it counts from; seconds of the monotonic clock.
        what: what took too long, as the beginning of a sentence.
    """

    name: str
    limit_s: float
    since_s: float
    what: str

    @property
    def end_s(self) -> float:
        """When it is over; seconds of the monotonic clock."""
        return self.since_s + self.limit_s


class DeadlineWatch:
    """Follows the progress of one attempt and says which limit comes next.

    Args:
        spec: has the limits.
        started_s: when the attempt was submitted; seconds of the monotonic clock.
    """

    def __init__(self, spec: TrialSpec, started_s: float) -> None:
        self._spec = spec
        self._started_s = started_s
        self._entered_s = started_s
        self._advanced_s = started_s
        self._last = Progress(state=AttemptState.SUBMITTED, at_s=started_s)

    def note(self, progress: Progress) -> None:
        """Take a line of progress.jsonl, oldest first."""
        if progress.state is not self._last.state:
            self._entered_s = self._advanced_s = progress.at_s
        elif progress.n_requests_done != self._last.n_requests_done:
            self._advanced_s = progress.at_s
        self._last = progress

    def nearest(self) -> Limit:
        """The limit that is over first."""
        return min(self._in_force(), key=lambda limit: limit.end_s)

    def left_s(self, now_s: float) -> float:
        """Seconds until the nearest limit is over, at least 0.

        Args:
            now_s: seconds of the monotonic clock.
        """
        return max(self.nearest().end_s - now_s, 0.0)

    def exceeded(self, now_s: float, log_tail: list[str]) -> DeadlineExceededError | None:
        """The error of the limit that is over; None while none is.

        Args:
            now_s: seconds of the monotonic clock.
            log_tail: last lines of child.log, for the error's detail.
        """
        limit = self.nearest()
        if limit.end_s > now_s:
            return None
        advice = f"Raise deadline.{limit.name} in the trial's spec if that was too short."
        if limit.name == "baseline":
            advice = "The engine or a meter hangs: detail.log_tail has the last output."
        waits_for = ", ".join(self._last.waits_for)
        held_up = f" It waited for {waits_for}." if waits_for else ""
        return DeadlineExceededError(
            f"{limit.what} longer than {_in_words(limit)}, so its process was ended.{held_up} {advice}",
            deadline=limit.name,
            limit_s=limit.limit_s,
            state=str(self._last.state),
            n_requests_done=self._last.n_requests_done,
            n_requests=self._last.n_requests,
            log_tail=log_tail,
        )

    def _in_force(self) -> list[Limit]:
        deadline, state = self._spec.deadline, self._last.state
        done = f"{self._last.n_requests_done} of {self._last.n_requests} requests done"
        limits = [
            Limit("total_s", deadline.total_s, self._started_s, f"The trial (last seen {state}, {done}) took"),
        ]
        if state in _BEFORE_LOADED:
            limits.append(Limit("load_s", deadline.load_s, self._started_s, "Loading the model took"))
        elif state is AttemptState.BASELINE:
            limit_s = self._spec.baseline_s + BASELINE_SLACK_S
            limits.append(Limit("baseline", limit_s, self._entered_s, "The baseline took"))
        elif state is AttemptState.WARMUP:
            if deadline.warmup_s is not None:
                limits.append(Limit("warmup_s", deadline.warmup_s, self._entered_s, "The warm-up took"))
        elif state is AttemptState.MEASURING:
            if deadline.measure_s is not None:
                what = f"The measured phase ({done}) took"
                limits.append(Limit("measure_s", deadline.measure_s, self._entered_s, what))
            if deadline.stall_s is not None:
                what = f"The measured phase ({done}) finished no request for"
                limits.append(Limit("stall_s", deadline.stall_s, self._advanced_s, what))
        elif state is AttemptState.COLLECTING:
            what = "Writing and scoring the answers took"
            limits.append(Limit("collect_s", deadline.collect_s, self._entered_s, what))
        return limits


def collecting_took_too_long(limit_s: float) -> DeadlineExceededError:
    """The error of a testbed that does not get done with `testbed.collect`.

    Args:
        limit_s: what it was given.
    """
    return DeadlineExceededError(
        f"Computing the energy from the trial's files took longer than deadline.collect_s = {limit_s:g} s. "
        "Look whether the testbed's data folder answers (a lost network drive, a full disk), "
        "and raise deadline.collect_s if the logs are that long.",
        deadline="collect_s",
        limit_s=limit_s,
        state=str(AttemptState.COLLECTING),
    )


def _in_words(limit: Limit) -> str:
    if limit.name == "baseline":
        return f"its length and {BASELINE_SLACK_S:g} s, {limit.limit_s:g} s in all"
    return f"deadline.{limit.name} = {limit.limit_s:g} s"

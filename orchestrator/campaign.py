"""What a campaign may cost in patience, and how it ended."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from contract.attempt_state import AttemptState, RunState
from orchestrator.campaign_view import AttemptEnd
from orchestrator.config import OnSuspect


class Ending(StrEnum):
    """Why a campaign's loop ended."""

    FINISHED = "finished"
    """There is nothing left to do."""
    STOPPED = "stopped"
    """A person asked for it."""
    UNREACHABLE = "unreachable"
    """The testbed stayed away, or stayed busy with another's trial, for too long."""
    REFUSED = "refused"
    """The testbed does not let us in, or speaks another version."""
    HOPELESS = "hopeless"
    """The first runs all failed alike."""
    BROKEN = "broken"
    """This machine cannot go on: a full disk, for instance."""


@dataclass(frozen=True)
class CampaignOutcome:
    """How a campaign ended. Whatever the ending, the same command continues it.

    Attributes:
        ending: why the loop ended.
        message: in words, with the next step; empty when it finished.
        counts: runs per state.
    """

    ending: Ending
    message: str
    counts: dict[RunState, int]

    @property
    def told(self) -> str:
        """All of it in words."""
        n_left = self.counts[RunState.TODO] + self.counts[RunState.RUNNING]
        left = f"{n_left} {'run' if n_left == 1 else 'runs'} left"
        return f"the campaign ended ({self.ending}), {left}" + (f": {self.message}" if self.message else "")


@dataclass(frozen=True)
class ControllerSettings:
    """Patience of a campaign.

    Attributes:
        poll_wait_s: how long one long poll is held.
        unreachable_after_s: the campaign stops when the testbed stays away for this long: a night, so that nobody need
            watch it.
        busy_after_s: or when it runs somebody else's trials for this long.
        max_equal_failures: it stops when this many different runs failed one after the other with the same error
            code: what is wrong with all runs is better mended than tried 900 times. Before any run has a result
            every failure counts; later only one that may pass, since others are the affair of their treatment. 0
            never stops.
        retry_pause_s: pause after a failure that may pass; doubled with each further one in a row.
        longest_retry_pause_s: at most this.
        give_back_after_s: in a pool, an attempt on a testbed that stays away for this long goes back, so that another
            can take its run, as long as another answers.
        export_every_s: the least time between two exports of the run table during the campaign.
        on_suspect: what becomes of doubted results.
        passing_s: a state that is over before is not worth a write.
        renew_s: how often a lease is renewed; infinite: somebody else renews it.
    """

    poll_wait_s: float = 10.0
    unreachable_after_s: float = 12 * 3600.0
    busy_after_s: float = 4 * 3600.0
    max_equal_failures: int = 3
    retry_pause_s: float = 1.0
    longest_retry_pause_s: float = 60.0
    give_back_after_s: float = 600.0
    export_every_s: float = 60.0
    on_suspect: OnSuspect = OnSuspect.KEEP
    passing_s: float = 0.1
    renew_s: float = 5.0

    def of_pool(self, n_testbeds: int) -> "ControllerSettings":
        """The same for one of many: the run table takes one write at a time, and it is all of theirs.

        States that pass quickly are not written, polls are held for longer, and the leases of all are renewed at once
        by the pool.
        """
        passing_s = min(max(self.passing_s, n_testbeds / 50), 15.0)
        poll_wait_s = self.poll_wait_s if n_testbeds <= 10 else max(self.poll_wait_s, 25.0)
        return replace(self, passing_s=passing_s, poll_wait_s=poll_wait_s, renew_s=float("inf"))


@dataclass
class FailureStreak:
    """Failures of different runs with one error code, one after the other.

    Attributes:
        code: of the last failure.
        message: of the last failure.
        runs: that failed so, one after the other.
        n_passing: attempts in a row that failed for a reason that may pass.
        is_over: whether some run has a result.
    """

    code: str = ""
    message: str = ""
    runs: set[str] = field(default_factory=set)
    n_passing: int = 0
    is_over: bool = False

    def note(self, end: AttemptEnd) -> None:
        """Take an attempt's end into account."""
        is_refused = end.state is AttemptState.SUSPECT and end.run_state is RunState.FAILED
        if end.state.has_result and not is_refused:
            self.is_over, self.n_passing, self.runs = True, 0, set()
        elif end.error is not None and (is_refused or end.state in (AttemptState.FAILED, AttemptState.TIMED_OUT)):
            self.n_passing = self.n_passing + 1 if end.error.retryable else 0
            if end.error.code != self.code:
                self.code, self.runs = end.error.code, set()
            self.message = end.error.message
            self.runs.add(end.claim.run_id)

    def is_hopeless(self, settings: ControllerSettings) -> bool:
        """Whether it makes no sense to go on."""
        limit = settings.max_equal_failures
        return 0 < limit <= len(self.runs) and (not self.is_over or self.n_passing > limit)

    def pause_s(self, settings: ControllerSettings) -> float:
        """How long to wait before the next attempt."""
        if self.n_passing == 0:
            return 0.0
        return float(min(settings.retry_pause_s * 2 ** min(self.n_passing - 1, 16), settings.longest_retry_pause_s))

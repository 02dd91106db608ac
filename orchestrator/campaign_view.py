"""What a campaign tells while it runs; the command line shows it, tests collect it."""

from dataclasses import dataclass
from typing import Protocol

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody
from contract.trial_result import AttemptStatus, SuspectReason, TrialResult
from orchestrator.cooldown import CooldownProgress
from orchestrator.store.base import Claim


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended.

    Attributes:
        claim: the attempt.
        state: its last.
        run_state: of its run now; TODO when it will be tried again.
        result: None where the testbed gave none.
        error: why there are no measurements, or why doubted ones are not accepted.
        reasons: why the result is doubted, the orchestrator's own reasons included.
    """

    claim: Claim
    state: AttemptState
    run_state: RunState
    result: TrialResult | None
    error: ErrorBody | None
    reasons: tuple[SuspectReason, ...] = ()


class CampaignView(Protocol):
    """Called by the controller, in its thread; must be fast and must not raise."""

    def attempt_started(self, claim: Claim) -> None:
        """An attempt is taken up, a new one or one that was left."""
        ...

    def cooling(self, progress: CooldownProgress) -> None:
        """About once a second during a cooldown."""
        ...

    def status(self, status: AttemptStatus) -> None:
        """The testbed said where the attempt is."""
        ...

    def waiting(self, message: str, code: str = "") -> None:
        """The campaign cannot go on for the moment; says why, with the code of the error behind it."""
        ...

    def attempt_ended(self, end: AttemptEnd) -> None:
        """An attempt is over and in the run table."""
        ...


class SilentView:
    """Tells nobody."""

    def attempt_started(self, claim: Claim) -> None:
        """See `CampaignView`."""

    def cooling(self, progress: CooldownProgress) -> None:
        """See `CampaignView`."""

    def status(self, status: AttemptStatus) -> None:
        """See `CampaignView`."""

    def waiting(self, message: str, code: str = "") -> None:
        """See `CampaignView`."""

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""

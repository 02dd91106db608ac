"""How much cooler a learned policy has to hold a board without the fan, and whether it is then worth having."""

from collections.abc import Sequence

from contract.errors import UsageError
from control.edge_drive import drive
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Fixed, Likeliest, best_fixed
from testbed.edge_control.grpo_checkpoint import Checkpoint
from testbed.policies.factored_policy import FactoredPolicy

GUARDS_C: Sequence[float] = tuple(0.05 * step for step in range(41))
"""To try, least first."""

SLACK_C = 0.08
"""A board is held so much below the limit when it is calibrated: the noise of the next run is another."""

_NOISE_SEED = 5_000_000_000
_CHECK_SEED = 6_000_000_000
_N_BATCHES = 1000
_START_C = 85.0


def calibrate(case: EdgeCase, policy: FactoredPolicy, seed: int) -> float:
    """The least guard with which the board stays within the limit; the largest tried where none does.

    Args:
        case: with the simulated board; what is found holds for its thermal model.
        policy: learned.
        seed: of the noise, which is of no other use.
    """
    for guard_c in GUARDS_C:
        chooser = Likeliest(policy, case, guard_c=guard_c)
        found = drive(case, chooser, _N_BATCHES, fan_off_at=0, seed=_NOISE_SEED + seed, start_c=_START_C)
        assert found.after is not None  # the fan is off from the first batch
        if found.after.hottest_c <= case.reward.limits.temp_c - SLACK_C:
            return guard_c
    return GUARDS_C[-1]


def late_gain(case: EdgeCase, policy: FactoredPolicy, guard_c: float, seed: int) -> float | None:
    """Throughput of a hot board without the fan, over that of the best fixed setting within the limit, less 1.

    Args:
        case: with the simulated board.
        policy: learned.
        guard_c: that it was calibrated to.
        seed: of the noise, which is of no other use.

    Returns:
        Of the last third of the batches; -1 where the limit is passed; None where no setting stays within it.
    """
    try:
        safe = Fixed(best_fixed(case, is_fan_on=False, within_limit=True))
    except UsageError:
        return None
    rates = []
    for chooser in (Likeliest(policy, case, guard_c=guard_c), safe):
        found = drive(case, chooser, _N_BATCHES, fan_off_at=0, seed=_CHECK_SEED + seed, start_c=_START_C)
        assert found.after is not None and found.late is not None  # the fan is off from the first batch
        if chooser is not safe and found.after.hottest_c > case.reward.limits.temp_c:
            return -1.0
        rates.append(found.late.throughput_per_s)
    return rates[0] / rates[1] - 1


def learned_chooser(checkpoint: Checkpoint, case: EdgeCase) -> Likeliest:
    """A checkpoint's policy with its calibration.

    Args:
        checkpoint: of `control.edge_training.train`.
        case: for what the policy sees.
    """
    about = {"seed": checkpoint.config.seed, "n_updates": checkpoint.n_updates}
    return Likeliest(checkpoint.policy, case, about, float(checkpoint.metrics.get("guard_c") or 0.0))

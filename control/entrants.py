"""Who is compared: the baselines that nothing learned is shown without, the plan, and what was learned."""

import contextlib
from pathlib import Path

from contract.errors import InvalidOptionError
from contract.units import sha256_of
from control.constant import constants
from control.evaluation import Entrant
from control.judge import VALIDATION_SEED
from control.serving_case import ServingCase
from testbed.policies.base import Setting
from testbed.policies.registry import POLICIES

RULES = ("deadline", "deadline_energy")
OTHERS = ("dvfs_only", "batch_only", "reactive", "token_aware", "dynamo_like")
CONSTANT = "constant"
"""How the label of the best constant setting begins."""
_CONSTANT_SEEDS = 8


def baselines(case: ServingCase, slo_share: float) -> list[Entrant]:
    """Static-high, the best constant setting, the deadline rules, and the policies of the literature.

    The constant is chosen among all clocks and batch choices on seeds that are not evaluated: least energy among those
    that meet the share, else the largest share.

    Args:
        case: the problem.
        slo_share: of requests within the SLO that is wanted.
    """
    best = constants(case, slo_share, [VALIDATION_SEED + i for i in range(_CONSTANT_SEEDS)])[0]
    clock_mhz, batch = best.decision.clock_mhz, best.decision.max_batch
    found = [
        _entrant(case, "static_high", "baseline"),
        _entrant(
            case,
            "fixed_clock",
            "baseline",
            f"{CONSTANT} {clock_mhz:g} MHz, <= {batch}",
            clock_mhz=clock_mhz,
            max_batch=batch,
        ),
        *(_entrant(case, name, "rule") for name in RULES),
        *(_entrant(case, name, "baseline") for name in OTHERS),
        # What is left of a policy that may choose only one of the two.
        _entrant(case, "fixed_batch", "ablation", f"fixed batch {batch}", batch=batch),
    ]
    return found


def from_file(case: ServingCase, path: Path, kind: str, label: str, role: str) -> Entrant:
    """The policy in a file.

    Args:
        case: the problem.
        path: of the file.
        kind: `planned` or `learned`.
        label: of its row.
        role: see `Entrant`.

    Raises:
        InvalidOptionError: the file is not for this table or objective.
    """
    policy = POLICIES.create(kind, table=case.table, slo_s=case.slo_s, path=path)
    return Entrant(label, role, policy, key=sha256_of(path.read_bytes().hex()))


def learned(case: ServingCase, folder: Path) -> list[Entrant]:
    """The plan, where it is for this table, and every learner's policy in a folder of `train`.

    Args:
        case: the problem.
        folder: of the training.
    """
    found = []
    plan = folder / "plan.safetensors"
    if plan.exists():
        # A plan is for one table and objective: on another it is no reference.
        with contextlib.suppress(InvalidOptionError):
            found.append(from_file(case, plan, "planned", "planned", "planner"))
    files = sorted(folder.glob("seed_*.safetensors"), key=lambda path: int(path.stem.split("_")[1]))
    for path in files:
        found.append(from_file(case, path, "learned", f"learned, {path.stem.replace('_', ' ')}", "learned"))
    return found


def _entrant(case: ServingCase, name: str, role: str, label: str = "", **options: Setting) -> Entrant:
    return Entrant(label or name, role, POLICIES.create(name, table=case.table, slo_s=case.slo_s, **options))

"""What stands in the way of trials that are only planned yet."""

from collections.abc import Sequence

from contract.errors import JouleBedError
from contract.node_info import CheckProblem, CheckReport, CheckRequest
from contract.trial_spec import TrialSpec
from testbed.node_parts import NodeParts


def check_trials(specs: Sequence[TrialSpec], parts: NodeParts, *, is_running: bool) -> CheckReport:
    """Look at names and devices here, and at the parts themselves in a process of its own; see `TestbedNode.check`.

    Args:
        specs: the trials.
        parts: the node's.
        is_running: whether a trial runs: then only names are looked at.

    Raises:
        ChildDiedError: the process that checks ended without an answer.
        DeadlineExceededError: it took too long.
        DeviceNotRestoredError: a device is still set as in an earlier trial.
    """
    if not is_running:
        parts.restore()
    problems: list[CheckProblem] = []
    sound: list[TrialSpec] = []
    for spec in specs:
        try:
            parts.check(spec)
            if not is_running:
                parts.choose_meters(spec.meter)
            sound.append(spec)
        except JouleBedError as error:
            problems.append(CheckProblem(run_id=spec.run_id, error=error.body()))
    if sound and not is_running:
        problems += parts.launcher.check(CheckRequest(specs=sound)).problems
    return CheckReport(problems=problems)

"""The measured phase of a trial with arrivals: from its spec to a drive."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from contract.errors import InvalidRequestError
from contract.trial_spec import TrialSpec
from testbed.clock import Clock
from testbed.device_settings import DeviceSettings
from testbed.engines.base import Engine, GenerationRequest
from testbed.open_loop_drive import OpenLoopDrive, Served
from testbed.policies.base import Policy
from testbed.request_queue import OpenRequest
from testbed.workloads.base import PreparedWorkload


@dataclass(frozen=True)
class OpenLoopParts:
    """What an open loop needs beside the parts of every trial.

    Attributes:
        policy: decides.
        start_mhz: what the policy is told of the clock, where it sets none.
        settled: called after each change of the clock: a simulated device takes its time.
        is_simulated: time and power are those of a table.
        floor_s: fastest service that the table knows; None without a table.
    """

    policy: Policy
    start_mhz: float = 0.0
    settled: Callable[[], None] = lambda: None
    is_simulated: bool = False
    floor_s: float | None = None


def check_arrivals(spec: TrialSpec, prepared: PreparedWorkload) -> None:
    """An open loop needs arrivals, and a closed one would not heed them.

    Raises:
        InvalidRequestError: says what to change.
    """
    n_arriving = sum(item.arrival_s is not None for item in prepared.items)
    if spec.serving is not None and (n_arriving < len(prepared.items) or prepared.duration_s is None):
        raise InvalidRequestError(
            f"serving needs requests with arrivals, and the workload {spec.workload.name!r} has none: take open_loop."
        )
    if spec.serving is None and n_arriving:
        raise InvalidRequestError(
            f"The workload {spec.workload.name!r} has arrivals, which a closed loop would not heed: give the trial "
            "serving, with a policy."
        )


def serve(
    spec: TrialSpec,
    parts: OpenLoopParts,
    engine: Engine,
    devices: DeviceSettings,
    prepared: PreparedWorkload,
    requests: Sequence[GenerationRequest],
    clock: Clock,
    on_completion: Callable[[], None],
) -> Served:
    """Serve what arrives; blocking, for the whole of the measured phase.

    Args:
        spec: of the trial, with `serving`.
        parts: of the open loop.
        engine: loaded.
        devices: applied.
        prepared: the items, with arrivals.
        requests: one for each.
        clock: of the measurement.
        on_completion: called as answers complete.
    """
    serving = spec.serving
    assert serving is not None and prepared.duration_s is not None  # check_arrivals has seen to it
    domain = serving.clock_domain
    drive = OpenLoopDrive(
        [
            OpenRequest(request, item.arrival_s or 0.0, item.n_input_tokens, item.n_output_tokens)
            for request, item in zip(requests, prepared.items, strict=True)
        ],
        parts.policy,
        engine,
        serving,
        clock,
        devices.dial(domain, parts.settled) if domain is not None else None,
        max_batch=spec.workload.concurrency,
        duration_s=prepared.duration_s,
        start_mhz=parts.start_mhz,
        on_completion=lambda _: on_completion(),
    )
    served = drive.run()
    update = {"is_simulated": parts.is_simulated, "arrivals": dict(prepared.settings), "floor_s": parts.floor_s}
    return replace(served, record=served.record.model_copy(update=update))

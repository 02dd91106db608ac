"""Open-loop serving: requests that arrive by the clock, an objective, a policy; and what came of it.

| word | meaning |
|---|---|
| latency | completion less the true arrival, the wait in the queue included |
| TTFT | first token less the true arrival |
| TPOT | time per output token after the first: (completion - first token) / (tokens - 1) |
| lost | arrived while the queue was full, and was never served: a miss |
| unfinished | still queued when the run was over: a miss where its deadline had passed, else not judged |
"""

from typing import Annotated

from pydantic import Field, JsonValue

from contract.units import Identifier, Joules, Scalar, Seconds, Sha256, WireModel

Share = Annotated[float, Field(ge=0, le=1)]

Objective = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""An objective in seconds."""

FileName = Identifier
"""Names a file in a folder of the testbed's own: no separators, no leading dot."""


class TableSpec(WireModel):
    """A service table that travels with the spec: latency and power of each batch at each clock."""

    source: str
    """Where the figures come from, in words."""
    clock_mhz: list[float] = Field(min_length=1)
    """Rising; shape (C,)."""
    batch_sizes: list[int] = Field(min_length=1)
    """1, 2, ..., B."""
    latency_s: list[list[float]]
    """Of a whole batch; shape (C, B)."""
    power_w: list[list[float]]
    """Mean while it is served; shape (C, B)."""
    n_input_tokens: int | None = None
    """Of each request; None: not known, or mixed."""
    n_output_tokens: int | None = None


class PolicySpec(WireModel):
    """Which policy decides, and its settings."""

    name: Identifier
    """Registry name: `fixed_clock`, `deadline`, `planned`, `learned`, ..."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Policy's own options; an unknown one is an error."""
    table: TableSpec | FileName | None = None
    """What the policy believes about the device: a table that travels along, or the name of a file in the testbed's
    folder `service_tables`. None: what a simulated device itself says; else the policy has none."""
    file: FileName | None = None
    """Of a planned or learned policy, in the testbed's folder `policies`."""
    file_sha256: Sha256 | None = None
    """Refused where the file has another hash; None: whichever it has, and the result says which."""


class ServingSpec(WireModel):
    """An open loop in place of the closed one: requests are handed over when they arrive, and a policy decides.

    `WorkloadSpec.concurrency` is the largest batch, or the most in flight.
    """

    policy: PolicySpec
    slo_s: Objective
    """Objective on the end-to-end latency."""
    ttft_slo_s: Objective | None = None
    tpot_slo_s: Objective | None = None
    queue_limit: int = Field(default=100, gt=0)
    """Requests that may wait; one that arrives at a full queue is lost."""
    continuous: bool = False
    """Requests join the running engine as they arrive, and the policy says how many may be in flight. Else a batch is
    served to its end before the next begins."""
    drain: bool = True
    """Serve what is queued when the last request has arrived. Else the run ends with its duration: nothing is begun
    afterwards."""
    clock_domain: str | None = None
    """Device whose clock the policy sets: one of `TrialSpec.actuators`, whose setting is the start. None: clocks are
    left alone, and what the policy says of them is not followed."""


class Spread(WireModel):
    """A quantity over requests."""

    n: int = Field(ge=0)
    """Requests of which it is known."""
    mean_s: Seconds | None = None
    p50_s: Seconds | None = None
    p99_s: Seconds | None = None


class ServingReport(WireModel):
    """What came of an open loop. None: not measured."""

    policy: Identifier
    policy_settings: dict[str, JsonValue] = Field(default_factory=dict)
    """What is needed to build the policy again."""
    is_simulated: bool = False
    """Time and power come from a table and not from a device."""
    continuous: bool = False
    slo_s: Seconds
    ttft_slo_s: Seconds | None = None
    tpot_slo_s: Seconds | None = None
    n_arrived: int = Field(ge=0)
    n_served: int = Field(ge=0)
    n_lost: int = Field(ge=0)
    n_unfinished: int = Field(ge=0)
    n_judged: int = Field(ge=0)
    """Denominator of `slo_share`: served, lost, and unfinished ones whose deadline had passed."""
    n_met: int = Field(ge=0)
    """Served within `slo_s`."""
    slo_share: Share | None = None
    """n_met / n_judged."""
    ttft_share: Share | None = None
    """Requests with a first token within `ttft_slo_s`, over the same denominator."""
    tpot_share: Share | None = None
    """Requests with a TPOT within `tpot_slo_s`, over those that have one (two tokens or more)."""
    latency: Spread
    """Of served requests."""
    ttft: Spread
    tpot: Spread
    throughput_per_s: float | None = None
    """Served requests over the measured phase."""
    n_batches: int | None = None
    """None where batching was continuous."""
    batch_sizes: dict[str, int] = Field(default_factory=dict)
    """Size -> batches of it."""
    n_decisions: int = Field(default=0, ge=0)
    n_waits: int = Field(default=0, ge=0)
    """Decisions to wait."""
    decision_mean_s: Seconds | None = None
    decision_max_s: Seconds | None = None
    """By the machine's own clock, also where the device is simulated."""
    clock_domain: str | None = None
    """Device whose clock was set; None: no clock was touched."""
    n_switches: int = Field(default=0, ge=0)
    switch_mean_s: Seconds | None = None
    """Setting the clock and reading it back; no request is served meanwhile."""
    switch_mean_j: Joules | None = None
    """Energy meanwhile."""
    service_energy_j: Joules | None = None
    """While at least one request was being served."""
    switch_energy_j: Joules | None = None
    idle_energy_j: Joules | None = None
    """The rest of the measured phase."""
    service_energy_per_request_j: Joules | None = None
    """`service_energy_j` / `n_served`: the energy of a batch is divided over it."""
    study_energy_per_request_j: Joules | None = None
    """Undivided, as in the study: each request is charged with all energy of its whole batch (continuous: of the time
    that it was in flight). No joules that anybody could save: for comparison with published figures alone."""
    energy_per_request_j: Joules | None = None
    """All energy of the measured phase / `n_served`, idling and switching included."""
    energy_note: str = ""
    """Why there is no energy, or what it cannot resolve, in words."""
    settings: dict[str, Scalar] = Field(default_factory=dict)
    """Arrivals and lengths as drawn: kind, rate, seed, duration, data set."""

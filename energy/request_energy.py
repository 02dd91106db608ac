"""The measured phase's joules, shared out among its requests, and split into prefill and decode.

**The rule: tokens in flight.** A request is in prefill from when it was handed to the engine to its first token, and
in decode from there to its last. In prefill it has its prompt's tokens in flight; in decode, between two of its tokens,
the one that is being made. A token that takes longer counts for less in each second of that time: through each of these
stretches a request holds tokens / duration, a rate. At every instant the machine's power is shared among the requests
in flight in proportion to their rates.

What follows from it:

- A request that is alone gets all the power, whatever its rate.
- Requests that decode in one batch, in step, share equally. One that reads its prompt in the same step gets as much
  more as its prompt has tokens. It is a rule and no measurement: a prompt's token may cost less than a decoded one,
  which has the weights read for itself alone.
- Where no request has a token in flight (between requests, after the last token), the joules are unassigned.
- Prefill, decode and unassigned add up to the phase, to rounding.
- Time in the engine's own queue is prefill: no engine here tells when it took a request up.
- Several tokens that arrive together share the stretch before them.
- The samples are far apart beside a token: within a sampling interval energy is interpolated (`energy.integrate`). Over
  many requests that evens out; the share of one is as fine as the sampling. `EnergySplit.note` says when it is coarse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energy.integrate import CumulativeEnergy
from energy.trace import FloatArray, Trace

_TICK_S = 1e-9
"""Clocks count nanoseconds: a shorter stretch is rounding, and no time in which energy flowed."""


@dataclass(frozen=True)
class RequestTiming:
    """When a request was worked on.

    Attributes:
        submitted_s: handed to the engine; on the traces' clock, as all times here.
        token_s: shape (n,), when each output token became known, non-decreasing; n may be below `n_output_tokens`,
            or 0 where the engine does not tell.
        finished_s: when the answer was complete.
        n_prompt_tokens: of the rendered prompt.
        n_output_tokens: that were generated.
    """

    submitted_s: float
    token_s: FloatArray = field(repr=False)
    finished_s: float
    n_prompt_tokens: int
    n_output_tokens: int

    @property
    def is_split(self) -> bool:
        """Whether prefill and decode can be told apart: the first of several tokens came before the last."""
        return self.n_output_tokens == 0 or (
            self.token_s.size > 0 and (self.n_output_tokens == 1 or float(self.token_s[-1]) > float(self.token_s[0]))
        )


@dataclass(frozen=True)
class RequestShare:
    """What one request took.

    Attributes:
        energy_j: of all summed domains.
        component_energy_j: `cpu`, `gpu`, `dram` or `system` -> its part of `energy_j`.
        prefill_s: length of prefill; None where it cannot be told from decode, as the three below.
        decode_s: first to last token.
        prefill_energy_j: up to the first token.
        decode_energy_j: after it; both add up to `energy_j`.
    """

    energy_j: float
    component_energy_j: Mapping[str, float]
    prefill_s: float | None
    decode_s: float | None
    prefill_energy_j: float | None
    decode_energy_j: float | None


@dataclass(frozen=True)
class EnergySplit:
    """The measured phase, shared out.

    Attributes:
        requests: one share per request, in their order; empty where nothing could be shared out.
        unassigned_energy_j: flowed while no request had a token in flight; None where nothing could be shared out.
        resolution_s: longest sampling period among the domains: nothing shorter is resolved.
        note: why there is no split, or what it cannot resolve, in words.
    """

    requests: tuple[RequestShare, ...] = ()
    unassigned_energy_j: float | None = None
    resolution_s: float | None = None
    note: str = ""

    @property
    def prefill_energy_j(self) -> float | None:
        """Of all requests; None where one of them has no split."""
        return _sum([share.prefill_energy_j for share in self.requests])

    @property
    def decode_energy_j(self) -> float | None:
        """Of all requests; None where one of them has no split."""
        return _sum([share.decode_energy_j for share in self.requests])


def share_energy(
    traces: Sequence[Trace], requests: Sequence[RequestTiming], *, start_s: float, end_s: float
) -> EnergySplit:
    """Share the energy of a window out among requests, by tokens in flight: see the module.

    Args:
        traces: that make up the sum, each domain once.
        requests: with times on the traces' clock; what lies outside the window is cut off.
        start_s: of the window.
        end_s: of the window.
    """
    if not traces:
        return EnergySplit(note="no domain was measured")
    if not requests:
        return EnergySplit(note="no request is on record")
    cumulative = [CumulativeEnergy(trace) for trace in traces]
    for trace, each in zip(traces, cumulative, strict=True):
        if each.window(start_s, end_s).energy_j is None:
            return EnergySplit(note=f"{trace.domain} has no energy for the measured phase")

    stretches = [_stretches(request) for request in requests]
    bounds_s = [np.clip(bounds, start_s, end_s) for bounds, _ in stretches]
    rates = [rate for _, rate in stretches]
    # Between two neighbours of this list nothing begins or ends: all rates are constant there.
    event_s = np.unique(np.concatenate([np.array([start_s, end_s]), *bounds_s]))
    places = [np.searchsorted(event_s, bounds) for bounds in bounds_s]
    # No running sum: what was added and taken away again would leave rounding where nothing is in flight.
    total_rate = np.zeros(max(event_s.size - 1, 0))
    for place, rate in zip(places, rates, strict=True):
        total_rate[place[0] : place[-1]] += np.repeat(rate, np.diff(place))

    components = sorted({trace.component for trace in traces})
    energy_j = np.zeros((len(components), total_rate.size))
    for trace, each in zip(traces, cumulative, strict=True):
        energy_j[components.index(trace.component)] += np.diff(each.at_times(event_s))
    is_worked = total_rate > 0
    per_rate = np.zeros((len(components), total_rate.size + 1))  # one more, so that a stretch may end at the end
    np.divide(energy_j, total_rate, out=per_rate[:, :-1], where=is_worked)
    shares = tuple(
        _share(request, components, _sum_stretches(per_rate, place) * rate)
        for request, place, rate in zip(requests, places, rates, strict=True)
    )
    resolution_s = max(each.period_s or 0.0 for each in cumulative)
    return EnergySplit(
        requests=shares,
        unassigned_energy_j=float(energy_j[:, ~is_worked].sum()),
        resolution_s=resolution_s,
        note=_note(shares, resolution_s),
    )


def _stretches(request: RequestTiming) -> tuple[FloatArray, FloatArray]:
    """Bounds of a request's stretches, shape (k + 1,), and its rate in each, tokens/s, shape (k,).

    The first stretch is prefill, and all others are decode; without token times there is one for the whole request.
    The first token comes out of prefill itself, so decode works on one token less than there are.
    """
    n_prompt = max(request.n_prompt_tokens, 1)
    if request.token_s.size == 0:
        bounds_s = np.array([request.submitted_s, max(request.finished_s, request.submitted_s)])
        n_tokens = np.array([float(n_prompt + max(request.n_output_tokens - 1, 0))])
    else:
        known_s, counts = np.unique(np.maximum(request.token_s, request.submitted_s), return_counts=True)
        bounds_s = np.concatenate([[request.submitted_s], known_s])
        n_tokens = counts * (max(request.n_output_tokens, 1) / request.token_s.size)
        n_tokens[0] = n_prompt + max(float(n_tokens[0]) - 1, 0.0)
    spans_s = np.diff(bounds_s)
    return bounds_s, np.divide(n_tokens, spans_s, out=np.zeros_like(spans_s), where=spans_s > _TICK_S)


def _sum_stretches(per_rate: FloatArray, place: npt.NDArray[np.intp]) -> FloatArray:
    """Sums of the columns between neighbouring places, shape (n components, n places - 1)."""
    first, last = int(place[0]), int(place[-1])
    sums: FloatArray = np.add.reduceat(per_rate[:, first : last + 1], place - first, axis=1)[:, :-1]
    # `reduceat` gives the element itself where a stretch is empty.
    return np.where(np.diff(place) > 0, sums, 0.0)


def _share(request: RequestTiming, components: Sequence[str], energy_j: FloatArray) -> RequestShare:
    """A request's share, from the joules of its stretches, shape (n components, n stretches)."""
    by_component_j = energy_j.sum(axis=1)
    prefill_j = float(energy_j[:, 0].sum())
    decode_j = float(energy_j[:, 1:].sum())
    times_s = request.token_s if request.token_s.size else np.array([request.finished_s])
    is_split = request.is_split
    return RequestShare(
        energy_j=prefill_j + decode_j,
        component_energy_j=dict(zip(components, by_component_j.tolist(), strict=True)),
        prefill_s=float(times_s[0]) - request.submitted_s if is_split else None,
        decode_s=float(times_s[-1] - times_s[0]) if is_split else None,
        prefill_energy_j=prefill_j if is_split else None,
        decode_energy_j=decode_j if is_split else None,
    )


def _note(shares: Sequence[RequestShare], resolution_s: float) -> str:
    prefills_s = [share.prefill_s for share in shares if share.prefill_s is not None]
    if len(prefills_s) < len(shares):
        n_whole = len(shares) - len(prefills_s)
        return f"{n_whole} of {len(shares)} requests have no split: the engine gave no time for each token"
    median_s = float(np.median(prefills_s))
    if median_s < resolution_s:
        return (
            f"the median prefill of {median_s:.3g} s is shorter than the sampling period of {resolution_s:.3g} s: "
            "prefill and decode are interpolated"
        )
    return ""


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None

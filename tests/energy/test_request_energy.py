"""Joules per request: they sum to the whole whatever the requests did, and follow the stated rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.trial_result import EnergyMethod
from energy.integrate import CumulativeEnergy
from energy.request_energy import EnergySplit, RequestTiming, share_energy
from energy.trace import Trace

TIME_S = np.arange(-1.0, 22.0, 0.2)


def gpu(watts: np.ndarray | float = 200.0, time_s: np.ndarray = TIME_S) -> Trace:
    values = np.broadcast_to(np.asarray(watts, dtype=float), time_s.shape)
    return Trace("gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "test", time_s, values)


def cpu(joules: np.ndarray, time_s: np.ndarray = TIME_S) -> Trace:
    return Trace("cpu_package", "cpu", "counter", EnergyMethod.COUNTER, "test", time_s, joules)


def request(
    submitted_s: float, token_s: list[float], *, n_prompt: int = 100, n_output: int | None = None, end_s: float = 0.0
) -> RequestTiming:
    finished_s = max([end_s, submitted_s, *token_s])
    n_output_tokens = len(token_s) if n_output is None else n_output
    return RequestTiming(submitted_s, np.array(token_s), finished_s, n_prompt, n_output_tokens)


def split(*requests: RequestTiming, traces: list[Trace] | None = None, end_s: float = 10.0) -> EnergySplit:
    return share_energy([gpu()] if traces is None else traces, requests, start_s=0.0, end_s=end_s)


@st.composite
def timings(draw: st.DrawFn) -> RequestTiming:
    """Any request: early, late, instant, with several tokens at once, or without times."""
    submitted_s = draw(st.floats(-2.0, 21.0))
    steps_s = draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 3.0)), max_size=12))
    token_s = (submitted_s + np.cumsum(steps_s)).tolist()
    n_output = len(token_s) + draw(st.integers(0, 5))
    end_s = token_s[-1] if token_s else submitted_s
    return request(
        submitted_s,
        token_s,
        n_prompt=draw(st.integers(0, 5000)),
        n_output=n_output,
        end_s=end_s + draw(st.floats(0, 2)),
    )


@settings(max_examples=300)
@given(
    requests=st.lists(timings(), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
    start_s=st.floats(0.0, 10.0),
    length_s=st.floats(0.01, 10.0),
)
def test_shares_sum_to_the_window_exactly(
    requests: list[RequestTiming], seed: int, start_s: float, length_s: float
) -> None:
    chance = np.random.default_rng(seed)
    traces = [gpu(chance.uniform(1, 500, TIME_S.size)), cpu(np.cumsum(chance.uniform(1, 100, TIME_S.size)))]
    found = share_energy(traces, requests, start_s=start_s, end_s=start_s + length_s)
    whole_j = [CumulativeEnergy(trace).window(start_s, start_s + length_s).energy_j for trace in traces]
    assert found.unassigned_energy_j is not None
    assert sum(share.energy_j for share in found.requests) + found.unassigned_energy_j == pytest.approx(
        sum(whole_j),  # type: ignore[arg-type]
        rel=1e-9,
    )
    for share in found.requests:
        assert share.energy_j >= 0
        assert sum(share.component_energy_j.values()) == pytest.approx(share.energy_j, rel=1e-9)
        if share.prefill_energy_j is not None and share.decode_energy_j is not None:
            assert share.prefill_energy_j + share.decode_energy_j == share.energy_j
    if found.prefill_energy_j is not None and found.decode_energy_j is not None:
        parts_j = found.prefill_energy_j + found.decode_energy_j + found.unassigned_energy_j
        assert parts_j == pytest.approx(sum(whole_j), rel=1e-9)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6))
def test_the_rule_taken_literally_gives_the_same(seed: int, n: int) -> None:
    """Walk through the phase in small steps and share each step out among the rates of that instant."""
    chance = np.random.default_rng(seed)
    step_s = 1e-3
    requests = []
    for _ in range(n):
        # Whole steps, so that the walk is exact.
        times = np.cumsum(chance.integers(1, 900, chance.integers(2, 8)))
        start = int(chance.integers(0, 3000))
        requests.append(
            request(start * step_s, ((start + times) * step_s).tolist(), n_prompt=int(chance.integers(1, 99)))
        )
    found = split(*requests, traces=[gpu(100.0)])
    prefill_j, decode_j, unassigned_j = np.zeros(n), np.zeros(n), 0.0
    for middle_s in (np.arange(10_000) + 0.5) * step_s:
        prefill_rate, decode_rate = np.zeros(n), np.zeros(n)
        for i, each in enumerate(requests):
            if each.submitted_s < middle_s < each.token_s[0]:
                prefill_rate[i] = each.n_prompt_tokens / (each.token_s[0] - each.submitted_s)
            elif each.token_s[0] < middle_s < each.token_s[-1]:
                k = int(np.searchsorted(each.token_s, middle_s))
                decode_rate[i] = 1 / (each.token_s[k] - each.token_s[k - 1])
        total = prefill_rate.sum() + decode_rate.sum()
        if total:
            prefill_j += 100.0 * step_s * prefill_rate / total
            decode_j += 100.0 * step_s * decode_rate / total
        else:
            unassigned_j += 100.0 * step_s
    assert [share.prefill_energy_j for share in found.requests] == pytest.approx(prefill_j, rel=1e-6, abs=1e-9)
    assert [share.decode_energy_j for share in found.requests] == pytest.approx(decode_j, rel=1e-6, abs=1e-9)
    assert found.unassigned_energy_j == pytest.approx(unassigned_j, abs=1e-6)


def test_a_request_alone_gets_all_of_its_time() -> None:
    found = split(request(1.0, [2.0, 3.0, 7.0], end_s=9.0))
    assert found.requests[0].prefill_energy_j == pytest.approx(200.0)
    assert found.requests[0].decode_energy_j == pytest.approx(1000.0)
    assert (found.requests[0].prefill_s, found.requests[0].decode_s) == (1.0, 5.0)
    # Before it, and after its last token, nothing was in flight.
    assert found.unassigned_energy_j == pytest.approx(800.0)
    assert found.note == ""


def test_a_batch_in_step_shares_equally_and_a_prompt_counts_its_tokens() -> None:
    steps = [1.0, 2.0, 3.0, 4.0]
    one, two = split(request(0.0, steps), request(0.0, steps), end_s=4.0).requests
    assert one == two
    assert one.energy_j == pytest.approx(400.0)
    # The third reads 98 tokens in the very second in which the other two make one each.
    late = split(request(0.0, steps), request(0.0, steps), request(2.0, [3.0], n_prompt=98), end_s=4.0)
    assert late.requests[2].prefill_energy_j == pytest.approx(200.0 * 98 / 100)
    assert late.requests[0].energy_j == pytest.approx(200.0 + 2.0 + 100.0)
    assert late.requests[2].decode_energy_j == 0.0


def test_components_are_shared_by_the_same_rule() -> None:
    found = split(request(0.0, [1.0, 10.0]), traces=[gpu(200.0), cpu(50.0 * (TIME_S + 1))])
    assert found.requests[0].component_energy_j == pytest.approx({"cpu": 500.0, "gpu": 2000.0})


def test_tokens_that_arrive_together_share_the_stretch_before_them() -> None:
    # 4 tokens in 2 s against 1 token a second: the same rate doubled.
    grouped = request(0.0, [1.0, 3.0, 3.0, 3.0, 3.0], n_prompt=1)
    steady = request(0.0, [1.0, 2.0, 3.0], n_prompt=1)
    found = split(grouped, steady, end_s=3.0)
    assert found.requests[0].decode_energy_j == pytest.approx(400.0 * 2 / 3)
    # The same where the engine tells the time of the group once.
    merged = split(request(0.0, [1.0, 3.0], n_prompt=1, n_output=8), steady, end_s=3.0)
    assert merged.requests[0].decode_energy_j == pytest.approx(400.0 * 2 / 3)


def test_tokens_beside_the_first_one_count_in_prefill() -> None:
    # Two of three first tokens were decoded, too: 98 + 2 tokens in the second, against the other's 100.
    chunk = request(0.0, [1.0, 1.0, 1.0, 2.0], n_prompt=98)
    assert split(chunk, request(0.0, [1.0], n_prompt=100)).requests[0].prefill_energy_j == pytest.approx(100.0)


def test_a_request_without_a_prompt_still_has_something_in_flight() -> None:
    assert split(request(0.0, [1.0, 2.0], n_prompt=0)).requests[0].prefill_energy_j == pytest.approx(200.0)


def test_what_took_no_time_by_the_clock_took_no_energy() -> None:
    for instant_s in (0.0, 5e-324, 1e-10):
        found = split(request(0.0, [instant_s, 10.0]), request(0.0, [instant_s]))
        assert [share.prefill_energy_j for share in found.requests] == [0.0, 0.0]
        assert found.requests[0].decode_energy_j == pytest.approx(2000.0)


def test_without_token_times_there_is_a_share_and_no_split() -> None:
    whole = request(0.0, [], n_prompt=61, n_output=40, end_s=10.0)
    steady = request(0.0, np.arange(1.0, 11.0).tolist(), n_prompt=10)
    found = split(whole, steady)
    assert (found.requests[0].prefill_energy_j, found.requests[0].decode_s) == (None, None)
    assert found.requests[0].energy_j == pytest.approx(200.0 * (10 / 20 + 9 * 10 / 11))
    assert found.requests[1].decode_energy_j == pytest.approx(200.0 * 9 * 1 / 11)
    assert (found.prefill_energy_j, found.decode_energy_j, found.unassigned_energy_j) == (None, None, 0.0)
    assert found.note.startswith("1 of 2 requests have no split")
    # The same where all tokens came in one piece.
    assert split(request(0.0, [5.0, 5.0, 5.0])).requests[0].decode_energy_j is None


def test_an_answer_of_no_or_one_token_is_all_prefill() -> None:
    for tokens in ([], [4.0]):
        found = split(request(0.0, tokens, end_s=4.0))
        assert found.requests[0].prefill_energy_j == pytest.approx(800.0)
        assert (found.requests[0].decode_energy_j, found.requests[0].decode_s) == (0.0, 0.0)


def test_what_lies_outside_the_window_is_cut_off() -> None:
    found = share_energy([gpu()], [request(0.0, [1.0, 21.0])], start_s=5.0, end_s=10.0)
    assert found.requests[0].prefill_energy_j == 0.0
    assert found.requests[0].decode_energy_j == pytest.approx(1000.0)
    outside = share_energy([gpu()], [request(0.0, [1.0, 2.0])], start_s=5.0, end_s=10.0)
    assert (outside.requests[0].energy_j, outside.unassigned_energy_j) == (0.0, pytest.approx(1000.0))


def test_what_the_samples_cannot_resolve_is_said() -> None:
    requests = [request(0.1 * i, [0.1 * i + 0.02, 0.1 * i + 0.1]) for i in range(20)]
    found = split(*requests)
    assert found.resolution_s == pytest.approx(0.2)
    assert "median prefill of 0.02 s is shorter than the sampling period of 0.2 s" in found.note
    fine_s = np.arange(-1.0, 22.0, 0.01)
    assert split(*requests, traces=[gpu(200.0, fine_s)]).note == ""


@pytest.mark.parametrize(
    ("traces", "requests", "words"),
    [
        ([], [request(0.0, [1.0])], "no domain"),
        ([gpu()], [], "no request"),
        ([gpu(), cpu(TIME_S[:20], TIME_S[:20])], [request(0.0, [1.0])], "cpu_package has no energy"),
    ],
)
def test_what_cannot_be_shared_out_says_why(traces: list[Trace], requests: list[RequestTiming], words: str) -> None:
    found = split(*requests, traces=traces)
    assert (found.requests, found.unassigned_energy_j, found.prefill_energy_j) == ((), None, None)
    assert words in found.note


def test_a_large_batch_still_sums_to_the_whole() -> None:
    # 64 in flight, 163,840 tokens, none of them in step: the worst case for the sums.
    chance = np.random.default_rng(0)
    time_s = np.arange(-1.0, 600.0, 0.2)
    requests = []
    for i in range(80):
        start_s = 0.0 if i < 64 else 200.0 + i
        requests.append(request(start_s, np.sort(chance.uniform(start_s + 0.5, start_s + 390, 2048)).tolist()))
    trace = gpu(chance.uniform(50, 300, time_s.size), time_s)
    found = share_energy([trace], requests, start_s=0.0, end_s=590.0)
    assert found.prefill_energy_j is not None and found.decode_energy_j is not None
    assert found.unassigned_energy_j is not None
    parts_j = found.prefill_energy_j + found.decode_energy_j + found.unassigned_energy_j
    assert parts_j == pytest.approx(CumulativeEnergy(trace).window(0.0, 590.0).energy_j, rel=1e-9)

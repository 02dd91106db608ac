"""The report of an open loop, by hand: two batches and a clock change at known powers."""

from typing import Any

import numpy as np
import pytest

from contract.serving import PolicySpec, ServingSpec
from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.attempt_folder import RequestRecord
from testbed.serving_record import BatchRecord, ServingRecord, SwitchRecord
from testbed.serving_result import serving_report

SPEC = ServingSpec(policy=PolicySpec(name="p"), slo_s=4.0, ttft_slo_s=1.5, tpot_slo_s=0.5)
# 10 W idle, 100 W from 101 to 103, 200 W from 104 to 108.
TIME_S = np.array([100.0, 101.0, 103.0, 104.0, 108.0, 110.0])
COUNTER_J = np.cumsum([0.0, 10.0, 200.0, 10.0, 800.0, 20.0])
TRACE = Trace("gpu:0", "gpu", "counter", EnergyMethod.COUNTER, "test", TIME_S, COUNTER_J)


def request(i: int, arrival_s: float, submitted_s: float, first_s: float | None, end_s: float, n: int) -> RequestRecord:
    return RequestRecord(
        item_id=f"r{i}",
        prompt_sha256="0" * 64,
        n_prompt_tokens=5,
        n_output_tokens=n,
        finish_reason="length",
        submitted_s=submitted_s,
        first_token_s=first_s,
        finished_s=end_s,
        token_s=[] if first_s is None else [first_s],
        messages=[],
        answer="",
        gold_label=None,
        predicted_label=None,
        is_correct=None,
        arrival_s=arrival_s,
    )


REQUESTS = [
    request(0, 100.5, 101.0, 101.5, 103.0, 4),  # latency 2.5, TTFT 1.0, TPOT 0.5
    request(1, 102.0, 104.0, 105.0, 108.0, 2),  # latency 6.0, TTFT 3.0, TPOT 3.0
    request(2, 103.5, 104.0, 105.0, 107.0, 1),  # latency 3.5, TTFT 1.5, no TPOT
]


def record(**changes: Any) -> ServingRecord:
    fields: dict[str, Any] = {
        "policy": "p",
        "start_s": 100.0,
        "end_s": 110.0,
        "n_arrived": 5,
        "lost_s": [103.9],
        "unfinished_s": [109.0],
        "batches": [
            BatchRecord(start_s=101.0, end_s=103.0, n_requests=1, n_queued=1, clock_mhz=1410.0),
            BatchRecord(start_s=104.0, end_s=108.0, n_requests=2, n_queued=2, clock_mhz=705.0),
        ],
        "switches": [SwitchRecord(start_s=103.0, end_s=103.5, from_mhz=1410.0, to_mhz=705.0)],
        "n_decisions": 2,
        "decision_s": 0.002,
        "decision_max_s": 0.0015,
    }
    return ServingRecord(**fields | changes)


def test_shares_have_their_denominators() -> None:
    report = serving_report(SPEC, record(), REQUESTS, [TRACE])
    # Served 3 and lost 1; the one left at the end could still be met.
    assert (report.n_served, report.n_lost, report.n_unfinished, report.n_judged, report.n_met) == (3, 1, 1, 4, 2)
    assert report.slo_share == 0.5
    assert report.ttft_share == 0.5  # 1.0 and 1.5 of four judged
    assert report.tpot_share == 0.5  # of the two that have one
    assert report.tpot.n == 2 and report.latency.n == 3
    assert report.latency.mean_s == pytest.approx(4.0)
    assert report.throughput_per_s == pytest.approx(0.3)
    assert report.batch_sizes == {"1": 1, "2": 1}
    assert report.decision_mean_s == pytest.approx(0.001)


def test_an_unfinished_request_whose_deadline_cannot_be_met_is_a_miss() -> None:
    assert serving_report(SPEC, record(unfinished_s=[107.5]), REQUESTS, [TRACE]).n_judged == 5
    assert serving_report(SPEC, record(unfinished_s=[109.0], floor_s=3.5), REQUESTS, [TRACE]).n_judged == 5
    assert serving_report(SPEC, record(is_given_up=True), REQUESTS, [TRACE]).n_judged == 5


def test_energy_in_all_definitions() -> None:
    report = serving_report(SPEC, record(), REQUESTS, [TRACE])
    assert report.service_energy_j == pytest.approx(1000.0)
    assert report.switch_energy_j == pytest.approx(5.0) and report.switch_mean_j == pytest.approx(5.0)
    assert report.idle_energy_j == pytest.approx(35.0)
    assert report.service_energy_per_request_j == pytest.approx(1000.0 / 3)
    # The study: the second batch's 800 J are charged to each of its two requests.
    assert report.study_energy_per_request_j == pytest.approx((200 + 2 * 800) / 3)
    assert report.energy_per_request_j == pytest.approx(1040.0 / 3)


def test_continuous_batching_charges_time_in_flight_once_and_undivided_to_each() -> None:
    spec = SPEC.model_copy(update={"continuous": True})
    report = serving_report(spec, record(batches=[], switches=[]), REQUESTS, [TRACE])
    assert report.n_batches is None
    assert report.service_energy_j == pytest.approx(1000.0)
    assert report.study_energy_per_request_j == pytest.approx((200 + 800 + 600) / 3)
    assert report.idle_energy_j == pytest.approx(40.0)


def test_what_was_not_measured_is_none_with_its_reason() -> None:
    without = serving_report(SPEC, record(), REQUESTS, [], "nothing was measured")
    assert without.service_energy_per_request_j is None and without.energy_note == "nothing was measured"
    short = Trace("gpu:0", "gpu", "counter", EnergyMethod.COUNTER, "test", TIME_S[:2], COUNTER_J[:2])
    assert serving_report(SPEC, record(), REQUESTS, [short]).service_energy_per_request_j is None
    blind = [each.model_copy(update={"first_token_s": None, "token_s": []}) for each in REQUESTS]
    report = serving_report(SPEC, record(), blind, [TRACE])
    assert report.ttft_share is None and report.tpot_share is None and report.ttft.mean_s is None


def test_nothing_served_is_no_division() -> None:
    report = serving_report(SPEC, record(n_arrived=2, batches=[], switches=[]), [], [TRACE])
    assert report.n_served == 0 and report.slo_share == 0.0 and report.service_energy_per_request_j is None

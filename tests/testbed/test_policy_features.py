import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InvalidOptionError
from testbed.policies.actions import ActionSet
from testbed.policies.base import Decision, Observation, Wait
from testbed.policies.features import FEATURE_NAMES, MOST_WAIT, N_FEATURES, ArrivalRate, FeatureSpec, features
from testbed.simulation.service_table import ServiceTable

TABLE = ServiceTable(
    clock_mhz=np.array([500.0, 1000.0, 1500.0]),
    batch_sizes=np.array([1, 2]),
    latency_s=np.array([[4.0, 5.0], [2.0, 3.0], [1.5, 2.0]]),
    power_w=np.array([[100.0, 100.0], [110.0, 130.0], [300.0, 300.0]]),
    source="made",
)
SPEC = FeatureSpec.of(TABLE, slo_s=10.0, queue_limit=15)


def named(observation: Observation) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, features(observation, SPEC).tolist(), strict=True))


def test_each_feature_by_hand() -> None:
    found = named(Observation((8.0, 4.0, 1.0), 1000.0, arrival_rate_per_s=0.3))
    assert found == pytest.approx(
        {
            "queue_log": 0.5,
            "queue_share": 0.2,
            "clock": 0.5,
            "head_wait": 0.8,
            # A batch of two, the largest: 5, 3 and 2 s; the cheapest is 1000 MHz.
            "slack_slowest": -0.3,
            "slack_cheapest": -0.1,
            "slack_fastest": 0.0,
            "wait_1": 0.4,
            "wait_2": 0.1,
            **dict.fromkeys(("wait_4", "wait_8", "wait_16", "wait_32"), 0.0),
            "newest_wait": 0.1,
            "arrival_rate": 0.5,
        },
        abs=1e-6,
    )


@given(
    waits=st.lists(st.floats(0, 1e6), max_size=40),
    clock=st.sampled_from([500.0, 1000.0, 1500.0]),
    rate=st.one_of(st.none(), st.floats(0, 1e6)),
)
def test_bounded_whatever_is_seen(waits: list[float], clock: float, rate: float | None) -> None:
    vector = features(Observation(tuple(sorted(waits, reverse=True)), clock, arrival_rate_per_s=rate), SPEC)
    assert vector.shape == (N_FEATURES,) and vector.dtype == np.float32
    assert np.all((vector >= -1) & (vector <= MOST_WAIT))


def test_a_later_request_changes_what_is_seen() -> None:
    # The head alone does not tell how long the others have waited.
    early, late = named(Observation((8.0, 7.0), 500.0)), named(Observation((8.0, 0.5), 500.0))
    assert {name for name in early if early[name] != late[name]} == {"wait_1", "newest_wait"}


def test_a_spec_comes_back_from_json() -> None:
    stored = json.loads(json.dumps(SPEC.to_json()))
    assert FeatureSpec.from_json(stored) == SPEC
    with pytest.raises(InvalidOptionError, match="version 0"):
        FeatureSpec.from_json(stored | {"version": 0})
    with pytest.raises(InvalidOptionError, match="Train it again"):
        FeatureSpec.from_json(stored | {"slowest_s": "fast"})
    del stored["slo_s"]
    with pytest.raises(InvalidOptionError, match="slo_s"):
        FeatureSpec.from_json(stored)


def test_the_rate_forgets() -> None:
    rate = ArrivalRate(window_s=60.0)
    assert rate.per_s is None
    for _ in range(2000):
        rate.observe(1.0, 2)
    assert rate.per_s == pytest.approx(2.0)
    for _ in range(120):
        rate.observe(1.0, 0)
    assert rate.per_s == pytest.approx(2.0 * np.exp(-2), rel=0.05)


def test_the_rate_is_the_mean_at_first() -> None:
    rate = ArrivalRate()
    rate.observe(4.0, 1)
    assert rate.per_s == 0.25


ACTIONS = ActionSet((500.0, 1000.0), (1, 2, 4), wait_s=1.0)


def test_actions_by_number_and_back() -> None:
    assert len(ACTIONS) == 7 and ACTIONS.wait_index == 6
    assert [ACTIONS.choice(each) for each in (0, 2, 3, 6)] == [
        Decision(500.0, 1),
        Decision(500.0, 4),
        Decision(1000.0, 1),
        Wait(1.0),
    ]
    for each in range(7):
        assert ACTIONS.index(ACTIONS.choice(each), 100) == each
    # With two queued a batch of 2, 3 or 4 is the same.
    assert {ACTIONS.index(Decision(1000.0, batch), 2) for batch in (2, 3, 4, 64)} == {4}


@pytest.mark.parametrize("choice", [Decision(700.0, 1), Decision(500.0, 3), Wait(2.0)])
def test_what_no_action_does(choice: Decision | Wait) -> None:
    with pytest.raises(InvalidOptionError):
        ACTIONS.index(choice, 10)


def test_masks_by_queue_length() -> None:
    masks = ACTIONS.masks(5)
    assert masks.shape == (6, 7)
    assert masks[1].tolist() == [True, False, False, True, False, False, True]
    assert masks[2].tolist() == [True, True, False, True, True, False, True]
    assert masks[3].tolist() == [True] * 7
    # The queue fills the largest batch: waiting makes it no larger.
    assert masks[4].tolist() == masks[5].tolist() == [True] * 6 + [False]
    assert not ACTIONS.masks(2)[2, 6]


@pytest.mark.parametrize(("clocks", "batches"), [((), (1,)), ((1.0,), ()), ((2.0, 1.0), (1,)), ((1.0,), (0, 1))])
def test_wrong_actions_are_refused(clocks: tuple[float, ...], batches: tuple[int, ...]) -> None:
    with pytest.raises(InvalidOptionError):
        ActionSet(clocks, batches)

"""One behaviour suite over every policy."""

import json
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidOptionError, UnknownNameError
from testbed.policies.base import Decision, Observation, Policy, Wait
from testbed.policies.registry import POLICIES
from tests.testbed.policy_cases import CASES, SLO_S, small_table

TABLE = small_table()


@pytest.fixture(params=list(CASES))
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Policy:
    return CASES[request.param].build(TABLE, tmp_path)


def _observations(n: int = 300) -> list[Observation]:
    """Queues of all lengths, fresh and stale, with and without what may be unknown; all clocks, and a foreign one."""
    source = np.random.default_rng(11)
    found = []
    for number in range(n):
        n_queued = int(source.integers(1, 25))
        waits = np.sort(source.uniform(0, SLO_S * (0.3, 1.0, 3.0)[number % 3], n_queued))[::-1]
        lengths = source.integers(1, 1500, (2, n_queued)).tolist()
        found.append(
            Observation(
                waits_s=tuple(waits.tolist()),
                clock_mhz=float(source.choice([*TABLE.clock_mhz, 210.0])),
                n_input_tokens=tuple(lengths[0]) if number % 2 else None,
                n_output_tokens=tuple(lengths[1]) if number % 3 else None,
                arrival_rate_per_s=float(source.uniform(0, 3)) if number % 5 else None,
            )
        )
    return found


def test_every_registered_policy_is_tested() -> None:
    assert {case.name for case in CASES.values()} == set(POLICIES.names)


def test_a_decision_is_one_that_the_device_can_do(policy: Policy) -> None:
    clocks, limit = set(TABLE.clock_mhz.tolist()), TABLE.max_batch
    observations = _observations()
    for observation in observations:
        choice = policy.decide(observation)
        if isinstance(choice, Wait):
            assert choice.seconds > 0
        else:
            # A policy without a table says nothing of the clock: it keeps the one that is set.
            assert choice.clock_mhz in clocks or (policy.name, choice.clock_mhz) == (
                "capped_batch",
                observation.clock_mhz,
            )
            assert 1 <= choice.max_batch <= limit
            assert isinstance(choice.max_batch, int)


def test_after_a_reset_it_decides_the_same_again(policy: Policy) -> None:
    observations = _observations()
    policy.reset()
    first = [policy.decide(each) for each in observations]
    policy.reset()
    assert [policy.decide(each) for each in observations] == first


def test_another_one_of_the_same_options_decides_the_same(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    observations = _observations(60)
    for name, case in CASES.items():
        (tmp_path / name).mkdir()
        one, other = (case.build(TABLE, tmp_path / name) for _ in range(2))
        assert [one.decide(each) for each in observations] == [other.decide(each) for each in observations], name


def test_no_queue_is_put_off_for_ever(policy: Policy) -> None:
    """With nothing new, waiting ends before the head is two SLOs late: all are served in the end."""
    waited_s, clock_mhz = 0.0, 1200.0
    while isinstance(choice := policy.decide(Observation((waited_s, 0.5 * waited_s), clock_mhz)), Wait):
        waited_s += choice.seconds
        assert waited_s < 2 * SLO_S
    assert isinstance(choice, Decision)


def test_the_record_has_what_it_takes_to_build_it_again(policy: Policy) -> None:
    settings = dict(policy.settings())
    assert json.loads(json.dumps(settings)) == settings
    assert all(isinstance(value, str | int | float | bool | None) for value in settings.values())
    assert settings


@pytest.mark.parametrize("name", list(CASES))
def test_an_unknown_option_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="no_such_option"):
        CASES[name].build(TABLE, tmp_path, no_such_option=1)


@pytest.mark.parametrize("name", ["planned", "learned"])
def test_a_spec_cannot_name_a_file(name: str) -> None:
    with pytest.raises(InvalidOptionError, match="path"):
        POLICIES.create_from_spec(name, {"path": "elsewhere"}, table=TABLE, slo_s=SLO_S)


def test_an_unknown_policy_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match="deadline_energy"):
        POLICIES.create("clairvoyant")

import json
import statistics
from pathlib import Path

import pytest

from contract.errors import UsageError
from control.evaluation import Entrant, EvaluationLog, evaluate, standings
from control.reference_simulation import simulate
from testbed.policies.base import Decision, Observation
from tests.control.scripted import Scripted, small_case

CASE = small_case(duration_s=200.0)
HIGH, LOW = float(CASE.table.clock_mhz[-1]), float(CASE.table.clock_mhz[0])


def entrants() -> list[Entrant]:
    def at(clock_mhz: float) -> Scripted:
        return Scripted(lambda _: Decision(clock_mhz, CASE.table.max_batch))

    return [Entrant("high", "baseline", at(HIGH)), Entrant("low", "ablation", at(LOW))]


def test_figures_are_means_over_seeds_with_intervals(tmp_path: Path) -> None:
    rows = evaluate(CASE, entrants(), [1, 2, 3], EvaluationLog(tmp_path / "runs.jsonl"))
    high, low = standings(rows, 0.5)
    energies = [simulate(CASE, entrants()[0].policy, seed).energy_per_request_j or 0.0 for seed in (1, 2, 3)]
    found = high.figures["energy_per_request_j"]
    assert found is not None and found.low is not None and found.high is not None
    assert found.mean == pytest.approx(sum(energies) / 3)
    # Student's t for 2 degrees of freedom.
    half = 4.30265 * statistics.stdev(energies) / 3**0.5
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), rel=1e-5)
    assert (high.entrant, high.role, high.n_seeds, low.entrant) == ("high", "baseline", 3, "low")
    assert low.slo_share_all <= high.slo_share_all
    study = high.figures["study_energy_per_request_j"]
    assert study is not None and study.mean >= found.mean


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    rows = evaluate(CASE, entrants()[:1], [1], EvaluationLog(tmp_path / "runs.jsonl"))
    found = standings(rows, 0.5)[0].figures["energy_per_request_j"]
    assert found is not None and (found.low, found.high) == (None, None)


def test_runs_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    first = evaluate(CASE, entrants(), [1, 2], EvaluationLog(path))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "half a li')
    asked: list[Observation] = []

    def refuse(observation: Observation) -> Decision:
        asked.append(observation)
        return Decision(HIGH, CASE.table.max_batch)

    again = evaluate(CASE, [Entrant("high", "baseline", Scripted(refuse))], [1, 2], EvaluationLog(path))
    assert not asked and again == first[:2]
    other = evaluate(
        small_case(duration_s=100.0), [Entrant("high", "baseline", Scripted(refuse))], [1], EvaluationLog(path)
    )
    assert asked and other[0]["id"] != first[0]["id"]
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_log_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("not json\n", encoding="utf-8")
    with pytest.raises(UsageError, match="Remove it"):
        EvaluationLog(path)

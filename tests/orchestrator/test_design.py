"""Expansion: the right cells, the right order, the same everywhere, and errors that say the next step."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import ConfigError
from contract.trial_spec import EngineSpec, ModelSpec, WorkloadSpec
from contract.units import Scalar
from orchestrator.config import Factor, Order, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.design import derive_seed, expand, expand_treatments
from orchestrator.store.base import Plan

TRIAL = Trial(
    model=ModelSpec(name="m", source="fake:m"), engine=EngineSpec(name="fake"), workload=WorkloadSpec(name="fake")
)


class Config(RunnerConfig):
    """Whatever a test needs."""

    name = "example"

    def __init__(
        self,
        factors: Sequence[Any] = (Factor("a", [1, 2, 3]), Factor("b", ["x", "y", "z"])),
        exclude: Sequence[Any] = (),
        repetitions: int = 1,
        trial: Callable[[Treatment], Any] = lambda treatment: TRIAL,
        **attributes: Any,
    ) -> None:
        self.model = RunTableModel(factors, exclude, repetitions)
        self.make = trial
        for name, value in attributes.items():
            setattr(self, name, value)

    def create_run_table_model(self) -> RunTableModel:
        return self.model

    def trial(self, treatment: Treatment) -> Trial:
        made: Trial = self.make(treatment)
        return made


def cells(plan: Plan) -> list[tuple[str, int]]:
    return [(run.run_id, run.repetition) for run in plan.runs]


def test_overlapping_exclusions_leave_the_four_that_experiment_runner_deletes_one_of() -> None:
    plan = expand(Config(exclude=[{"a": [1]}, {"b": ["x"]}]))
    left = {run.run_id: (run.treatment["a"], run.treatment["b"]) for run in plan.runs}
    assert left == {
        "run_0_repetition_0": (2, "y"),
        "run_1_repetition_0": (2, "z"),
        "run_2_repetition_0": (3, "y"),
        "run_3_repetition_0": (3, "z"),
    }
    assert plan.design["n_excluded"] == 5


@st.composite
def designs(draw: st.DrawFn) -> tuple[list[Factor], list[dict[str, list[Scalar]]]]:
    levels = st.lists(st.integers(0, 4) | st.booleans() | st.sampled_from(["x", "y"]), min_size=1, max_size=4)
    factors = []
    for i in range(draw(st.integers(1, 3))):
        distinct = {(type(level), level): level for level in draw(levels)}
        factors.append(Factor(f"f{i}", list(distinct.values())))
    exclusions = []
    for _ in range(draw(st.integers(0, 3))):
        chosen = draw(st.lists(st.sampled_from(factors), min_size=1, unique_by=lambda factor: factor.name))
        exclusions.append({f.name: draw(st.lists(st.sampled_from(list(f.levels)), min_size=1)) for f in chosen})
    return factors, exclusions


@given(designs())
def test_exclusions_are_the_union_of_their_cells(
    design: tuple[list[Factor], list[dict[str, list[Scalar]]]],
) -> None:
    factors, exclusions = design
    # The reference works on repr, so that 1 and True are told apart by other means than the code's.
    everything = [
        dict(zip([f.name for f in factors], combination, strict=True))
        for combination in itertools.product(*(f.levels for f in factors))
    ]
    excluded: set[str] = set()
    for exclusion in exclusions:
        for treatment in everything:
            if all(repr(treatment[name]) in map(repr, levels) for name, levels in exclusion.items()):
                excluded.add(repr(treatment))
    expected = [repr(treatment) for treatment in everything if repr(treatment) not in excluded]
    if not expected:
        with pytest.raises(ConfigError, match="exclude all"):
            expand_treatments(RunTableModel(factors, exclusions))
    else:
        assert [repr(t) for t in expand_treatments(RunTableModel(factors, exclusions))] == expected


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(), st.sampled_from(Order))
def test_every_order_is_a_permutation_with_its_restriction(
    n_models: int, n_tasks: int, repetitions: int, seed: int, order: Order
) -> None:
    config = Config(
        factors=[Factor("task", list(range(n_tasks))), Factor("model", list(range(n_models)))],
        repetitions=repetitions,
        seed=seed % 2**62,
        order=order,
        group_by=["model"],
    )
    plan = expand(config)
    n = n_models * n_tasks
    expected = {(f"run_{i}_repetition_{j}", j) for i in range(n) for j in range(repetitions)}
    assert len(plan.runs) == len(expected)
    assert set(cells(plan)) == expected
    assert [run.position for run in plan.runs] == list(range(len(expected)))
    assert all(run.spec.run_id == run.run_id and run.spec.treatment == run.treatment for run in plan.runs)
    if order is not Order.RANDOM:
        assert [run.repetition for run in plan.runs] == [j for j in range(repetitions) for _ in range(n)]
    if order is Order.GROUPED:
        for j in range(repetitions):
            models = [run.treatment["model"] for run in plan.runs if run.repetition == j]
            assert len([key for key, _ in itertools.groupby(models)]) == n_models


def test_orders_are_shuffled_and_differ_between_seeds_and_blocks() -> None:
    factors = [Factor("a", list(range(40)))]
    plans = [
        expand(Config(factors, repetitions=2, order=order, seed=s))
        for order in (Order.RANDOM, Order.BLOCKS)
        for s in (1, 2)
    ]
    orders = [[run.run_id for run in plan.runs] for plan in plans]
    assert len({tuple(order) for order in orders}) == 4
    first, second = plans[2].runs[:40], plans[2].runs[40:]
    assert [run.treatment for run in first] != [run.treatment for run in second]
    assert [run.treatment["a"] for run in first] != list(range(40))


def test_groups_tell_true_from_one() -> None:
    plan = expand(Config([Factor("g", [1, True]), Factor("b", list(range(6)))], order=Order.GROUPED, group_by=["g"]))
    assert len([key for key, _ in itertools.groupby(plan.runs, key=lambda run: repr(run.treatment["g"]))]) == 2


def test_a_run_has_its_own_seed_that_depends_on_nothing_but_experiment_seed_and_id() -> None:
    small, large = expand(Config(repetitions=2, seed=5)), expand(Config(repetitions=3, seed=5, order=Order.RANDOM))
    by_id = {run.run_id: run.spec.seed for run in large.runs}
    assert all(by_id[run.run_id] == run.spec.seed for run in small.runs)
    assert len(set(by_id.values())) == 27
    assert all(0 <= seed < 2**31 for seed in by_id.values())
    assert derive_seed(5, "run_0_repetition_0") != derive_seed(6, "run_0_repetition_0")


_PROGRAM = """
from orchestrator.config import *
from contract.trial_spec import *
from orchestrator.design import expand
class C(RunnerConfig):
    name = "example"
    seed = 7
    def create_run_table_model(self):
        return RunTableModel([Factor("a", ["x", "y", "z"]), Factor("b", [1, 2.5, True])], [{"a": ["x"], "b": [1]}], 4)
    def trial(self, treatment):
        return Trial(ModelSpec(name="m", source="fake:m"), EngineSpec(name="fake"), WorkloadSpec(name="fake"))
print(expand(C()).sha256)
"""


def test_the_plan_is_the_same_in_every_process() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"seed": 1},
        {"repetitions": 2},
        {"repetitions": 3, "order": Order.RANDOM},
        {"factors": [Factor("b", ["x", "y", "z"]), Factor("a", [1, 2, 3])]},
        {"trial": lambda treatment: Trial(TRIAL.model, TRIAL.engine, TRIAL.workload, baseline_s=1.0)},
    ],
)
def test_the_identity_of_a_plan_changes_with_what_is_run(changed: dict[str, Any]) -> None:
    usual = {"repetitions": 3}
    assert expand(Config(**usual)).sha256 == expand(Config(**usual)).sha256
    assert expand(Config(**{**usual, **changed})).sha256 != expand(Config(**usual)).sha256


def test_trial_is_asked_once_per_treatment_and_cannot_change_the_plan() -> None:
    asked = []

    def trial(treatment: Any) -> Trial:
        asked.append(dict(treatment))
        treatment["a"] = "changed"
        return TRIAL

    plan = expand(Config(repetitions=5, trial=trial))
    assert len(asked) == 9
    assert {run.treatment["a"] for run in plan.runs} == {1, 2, 3}


def _raise(treatment: Mapping[str, Any]) -> Trial:
    return {}["missing"]  # type: ignore[no-any-return]


def _too_concurrent(treatment: Mapping[str, Any]) -> Trial:
    return Trial(TRIAL.model, EngineSpec(name="fake", max_concurrency=2), WorkloadSpec(name="fake", concurrency=4))


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"name": ""}, "name is ''.*Give RunnerConfig a `name`"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"seed": "one"}, "seed is 'one'. Set it"),
        ({"seed": 2**70}, "seed is"),
        ({"factors": []}, "no factors. Give"),
        ({"factors": ["a"]}, "'a' is no factor. Write Factor"),
        ({"factors": [Factor("a", [])]}, "'a' has no levels. Give"),
        ({"factors": [Factor("a", "xy")]}, "'a' has no levels"),
        ({"factors": [Factor("a", [1, 2, 1])]}, "level 1 twice. Remove"),
        ({"factors": [Factor("a", [1]), Factor("a", [2])]}, "Two factors are named 'a'. Rename"),
        ({"factors": [Factor("a", [[1]])]}, r"level \[1\]. Levels are"),
        ({"factors": [Factor("a", [None])]}, "level None"),
        ({"factors": [Factor("a", [float("nan")])]}, "level nan"),
        ({"factors": [Factor(" ", [1])]}, "' ' cannot be the name"),
        ({"factors": [Factor("__run_id", [1])]}, "'__run_id' has the name of a column.*Rename"),
        ({"factors": [Factor("__done", [1])]}, "'__done' has the name of a column"),
        ({"factors": [Factor("energy_j", [1])]}, "'energy_j' has the name of a column"),
        ({"exclude": [{"c": [1]}]}, "names the factor 'c'. Choose from: a, b"),
        ({"exclude": [{"a": [4]}]}, "4 is no level of 'a'. It has"),
        ({"exclude": [{"a": [True]}]}, "True is no level of 'a'"),
        ({"exclude": [{"b": "xy"}]}, "give 'b' a list of levels"),
        ({"exclude": [{}]}, "Exclusion 0 names no factor"),
        ({"exclude": ["a"]}, "Exclusion 0 is 'a'. Give a dict"),
        ({"exclude": [{"a": [1, 2]}, {"a": [3]}]}, "exclude all 9 treatments. Remove"),
        ({"repetitions": 0}, "repetitions is 0. Set it"),
        ({"repetitions": 1.5}, "repetitions is 1.5"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"on_suspect": "shrug"}, "on_suspect is 'shrug'. Choose one of: OnSuspect.KEEP"),
        ({"order": "sorted"}, "order is 'sorted'. Choose one of: Order.RANDOM"),
        ({"order": Order.GROUPED}, "GROUPED, but group_by is .*Give it"),
        ({"order": Order.GROUPED, "group_by": ["c"]}, "group_by names 'c'. Choose from: a, b"),
        ({"trial": _raise}, r"trial\(\{'a': 1, 'b': 'x'\}\) raised KeyError: 'missing' \(.*test_design.py, line \d+\)"),
        ({"trial": lambda treatment: None}, r"trial\(\{'a': 1, 'b': 'x'\}\) returned NoneType. Return Trial"),
        ({"trial": lambda treatment: EngineSpec(name="no such name")}, r"trial\(\{'a': 1.*name: String should match"),
        ({"trial": _too_concurrent}, r"trial\(\{'a': .*concurrency 4 exceeds engine.max_concurrency 2.*Mend it"),
    ],
)
def test_a_wrong_declaration_is_told_with_the_next_step(given_: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        expand(Config(**given_))


def test_a_design_that_raises_is_told_with_its_line() -> None:
    class Broken(Config):
        def create_run_table_model(self) -> RunTableModel:
            return RunTableModel(factors=[Factor("a", [1 // 0])])

    with pytest.raises(ConfigError, match=r"create_run_table_model\(\) raised ZeroDivisionError.*test_design.py, line"):
        expand(Broken())
    with pytest.raises(ConfigError, match=r"must define create_run_table_model"):
        expand(type("Empty", (RunnerConfig,), {"name": "empty"})())

"""States, errors and the rules of a spec."""

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from contract import errors
from contract.attempt_state import TRANSITIONS, AttemptState, RunState, derive_run_state, may_follow
from contract.errors import (
    ErrorBody,
    JouleBedError,
    TestbedBusyError,
    UnknownNameError,
    error_from_body,
    wire_errors,
)
from contract.trial_spec import EngineSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from contract.units import canonical_json, sha256_of

PATH = ["CLAIMED", "SUBMITTED", "LOADING", "BASELINE", "WARMUP", "MEASURING", "COLLECTING"]
FINAL = {"SUCCEEDED", "SUSPECT", "FAILED", "CANCELLED", "TIMED_OUT", "LOST"}


def spec(**changes: object) -> TrialSpec:
    fields: dict[str, object] = {
        "experiment": "e",
        "run_id": "run_0_repetition_0",
        "repetition": 0,
        "treatment": {"task": "RTE"},
        "seed": 1,
        "model": ModelSpec(name="m", source="fake:m"),
        "engine": EngineSpec(name="fake"),
        "workload": WorkloadSpec(name="fake"),
    }
    return TrialSpec.model_validate(fields | changes)


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(AttemptState)
    assert {state.value for state in AttemptState if state.is_final} == FINAL


def test_the_path_is_walked_forwards_only() -> None:
    for before, after in itertools.product(PATH, PATH):
        forwards = PATH.index(after) > PATH.index(before)
        assert may_follow(AttemptState(before), AttemptState(after)) is forwards, (before, after)


def test_only_collecting_leads_to_a_result() -> None:
    for before, result in itertools.product(AttemptState, ["SUCCEEDED", "SUSPECT"]):
        assert may_follow(before, AttemptState(result)) is (before == "COLLECTING")


def test_any_open_state_may_break() -> None:
    for before, end in itertools.product(PATH, ["FAILED", "CANCELLED", "TIMED_OUT", "LOST"]):
        assert may_follow(AttemptState(before), AttemptState(end))


@pytest.mark.parametrize(
    ("attempts", "may_retry", "expected"),
    [
        ([], True, RunState.TODO),
        ([("MEASURING", False)], True, RunState.RUNNING),
        ([("FAILED", False)], True, RunState.TODO),
        ([("FAILED", False)], False, RunState.FAILED),
        ([("CANCELLED", False)], False, RunState.TODO),
        ([("FAILED", False), ("SUCCEEDED", True)], False, RunState.DONE),
        ([("SUSPECT", False)], False, RunState.SUSPECT),
        ([("SUSPECT", False)], True, RunState.TODO),
        ([("SUSPECT", False), ("FAILED", False)], False, RunState.SUSPECT),
        ([("SUSPECT", False), ("SUCCEEDED", True)], False, RunState.DONE),
        ([("SUSPECT", False), ("CLAIMED", False)], True, RunState.RUNNING),
    ],
)
def test_run_state_follows_from_attempts(attempts: list[tuple[str, bool]], may_retry: bool, expected: RunState) -> None:
    history = [(AttemptState(state), accepted) for state, accepted in attempts]
    assert derive_run_state(history, may_retry=may_retry) is expected


def test_error_codes_are_unique_and_survive_the_wire() -> None:
    names = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, JouleBedError)]
    assert len(wire_errors()) == len(names) > 20
    for cls in wire_errors().values():
        again = error_from_body(ErrorBody.model_validate_json(cls("words", n=1).body().model_dump_json()))
        assert (type(again), again.message, again.detail) == (cls, "words", {"n": 1})


def test_no_error_body_has_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TEST_TOKEN", "known-0123456789\n")
    error = JouleBedError(
        "Illegal header value b'Bearer known-0123456789\\n'",
        log_tail=["one", "token known-0123456789"],
        inner={"n": 1, "told": ("known-0123456789",)},
    )
    assert error.body() == ErrorBody(
        code="internal",
        message="Illegal header value b'Bearer [hidden]\\n'",
        detail={"log_tail": ["one", "token [hidden]"], "inner": {"n": 1, "told": ["[hidden]"]}},
    )


def test_an_unknown_error_code_keeps_what_it_says() -> None:
    error = error_from_body(ErrorBody(code="from_the_future", message="words", retryable=True))
    assert type(error) is JouleBedError
    assert error.detail == {"code": "from_the_future", "retryable": True}


def test_retryable_is_told() -> None:
    assert TestbedBusyError("x").body().retryable
    assert not UnknownNameError("x").body().retryable


def test_equal_specs_have_equal_hashes_whatever_the_order_of_keys() -> None:
    assert sha256_of({"a": 1, "b": [True, None]}) == sha256_of({"b": [True, None], "a": 1})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'
    assert spec().sha256() == spec().sha256() != spec(seed=2).sha256()


def test_engine_key_ignores_the_task_but_not_what_is_loaded() -> None:
    pinned = EngineSpec(name="fake", max_concurrency=8)
    one = spec(engine=pinned)
    assert (
        one.engine_key() == spec(engine=pinned, seed=9, workload=WorkloadSpec(name="fake", concurrency=4)).engine_key()
    )
    assert one.engine_key() != spec(engine=EngineSpec(name="fake", max_concurrency=9)).engine_key()
    assert spec().engine_key() != spec(workload=WorkloadSpec(name="fake", concurrency=4)).engine_key()


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment": "../escape"},
        {"run_id": ""},
        {"seed": -1},
        {"treatment": {"task": float("nan")}},
        {"baseline_s": float("inf")},
        {"engine": EngineSpec(name="fake", max_concurrency=2), "workload": WorkloadSpec(name="fake", concurrency=3)},
    ],
)
def test_bad_specs_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**changes)


@pytest.mark.parametrize(
    "source", ["hf:org/name", "hf:gpt2", "hf:_a/B-2.5_c.d", "hf:org/other--name", "path:/a/../b", "x"]
)
@pytest.mark.parametrize(
    "revision", [None, "0" * 40, "main", "v1.0-rc_2", "v1.0+cu118", "_x=1,2#3", "refs/pr/3", "a" * 128]
)
def test_a_model_has_a_source_and_a_revision(source: str, revision: str | None) -> None:
    assert ModelSpec(name="m", source=source, revision=revision).revision == revision


@pytest.mark.parametrize(
    "revision", ["", "..", "../../note", "a/../b", "a/./b", "a//b", "/etc", ".a", "a/", "a\n", "a\0", "a b", "a" * 129]
)
def test_a_revision_is_no_path(revision: str) -> None:
    with pytest.raises(ValidationError, match="revision"):
        ModelSpec(name="m", source="hf:org/name", revision=revision)


@pytest.mark.parametrize(
    "source",
    [
        *("hf:", "hf:a/\0b", "hf:../a", "hf:a/..", "hf:a..b", "hf:/a", "hf:a/", "hf:a/b/c", "hf:a b", "hf:a/b\n"),
        *("hf:-/a", f"hf:{'a' * 97}/b", f"hf:a/{'b' * 97}"),
    ],
)
def test_a_source_on_the_hub_names_a_repository(source: str) -> None:
    with pytest.raises(ValidationError, match="write hf:ORG/NAME"):
        ModelSpec(name="m", source=source)


def test_exit_layers_go_round_and_leave_old_hashes_as_they_were() -> None:
    sampling = SamplingSpec(exit_layers=(9, 12))
    assert [sampling.exit_layer_of(index) for index in range(5)] == [9, 12, 9, 12, 9]
    assert SamplingSpec().exit_layer_of(3) is None
    early = spec(sampling=sampling)
    assert early.sha256() != spec().sha256() != spec(sampling=SamplingSpec(exit_layers=(12, 9))).sha256()
    assert early.engine_key() == spec().engine_key(), "a warm engine serves both"
    before = spec().model_dump(
        mode="json", exclude={"devices": True, "serving": True, "edge": True, "sampling": {"exit_layers"}}
    )
    assert spec().sha256() == sha256_of(before), "a campaign that was begun before there were any goes on"


@pytest.mark.parametrize("layers", [(0,), (-1,), (9, 1.5), "9"])
def test_layers_that_are_no_counts_are_refused(layers: Any) -> None:
    with pytest.raises(ValidationError, match="exit_layers"):
        SamplingSpec(exit_layers=layers)

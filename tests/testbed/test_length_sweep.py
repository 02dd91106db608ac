"""The length sweep: answers of an exact length, and refusal of what cannot fit before anything is loaded."""

from pathlib import Path

import pytest

from contract.errors import InvalidOptionError, InvalidRequestError
from contract.trial_spec import SamplingSpec, TrialSpec, WorkloadSpec
from testbed.attempt_folder import RequestRecord
from testbed.engines.fake_engine import FakeEngine
from testbed.request_length import refuse_what_cannot_fit, sampling_of
from testbed.trial_run import Parts, run_trial
from testbed.workloads.base import WorkItem
from testbed.workloads.length_sweep import LengthSweepWorkload
from tests.testbed.test_trial_run import SPEC, NoThermometer, StillClock


def sweep_spec(n_output_tokens: int, *, max_model_len: int | None = None, n_samples: int = 3) -> TrialSpec:
    options = {"n_output_tokens": n_output_tokens, "n_items": n_samples}
    return SPEC.model_copy(
        update={
            "workload": WorkloadSpec(name="length_sweep", options=options),
            "sampling": SamplingSpec(),
            "model": SPEC.model.model_copy(update={"max_model_len": max_model_len}),
        }
    )


def parts_of(spec: TrialSpec) -> Parts:
    return Parts(
        engine=FakeEngine(), warm=None, workload=LengthSweepWorkload(**spec.workload.options), meters=(),
        thermometer=NoThermometer(),
    )  # fmt: skip


@pytest.mark.parametrize("n_output_tokens", [1, 50, 700])
def test_every_answer_has_exactly_the_length(n_output_tokens: int, tmp_path: Path) -> None:
    spec = sweep_spec(n_output_tokens)
    record = run_trial(spec, parts_of(spec), tmp_path, StillClock())
    assert record.error is None and record.workload is not None
    requests = [RequestRecord.model_validate_json(line) for line in (tmp_path / "requests.jsonl").open()]
    assert [request.n_output_tokens for request in requests] == [n_output_tokens] * 3
    assert record.workload.n_output_tokens == 3 * n_output_tokens and record.workload.score is None


def test_only_the_length_differs_between_points() -> None:
    def prompts(n_output_tokens: int) -> list[object]:
        items = LengthSweepWorkload(n_output_tokens=n_output_tokens, n_items=20).prepare().items
        return [(item.item_id, item.messages) for item in items]

    assert prompts(50) == prompts(700)
    assert len({str(prompt) for prompt in prompts(50)}) == 20


def test_an_item_without_a_length_is_sampled_as_the_trial_says() -> None:
    sampling = SamplingSpec(temperature=0.5, max_tokens=7)
    item = WorkItem("a", ({"role": "user", "content": "one two"},), None)
    assert sampling_of(sampling, item) == sampling
    longer = sampling_of(sampling, WorkItem("a", item.messages, None, n_output_tokens=9))
    assert (longer.max_tokens, longer.ignore_eos, longer.temperature) == (9, True, 0.5)


def test_what_cannot_fit_is_refused_before_the_load(tmp_path: Path) -> None:
    spec = sweep_spec(700, max_model_len=512)
    record = run_trial(spec, parts_of(spec), tmp_path, StillClock())
    assert record.error is not None and record.error.code == "invalid_request"
    assert "700" in record.error.message and "512" in record.error.message
    assert record.load is None and not record.phases


def test_a_request_that_may_stop_by_itself_is_not_refused() -> None:
    item = WorkItem("a", ({"role": "user", "content": "one two"},), None)
    refuse_what_cannot_fit([item], SamplingSpec(max_tokens=100), 50)
    with pytest.raises(InvalidRequestError, match="'a'"):
        refuse_what_cannot_fit([item], SamplingSpec(max_tokens=49, ignore_eos=True), 50)
    refuse_what_cannot_fit([item], SamplingSpec(max_tokens=48, ignore_eos=True), 50)


@pytest.mark.parametrize("options", [{}, {"n_output_tokens": 0}, {"n_output_tokens": 5, "n_items": 0}])
def test_a_wrong_option_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOptionError, match="Known options"):
        LengthSweepWorkload(**options)

"""Runs of the real Experiment Runner on a testbed: what its hooks call."""

from pathlib import Path

import pytest

from contract.attempt_state import AttemptState
from contract.errors import (
    ArtifactCorruptError,
    ConfigError,
    EngineError,
    TestbedBusyError,
    TestbedUnreachableError,
)
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.experiment_runner.delegate import (
    TOKEN_FILE_VARIABLE,
    URL_VARIABLE,
    Delegate,
    DelegatedError,
    delegate_from_environment,
)
from orchestrator.experiment_runner.study import StudySource, load_study
from orchestrator.experiment_runner.template import parse_template
from tests.orchestrator.doubles import Clock
from tests.orchestrator.experiment_runner.studies import ROOT, TEMPLATE, write_study

ROW = {"__run_id": "run_1_repetition_1", "__done": "TODO", "task": "RTE"}


def delegate(client: FakeClient, clock: Clock | None = None) -> Delegate:
    return Delegate("study", parse_template(TEMPLATE, "t"), client, sleep=(clock or Clock()).sleep)


def test_a_delegated_run_is_the_same_trial_as_a_planned_one(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path)
    planned = {run.run_id: run.spec for run in load_study(StudySource(config, spec)).plan.runs}
    assert delegate(FakeClient()).spec(ROW) == planned["run_1_repetition_1"]


def test_a_run_brings_its_files_and_its_columns(tmp_path: Path) -> None:
    client = FakeClient()
    found = delegate(client)
    result = found.run(ROW, tmp_path / "run_1_repetition_1")
    names = {path.name for path in (tmp_path / "run_1_repetition_1").iterdir()}
    assert names == {"result.json", *(artifact.name for artifact in result.artifacts)}
    data = found.data(result, ["state", "reasons", "energy", "attempt_id"])
    assert data == {"state": "DONE", "reasons": "", "energy": "", "attempt_id": result.attempt_id}
    assert [method for method, _ in client.calls][-1] == "acknowledge"


def test_a_doubted_result_says_so(tmp_path: Path) -> None:
    found = delegate(FakeClient(lambda spec, n_before: FakeTrial(AttemptState.SUSPECT)))
    data = found.data(found.run(ROW, tmp_path), ["state", "reasons"])
    assert data == {"state": "SUSPECT", "reasons": "fake: The script says so."}


def test_a_failed_run_raises_so_that_its_row_stays_to_do(tmp_path: Path) -> None:
    error = EngineError("The engine broke.").body()
    client = FakeClient(lambda spec, n_before: FakeTrial(AttemptState.FAILED, error))
    with pytest.raises(DelegatedError, match=r"run_1_repetition_1 has no result: The engine broke. Its files are in"):
        delegate(client).run(ROW, tmp_path)


def test_a_busy_testbed_is_waited_for_and_one_that_stays_busy_is_told(tmp_path: Path) -> None:
    clock = Clock()
    busy = TestbedBusyError("Another trial runs.")
    delegate(FakeClient(failures={"submit": [busy, busy]}), clock).run(ROW, tmp_path)
    assert clock.now_s == 4.0
    with pytest.raises(TestbedBusyError):
        delegate(FakeClient(failures={"submit": [busy] * 1000}), Clock()).run(ROW, tmp_path)


def test_a_run_that_is_given_up_is_cancelled(tmp_path: Path) -> None:
    client = FakeClient(failures={"status": [TestbedUnreachableError("No answer.")]})
    with pytest.raises(TestbedUnreachableError):
        delegate(client).run(ROW, tmp_path)
    assert client.calls[-1][0] == "cancel"


def test_files_that_do_not_verify_are_no_result(tmp_path: Path) -> None:
    client = FakeClient(lambda spec, n_before: FakeTrial(is_corrupt=True))
    with pytest.raises(ArtifactCorruptError):
        delegate(client).run(ROW, tmp_path)
    assert "acknowledge" not in [method for method, _ in client.calls]


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, spec = write_study(tmp_path)
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"Set {URL_VARIABLE} to the testbed's URL"):
        delegate_from_environment("study", spec)
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:1")
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, str(tmp_path / "no-token"))
    with pytest.raises(ConfigError, match=r"token file .* cannot be read"):
        delegate_from_environment("study", spec)
    found = delegate(FakeClient())
    with pytest.raises(ConfigError, match="Nothing fills the data column 'avg_cpu'"):
        found.data(found.run(ROW, tmp_path), ["avg_cpu"])
    with pytest.raises(ConfigError, match="'run_1' is no run"):
        found.spec({"__run_id": "run_1"})


def test_the_shipped_configuration_is_planned_with_the_shipped_template() -> None:
    folder = ROOT / "runnerconfig"
    study = load_study(StudySource(folder / "RunnerConfig.py", folder / "experiment_runner.toml"))
    assert len(study.plan.runs) == 8
    template, data_columns = study.config.template, study.config.read.data_columns
    assert all(template.source_of(name) for name in data_columns)
    assert study.config.read.keeps_model

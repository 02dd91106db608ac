"""One run of the real Experiment Runner, done on a testbed: what the hooks of `runnerconfig/RunnerConfig.py` call.

Experiment Runner keeps design, order, cooldown and run table; the testbed loads, runs and measures.
"""

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from contract.attempt_state import AttemptState, RunState
from contract.errors import ConfigError, JouleBedError, TestbedBusyError, error_from_body
from contract.routes import MAX_WAIT_S
from contract.trial_result import TrialResult
from contract.trial_spec import TrialSpec
from contract.units import Scalar
from orchestrator.clients.base import TestbedClient
from orchestrator.clients.http_client import HttpClient, read_token
from orchestrator.design import derive_seed
from orchestrator.device_option import device_specs
from orchestrator.durable_file import write_durably
from orchestrator.experiment_runner.run_table_file import run_numbers
from orchestrator.experiment_runner.template import Template, read_template
from orchestrator.run_table_columns import DATA_COLUMNS, Value
from orchestrator.store.base import AttemptRow, RunRow

URL_VARIABLE = "JOULEBED_TESTBED"
"""Environment variable that holds the testbed's URL."""

TOKEN_FILE_VARIABLE = "JOULEBED_TOKEN_FILE"
"""Environment variable that names the file with its token; else JOULEBED_TOKEN holds it."""

_BUSY_PAUSE_S = 2.0
_BUSY_AT_MOST_S = 600.0


class DelegatedError(JouleBedError):
    """The testbed could not do the run; Experiment Runner leaves its row TODO, and tries it at the next start."""

    code = "delegated"


class Delegate:
    """Does runs of one experiment on one testbed.

    Args:
        experiment: name of it.
        template: how levels become trials.
        client: of the testbed.
        sleep: pauses while the testbed is busy.
    """

    def __init__(
        self,
        experiment: str,
        template: Template,
        client: TestbedClient,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._experiment = experiment
        self._template = template
        self._client = client
        self._sleep = sleep

    def spec(self, run: Mapping[str, object]) -> TrialSpec:
        """The trial of a row of Experiment Runner's table.

        Args:
            run: the row: `__run_id`, `__done`, factors and data columns.

        Raises:
            ConfigError: the template does not fit.
        """
        run_id = str(run["__run_id"])
        numbers = run_numbers(run_id)
        if numbers is None:
            raise ConfigError(f"{run_id!r} is no run of Experiment Runner, which names them run_0_repetition_0.")
        treatment: dict[str, Scalar] = {
            name: level if isinstance(level, str | int | float | bool) else str(level)
            for name, level in run.items()
            if not name.startswith("__")
        }
        trial = self._template.trial_of(treatment)
        return TrialSpec(
            experiment=self._experiment,
            run_id=run_id,
            repetition=numbers[1],
            treatment=treatment,
            seed=derive_seed(self._template.experiment.seed, run_id),
            **{**vars(trial), "devices": list(trial.devices) or device_specs(self._template.experiment.devices)},
        )

    def check(self, runs: Sequence[Mapping[str, object]]) -> None:
        """See that the testbed could do these runs.

        Raises:
            DelegatedError: it could not do one; the message says why.
        """
        self._client.node()
        problems = self._client.check([self.spec(run) for run in runs])
        if problems:
            raise DelegatedError(f"The testbed cannot do {problems[0].run_id}: {problems[0].error.message}")

    def run(self, run: Mapping[str, object], run_dir: Path) -> TrialResult:
        """Do one run and bring its files.

        Args:
            run: the row.
            run_dir: takes `result.json` and the attempt's files.

        Raises:
            DelegatedError: it has no result; the message says why.
        """
        spec = self.spec(run)
        attempt_id = f"{spec.run_id}-er-{uuid.uuid4().hex[:8]}"
        try:
            self._submit(attempt_id, spec)
            result = self._wait(attempt_id)
        except BaseException:
            # Experiment Runner or its user ends this run: nothing may go on measuring for nobody.
            with suppress(JouleBedError):
                self._client.cancel(attempt_id)
            raise
        run_dir.mkdir(parents=True, exist_ok=True)
        self._client.fetch_artifacts(attempt_id, result.artifacts, run_dir)
        write_durably(run_dir / "result.json", (result.model_dump_json(indent=1) + "\n").encode())
        self._client.acknowledge(attempt_id)
        if not result.state.has_result:
            error = result.error
            why = error_from_body(error).message if error else result.state.value
            raise DelegatedError(f"{spec.run_id} has no result: {why} Its files are in {run_dir}.")
        return result

    def data(self, result: TrialResult, data_columns: Sequence[str]) -> dict[str, Value]:
        """The row's data columns. What was not measured is an empty text, never 0.

        Args:
            result: of the run.
            data_columns: of the study.

        Raises:
            ConfigError: nothing fills one of them.
        """
        run, attempt = _as_stored(result)
        readers = {column.name: column.read for column in DATA_COLUMNS}
        filled: dict[str, Value] = {}
        for name in data_columns:
            source = self._template.source_of(name)
            if source is None:
                raise ConfigError(f"Nothing fills the data column {name!r}. Name its source in [data_columns].")
            value = readers[source](run, attempt)
            filled[name] = "" if value is None else value
        return filled

    def close(self) -> None:
        """Free connections. Idempotent."""
        self._client.close()

    def _submit(self, attempt_id: str, spec: TrialSpec) -> None:
        waited_s = 0.0
        while True:
            try:
                self._client.submit(attempt_id, spec)
                return
            except TestbedBusyError:
                if waited_s >= _BUSY_AT_MOST_S:
                    raise
                self._sleep(_BUSY_PAUSE_S)
                waited_s += _BUSY_PAUSE_S

    def _wait(self, attempt_id: str) -> TrialResult:
        status = self._client.status(attempt_id)
        while not status.state.is_final:
            status = self._client.status(attempt_id, after_version=status.version, wait_s=MAX_WAIT_S / 2)
        return self._client.result(attempt_id)


def delegate_from_environment(experiment: str, template: Path) -> Delegate:
    """A delegate to the testbed that the environment names.

    Args:
        experiment: name of it.
        template: its file.

    Raises:
        ConfigError: an environment variable is missing, or the template is wrong.
    """
    url = os.environ.get(URL_VARIABLE, "").strip()
    if not url:
        raise ConfigError(f"Set {URL_VARIABLE} to the testbed's URL, such as http://gpu-box:8765.")
    token_file = os.environ.get(TOKEN_FILE_VARIABLE, "").strip()
    token = read_token(Path(token_file) if token_file else None)
    return Delegate(experiment, read_template(template)[0], HttpClient(url, token))


def _as_stored(result: TrialResult) -> tuple[RunRow, AttemptRow]:
    """As the run table would have it, whose columns read nothing else."""
    is_accepted = result.state is AttemptState.SUCCEEDED
    now = datetime.now(UTC)
    attempt = AttemptRow(
        attempt_id=result.attempt_id,
        run_id=result.run_id,
        number=1,
        state=result.state,
        accepted=is_accepted,
        testbed=result.node.hostname,
        claimed_at=result.started_at,
        updated_at=now,
        finished_at=result.finished_at,
        error=result.error,
        result=result,
        reasons=tuple(result.reasons),
    )
    numbers = run_numbers(result.run_id) or (0, 0)
    state = RunState.DONE if is_accepted else RunState.SUSPECT
    return RunRow(0, result.run_id, {}, numbers[1], state, (attempt,)), attempt

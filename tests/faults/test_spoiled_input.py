"""Whatever arrives, in a spec, a log or an answer: it is taken, or refused in words, and nothing else is raised."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.testclient import TestClient

from contract import routes
from contract.errors import ErrorBody, JouleBedError, LogFormatError
from contract.node_info import CheckReport, CheckRequest, NodeIdentity
from contract.trial_result import AttemptStatus, Phase, PhaseWindow
from contract.trial_spec import ModelSpec, TrialSpec
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from energy.attribution import attribute, summarise
from energy.energibridge_log import read_energibridge_log
from orchestrator.artifacts import ArtifactFolder
from orchestrator.clients.http_client import HttpClient
from testbed import attempt_folder, model_runner
from testbed.attempt_store import AttemptStore
from testbed.clock import SystemClock
from testbed.collect import collect
from testbed.composition import node_parts
from testbed.http_api import create_app
from testbed.launcher import Launcher
from testbed.model_runner import ModelRunner, check
from testbed.node import TestbedNode
from testbed.supervisor import Timing
from tests.contract import examples
from tests.faults.mutation import spoiled, spoiled_bytes

AT = datetime(2026, 11, 21, tzinfo=UTC)
NODE = NodeIdentity(
    hostname="h", os="o", cpu_model="c", n_cpus=1, memory_bytes=1, python_version="3", hardware_sha256="0" * 64
)
SPEC: dict[str, Any] = {
    "experiment": "spoiled",
    "run_id": "run_0_repetition_0",
    "repetition": 0,
    "treatment": {"words": 8},
    "seed": 1,
    "model": {"name": "m", "source": "fake:m", "max_model_len": 512},
    "engine": {"name": "fake", "lifetime": "trial", "max_concurrency": 2, "options": {"load_s": 0.0}},
    "sampling": {"temperature": 0.5, "max_tokens": 4},
    "workload": {"name": "fake", "concurrency": 2, "options": {"n_items": 2, "prompt_words": 6}},
    "meter": {"name": "fake", "period_s": 1.0, "options": {}},
    "actuators": [{"name": "simulated", "domain": "gpu:0", "setting": {"clock_mhz": 1005}}],
    "baseline_s": 0.0,
    "warmup_requests": 0,
    "deadline": {"load_s": 5.0, "total_s": 5.0},
}
LOG = b"Delta,Time,CPU_USAGE_0,GPU0_POWER (mWatts),GPU0_TEMPERATURE,PACKAGE_ENERGY (J)\n" + b"".join(
    b"%d,%d,3,%d,41,%.3f\n" % (200 if n else 0, 1_795_000_000_000 + 200 * max(n, 1), 100_000 + n, 1000 + 20.0 * n)
    for n in range(30)
)
RECORD = {
    "origin_s": 100.0,
    "unix_minus_monotonic_s": 1_794_999_900.0,
    "end_unix_minus_monotonic_s": 1_794_999_900.0,
    "phases": [
        {"phase": "baseline", "start_s": 0.2, "duration_s": 1.0},
        {"phase": "measure", "start_s": 1.5, "duration_s": 3.0},
    ],
    "workload": {
        "name": "fake",
        "source": "made up",
        "prompt_sha256": "0" * 64,
        "n_requests": 1,
        "n_planned": 1,
        "n_prompt_tokens": 4,
        "n_output_tokens": 2,
    },
    "meter_settings": {"energibridge": {"version": "energibridge 0.0.7"}},
}
REQUEST = {
    "item_id": "item-0",
    "prompt_sha256": "0" * 64,
    "n_prompt_tokens": 4,
    "n_output_tokens": 2,
    "finish_reason": "stop",
    "submitted_s": 101.6,
    "first_token_s": 102.0,
    "finished_s": 103.0,
    "token_s": [102.0, 103.0],
    "messages": [{"role": "user", "content": "?"}],
    "answer": "yes",
    "gold_label": "yes",
    "predicted_label": "yes",
    "is_correct": True,
}
TRACE = (
    b"domain,component,kind,method,source,wrap_j,is_headline,note,time_s,value\n"
    b"cpu_package,cpu,counter,counter,rapl,,True,,100.0,5.0\n"
    b"cpu_package,cpu,counter,counter,rapl,,True,,102.5,155.0\n"
    b"cpu_package,cpu,counter,counter,rapl,,True,,105.0,305.0\n"
)

many = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def spec_of(document: Any) -> TrialSpec | None:
    """A spec, if the contract takes it; over HTTP, which has tests of its own, the rest is answered with 422."""
    try:
        return TrialSpec.model_validate_json(json.dumps(document))
    except ValidationError:
        return None


class InProcess(Launcher):
    """Checks here: a process of its own for each example would take a second."""

    def check(self, request: CheckRequest, limit_s: float = 300.0) -> CheckReport:
        """See `Launcher`; through the same text."""
        report = check(CheckRequest.model_validate_json(request.model_dump_json()))
        return CheckReport.model_validate_json(report.model_dump_json())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestbedNode]:
    """All the real parts, but a child that dies at once: what a spec does to the child is another test's."""
    data_dir = tmp_path_factory.mktemp("spoiled") / "data"
    env = {**os.environ, "JOULEBED_ENERGIBRIDGE": "none-here"}
    parts = node_parts(data_dir, env=env, timing=Timing(poll_s=0.02, grace_s=0.1))
    launcher = InProcess(data_dir, env, SystemClock(), runner_command=["false"], grace_s=0.1)
    node = TestbedNode(AttemptStore(data_dir), replace(parts, launcher=launcher))
    yield node
    node.close()


class TestSpecs:
    @some
    @given(document=spoiled(SPEC), lifetime=st.sampled_from(["trial", "block"]), number=st.integers(0, 2**60))
    def test_a_node_takes_them_or_says_why_not(
        self, node: TestbedNode, document: Any, lifetime: str, number: int
    ) -> None:
        spec = spec_of(document)
        if spec is None:
            return
        spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"lifetime": lifetime})})
        attempt_id = f"a-{number}"
        try:
            status = node.submit(attempt_id, spec)
        except JouleBedError as error:
            assert error.message
            return
        while not status.state.is_final:
            status = node.status(attempt_id, after_version=status.version, wait_s=20.0)
        assert status.error is not None and status.error.message
        assert node.result(attempt_id).spec_sha256 == spec.sha256()

    @some
    @given(document=spoiled(SPEC))
    def test_a_child_leaves_a_record(self, document: Any) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            spec = spec_of(document)
            if spec is not None and _takes_long(spec):
                return
            path = folder / attempt_folder.SPEC
            path.write_text(json.dumps(document) if spec is None else spec.model_dump_json())
            record = ModelRunner(SystemClock()).run(
                path, folder, ["fake"] if spec and spec.meter.name == "fake" else []
            )
            assert (folder / attempt_folder.RECORD).exists()
            assert record.error is None or record.error.message

    @some
    @given(documents=st.lists(spoiled(SPEC), min_size=1, max_size=3))
    def test_a_check_says_what_is_in_the_way(self, documents: list[Any]) -> None:
        specs = [spec for document in documents if (spec := spec_of(document)) is not None]
        problems = check(CheckRequest(specs=specs)).problems
        assert len(problems) <= len(specs)
        assert all(problem.error.message for problem in problems)


def test_what_nobody_foresaw_is_a_problem_of_its_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(spec: TrialSpec) -> None:
        if spec.run_id == "run_1_repetition_0":
            raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setattr(model_runner, "_check_engine", stumble)
    specs = [TrialSpec.model_validate(SPEC | {"run_id": f"run_{n}_repetition_0", "seed": n}) for n in range(3)]
    specs[1] = specs[1].model_copy(update={"model": ModelSpec(name="other", source="fake:other")})
    (problem,) = check(CheckRequest(specs=specs)).problems
    assert (problem.run_id, problem.error.code) == ("run_1_repetition_0", "internal")
    assert problem.error.message.startswith("ZeroDivisionError: nobody foresaw it")


@pytest.fixture(scope="module")
def client(node: TestbedNode) -> TestClient:
    headers = {
        "Authorization": "Bearer token-for-tests-only",
        PROTOCOL_HEADER: str(PROTOCOL_VERSION),
        "Content-Type": "application/json",
    }
    return TestClient(create_app(node, "token-for-tests-only"), raise_server_exceptions=False, headers=headers)


TEXTS = ("\ud800", "a\udfffb", "\x00", "a\x00b")
PLACES: tuple[Callable[[str], dict[str, Any]], ...] = (
    lambda text: {"treatment": {"words": text}},
    lambda text: {"treatment": {text: 8}},
    lambda text: {"engine": {"name": "fake", "options": {text: 1}}},
    lambda text: {"workload": {"name": "fake", "concurrency": 2, "options": {"n_items": [text]}}},
    lambda text: {"model": {"name": "m", "source": f"fake:{text}"}},
    lambda text: {"model": {"name": "m", "source": f"hf:a/{text}", "revision": text}},
    lambda text: {"model": {"name": "m", "source": f"path:{text}"}, "engine": {"name": "llama_cpp"}},
    lambda text: {"model": {"name": "m", "source": f"package:{text}"}, "engine": {"name": "transformers"}},
    lambda text: {"run_id": text},
    lambda text: {text: text},
)


class TestOverHttp:
    @some
    @given(document=spoiled(SPEC), number=st.integers(0, 2**60))
    def test_a_submission_is_taken_or_refused(
        self, node: TestbedNode, client: TestClient, document: Any, number: int
    ) -> None:
        path = f"/v1/attempts/h-{number}"
        answer = client.put(path, content=json.dumps(document))
        if answer.status_code != 200:
            refused(answer)
            return
        version = -1
        while not AttemptStatus.model_validate_json(answer.content).state.is_final:
            version = answer.json()["version"]
            answer = client.get(path, params={"after_version": version, "wait_s": 20})
        assert client.get(f"{path}/result").status_code == 200

    @some
    @given(documents=st.lists(spoiled(SPEC), min_size=1, max_size=3))
    def test_a_check_is_answered_or_refused(self, client: TestClient, documents: list[Any]) -> None:
        answer = client.post(routes.CHECK, content=json.dumps({"specs": documents}))
        if answer.status_code != 200:
            refused(answer)
        else:
            assert len(CheckReport.model_validate_json(answer.content).problems) <= len(documents)

    @pytest.mark.parametrize("text", TEXTS)
    @pytest.mark.parametrize("place", PLACES)
    def test_what_is_no_text_is_refused_wherever_it_stands(
        self, client: TestClient, place: Callable[[str], dict[str, Any]], text: str
    ) -> None:
        document = json.dumps(SPEC | place(text))
        checked = client.post(routes.CHECK, content=f'{{"specs": [{document}]}}')
        submitted = client.put("/v1/attempts/odd", content=document)
        for answer in (checked, submitted):
            if answer.status_code != 200:
                refused(answer)
            if "\x00" not in text:
                assert (answer.status_code, "surrogate" in answer.text or "hex escape" in answer.text) == (422, True)


def refused(answer: httpx.Response) -> None:
    """With what whoever asked can do something about."""
    assert answer.status_code < 500, answer.text
    assert ErrorBody.model_validate_json(answer.content).message


def _takes_long(spec: TrialSpec) -> bool:
    options = {**spec.engine.options, **spec.workload.options, "baseline_s": spec.baseline_s}
    numbers = [value for value in options.values() if isinstance(value, int | float)]
    # A huge number is a wish for a long trial, which a deadline ends; there is none around this child.
    return any(value > 100 for value in numbers) or spec.warmup_requests > 100 or "die" in options


class TestLogs:
    @many
    @given(data=spoiled_bytes(LOG), separator=st.sampled_from([None, ",", ";"]))
    def test_a_log_is_read_or_refused_with_file_and_line(self, data: bytes, separator: str | None) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "energibridge.csv"
            path.write_bytes(data)
            try:
                log = read_energibridge_log(path, separator=separator)
            except LogFormatError as error:
                assert str(path) in error.message
                return
            phases = [PhaseWindow(phase=Phase.MEASURE, start_s=1.0, duration_s=3.0)]
            readings = attribute(log.traces, phases, origin_s=1_795_000_000.0)
            summarise(readings, phases)

    @many
    @given(
        log=st.just(LOG) | spoiled_bytes(LOG),
        record=st.just(RECORD).map(json.dumps) | spoiled(RECORD).map(json.dumps) | st.just('{"origin_s": 1'),
        requests=st.just(REQUEST).map(json.dumps).map(str.encode)
        | spoiled(REQUEST).map(json.dumps).map(str.encode)
        | spoiled_bytes(json.dumps(REQUEST).encode()),
        trace=st.none() | st.just(TRACE) | spoiled_bytes(TRACE),
        child_log=st.binary(max_size=50),
    )
    def test_an_attempts_files_become_a_result(
        self, log: bytes, record: str, requests: bytes, trace: bytes | None, child_log: bytes
    ) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / attempt_folder.ENERGIBRIDGE_LOG).write_bytes(log)
            (folder / attempt_folder.RECORD).write_text(record)
            (folder / attempt_folder.REQUESTS).write_bytes(requests + b"\n")
            (folder / attempt_folder.CHILD_LOG).write_bytes(child_log)
            if trace is not None:
                (folder / "trace_rapl.csv").write_bytes(trace)
            spec = TrialSpec.model_validate(SPEC)
            result = collect(folder, attempt_id="a", spec=spec, node=NODE, started_at=AT, finished_at=AT)
        assert result.state.is_final
        # What is sent must be readable on the other side.
        assert type(result).model_validate_json(result.model_dump_json()).attempt_id == "a"
        if result.state.name == "SUCCEEDED":
            assert result.summary is not None and result.summary.energy_j is not None


class Scripted(httpx.BaseTransport):
    """Answers everything alike."""

    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self._answer = status, headers, content

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, content = self._answer
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


RESULT = json.loads(examples.RESULT.model_dump_json())
STATUS = json.loads(examples.EXAMPLES["attempt_status"].model_dump_json())
ANSWERS = (
    spoiled(RESULT).map(json.dumps).map(str.encode)
    | spoiled(STATUS).map(json.dumps).map(str.encode)
    | spoiled({"code": "testbed_busy", "message": "m", "detail": {}, "retryable": True}).map(json.dumps).map(str.encode)
    | spoiled_bytes(json.dumps(RESULT).encode())
)
CALLS: tuple[Callable[[HttpClient, Path], object], ...] = (
    lambda client, folder: client.node(),
    lambda client, folder: client.clock_offset_s(),
    lambda client, folder: client.check([examples.SPEC]),
    lambda client, folder: client.submit("a", examples.SPEC),
    lambda client, folder: client.status("a", with_result=True),
    lambda client, folder: client.result("a"),
    lambda client, folder: client.fetch_artifacts("a", examples.RESULT.artifacts, folder),
    lambda client, folder: ArtifactFolder(folder).collect(client, client.result("a")),
    lambda client, folder: client.cancel("a"),
    lambda client, folder: client.acknowledge("a"),
)


@many
@given(
    content=ANSWERS,
    status=st.sampled_from([200, 200, 200, 206, 204, 301, 400, 401, 404, 409, 416, 422, 426, 429, 500, 502, 503]),
    headers=st.dictionaries(
        st.sampled_from(["Content-Type", "Content-Range", "Date", "Retry-After"]),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    ),
    version=st.sampled_from([str(PROTOCOL_VERSION)] * 4 + ["", "99", "x"]),
    call=st.sampled_from(CALLS),
)
def test_an_orchestrator_takes_an_answer_or_says_what_is_wrong_with_it(
    content: bytes,
    status: int,
    headers: dict[str, str],
    version: str,
    call: Callable[[HttpClient, Path], object],
) -> None:
    all_headers = {**headers, **({PROTOCOL_HEADER: version} if version else {})}
    client = HttpClient(
        "http://testbed:1",
        "token-for-tests-only",
        unreachable_after_s=0.0,
        sleep=lambda seconds: None,
        transport=Scripted(status, all_headers, content),
    )
    with tempfile.TemporaryDirectory() as name, suppress(JouleBedError):
        call(client, Path(name))
        assert not any(".." in path.name for path in Path(name).rglob("*"))

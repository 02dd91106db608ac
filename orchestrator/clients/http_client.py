"""The testbed over HTTP: one kept connection, and retries of what may be repeated, which is everything."""

import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from contract import routes
from contract.errors import ArtifactCorruptError, ConfigError, ErrorBody, TestbedUnreachableError, error_from_body
from contract.node_info import CheckProblem, CheckReport, CheckRequest, NodeInfo
from contract.telemetry import TelemetrySample
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION, WireModel
from orchestrator.clients.artifact_file import ArtifactFile, holds, place_together
from orchestrator.clients.event_stream import event_data
from orchestrator.clients.protocol import check_version
from orchestrator.clients.testbed_url import check_testbed_url

TOKEN_VARIABLE = "JOULEBED_TOKEN"
"""Environment variable that holds the bearer token."""

_Answer = TypeVar("_Answer", bound=WireModel)

_CONNECT_S = 5.0
_READ_S = 20.0
_CHECK_READ_S = 900.0
_CHECK_BYTES = 512 * 1024
"""Specs of one request of `check`: half of what a testbed takes."""
_CHUNK_BYTES = 256 * 1024


def read_token(token_file: Path | None, environment: "os._Environ[str] | dict[str, str]" = os.environ) -> str:
    """The bearer token: from a file, else from `JOULEBED_TOKEN`. Never from a flag, which `ps` would show.

    Raises:
        ConfigError: there is none.
    """
    if token_file is None:
        token = environment.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise ConfigError(
                f"There is no token for the testbed. Set {TOKEN_VARIABLE}, or give --token-file with a copy of the "
                "file that the testbed was started with."
            )
    else:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The token file {token_file} cannot be read ({error}). Give one line of text."
            ) from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("The token is not one line of printable ASCII. Copy the testbed's token again.")
    return token


class HttpClient:
    """A testbed at a URL. Thread-safe.

    Args:
        url: such as `http://gpu-box:8765`.
        token: the testbed's bearer token.
        unreachable_after_s: how long one call is repeated, with growing pauses, before `TestbedUnreachableError`.
        sleep: pauses between repetitions.
        transport: in place of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        unreachable_after_s: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = _checked_url(url)
        self._retrying = Retrying(
            stop=stop_after_delay(unreachable_after_s),
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            retry=retry_if_exception_type((httpx.TransportError, _NoAnswerError)),
            sleep=sleep,
            reraise=True,
        )
        self._headers = [("Authorization", f"Bearer {token}"), (PROTOCOL_HEADER, str(PROTOCOL_VERSION))]
        # The transport and not httpx.Client: cookies, redirects and proxies of the environment are for browsing,
        # and cost a third of the time of a call.
        self._transport = transport or httpx.HTTPTransport(verify=_certificates())
        # What the last status brought for `fetch_artifacts`.
        self._brought: tuple[str, dict[str, bytes]] = ("", {})

    def node(self) -> NodeInfo:
        """See `TestbedClient.node`."""
        info = self._ask("GET", routes.NODE, NodeInfo)
        check_version(str(info.protocol_version), self.url)
        return info

    def clock_offset_s(self) -> float | None:
        """The testbed's clock less ours, to a second; None when it does not tell the time."""
        response = self._repeat(lambda: self._send_and_read("GET", routes.LIVE))
        try:
            theirs = parsedate_to_datetime(response.headers["Date"])
        except (KeyError, ValueError):
            return None
        return (theirs - datetime.now(UTC).replace(microsecond=0)).total_seconds()

    def check(self, specs: Sequence[TrialSpec]) -> list[CheckProblem]:
        """See `TestbedClient.check`."""
        problems: list[CheckProblem] = []
        for batch in _batches(specs):
            body = CheckRequest(specs=batch).model_dump_json()
            problems += self._ask("POST", routes.CHECK, CheckReport, body=body, read_s=_CHECK_READ_S).problems
        return problems

    def submit(
        self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
    ) -> AttemptStatus:
        """See `TestbedClient.submit`."""
        wait_s = min(wait_s, routes.MAX_WAIT_S)
        query = "".join(f"&acknowledges={each}" for each in acknowledges)
        path = f"{routes.ATTEMPT.format(attempt_id=attempt_id)}?wait_s={wait_s:g}{query}"
        status = self._ask("PUT", path, AttemptStatus, body=spec.model_dump_json(), read_s=_READ_S + wait_s)
        return self._unpacked(status)

    def status(
        self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
    ) -> AttemptStatus:
        """See `TestbedClient.status`."""
        wait_s = min(wait_s, routes.MAX_WAIT_S)
        query = f"?wait_s={wait_s:g}&after_version={after_version}{'&with_result=true' if with_result else ''}"
        path = routes.ATTEMPT.format(attempt_id=attempt_id) + query
        return self._unpacked(self._ask("GET", path, AttemptStatus, read_s=_READ_S + wait_s))

    def result(self, attempt_id: str) -> TrialResult:
        """See `TestbedClient.result`."""
        return self._ask("GET", routes.RESULT.format(attempt_id=attempt_id), TrialResult)

    def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
        """See `TestbedClient.fetch_artifacts`."""
        missing = [each for each in artifacts if not holds(folder / each.name, each)]
        brought_id, contents = self._brought
        placed = place_together(contents, missing, folder) if brought_id == attempt_id else ()
        for artifact in missing:
            if artifact.name not in placed:
                self._fetch(attempt_id, artifact, folder / artifact.name)

    def cancel(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.cancel`."""
        return self._ask("DELETE", routes.ATTEMPT.format(attempt_id=attempt_id), AttemptStatus)

    def acknowledge(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.acknowledge`."""
        return self._ask("POST", routes.ACKNOWLEDGEMENT.format(attempt_id=attempt_id), AttemptStatus)

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        """See `TestbedClient.telemetry`. Silence for `_READ_S` counts as no answer.

        Raises:
            TestbedUnreachableError: no answer, or the stream broke off.
        """
        headers = [("Last-Event-ID", after)] if after else []
        try:
            response = self._send("GET", routes.TELEMETRY, headers=headers)
            try:
                if response.status_code != 200:
                    response.read()
                self._check(response)
                for data in event_data(response.iter_bytes()):
                    yield TelemetrySample.model_validate_json(data)
            finally:
                response.close()
        except (httpx.TransportError, _NoAnswerError) as error:
            raise TestbedUnreachableError(
                f"The telemetry of the testbed at {self.url} broke off ({str(error) or type(error).__name__}). It is "
                "asked again; check that `testbed serve` runs there.",
                url=self.url,
            ) from error
        except ValueError as error:  # pydantic's errors are ValueErrors
            raise _foreign(self.url, "its telemetry is not of the contract") from error

    def close(self) -> None:
        """See `TestbedClient.close`."""
        self._transport.close()

    def _unpacked(self, status: AttemptStatus) -> AttemptStatus:
        """Keep the files that a status brought, until they are asked for or the next status brings others."""
        if not status.contents:
            return status
        self._brought = (status.attempt_id, status.contents)
        return status.model_copy(update={"contents": {}})

    def _ask(
        self, method: str, path: str, answer: type[_Answer], *, body: str | None = None, read_s: float = _READ_S
    ) -> _Answer:
        headers = [("Content-Type", "application/json")] if body is not None else []

        def once() -> httpx.Response:
            response = self._send_and_read(method, path, body=body, headers=headers, read_s=read_s)
            self._check(response)
            return response

        response = self._repeat(once)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            # A node of another version answers another shape: then the versions say more than the shape.
            _check_named_version(response, self.url)
            raise _foreign(
                self.url, f"its answer to {method} {path.partition('?')[0]} is not of the contract"
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        read_s: float = _READ_S,
    ) -> httpx.Response:
        """The answer with its body unread; the caller closes it."""
        timeout = {"connect": _CONNECT_S, "read": read_s, "write": _READ_S, "pool": _CONNECT_S}
        request = httpx.Request(
            method,
            self.url + path,
            headers=[*self._headers, *headers],
            content=body,
            extensions={"timeout": timeout},
        )
        return self._transport.handle_request(request)

    def _send_and_read(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self._send(method, path, **options)
        try:
            response.read()
        finally:
            response.close()
        return response

    def _repeat(self, once: Callable[[], Any]) -> Any:
        try:
            return self._retrying.copy()(once)
        except (httpx.TransportError, _NoAnswerError) as error:
            reason = str(error) or type(error).__name__
            raise TestbedUnreachableError(
                f"No answer from the testbed at {self.url} ({reason}). Check that `testbed serve` runs there, that the "
                "address and port are right, and that no firewall is between the machines.",
                url=self.url,
            ) from error

    def _check(self, response: httpx.Response) -> None:
        """Raise for everything but a good answer of a testbed of this version."""
        version = response.headers.get(PROTOCOL_HEADER)
        if not version:
            if response.status_code >= 500:
                raise _NoAnswerError(f"HTTP {response.status_code} from something in between")
            _check_named_version(response, self.url)
            raise _foreign(self.url, f"it answers HTTP {response.status_code} without a protocol version")
        check_version(version, self.url)
        if response.status_code < 300:
            return
        try:
            body = ErrorBody.model_validate_json(response.content)
        except ValidationError:
            if response.status_code >= 500:
                raise _NoAnswerError(f"HTTP {response.status_code} without a reason") from None
            raise _foreign(self.url, f"it answers HTTP {response.status_code} without a reason") from None
        raise error_from_body(body)

    def _fetch(self, attempt_id: str, artifact: ArtifactRef, destination: Path) -> None:
        path = routes.ARTIFACT.format(attempt_id=attempt_id, name=artifact.name)
        with ArtifactFile(destination, artifact) as file:
            for _ in range(2):
                if not file.is_complete:
                    self._repeat(lambda: self._download(path, file))
                if file.place():
                    return
        raise ArtifactCorruptError(
            f"{artifact.name} of attempt {attempt_id} does not have the size and SHA-256 that its result lists, twice. "
            "The run is tried again; if it happens again, check disk and memory of both machines.",
            artifact=artifact.name,
        )

    def _download(self, path: str, file: ArtifactFile) -> None:
        headers = [("Range", f"bytes={file.n_bytes}-")] if file.n_bytes else []
        response = self._send("GET", path, headers=headers)
        try:
            if response.status_code == 416:
                # What is here fits no file of the testbed's.
                file.restart()
                raise _NoAnswerError("the testbed's file is shorter than what is here")
            if response.status_code not in (200, 206):
                response.read()
                self._check(response)
                raise _NoAnswerError(f"HTTP {response.status_code} instead of a file")
            self._check(response)
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {file.n_bytes}-")
            if file.n_bytes and not (response.status_code == 206 and continues):
                file.restart()
            for chunk in response.iter_raw(_CHUNK_BYTES):
                file.write(chunk)
        finally:
            response.close()


def _certificates() -> ssl.SSLContext:
    """Whom to trust, by the environment as it is now."""
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _context(certificates: str | None, folder: str | None) -> ssl.SSLContext:
    """Read once per process: a thousand clients would each take 15 ms and their own copy. httpx reads the variables."""
    return httpx.create_ssl_context()


class _NoAnswerError(Exception):
    """An answer that is not the testbed's own: worth another try."""


def _foreign(url: str, how: str) -> TestbedUnreachableError:
    return TestbedUnreachableError(
        f"Something else answers at {url}: not a JouleBed testbed ({how}). Check the address and the port; "
        "`testbed serve` prints the right ones.",
        url=url,
    )


def _check_named_version(response: httpx.Response, url: str) -> None:
    """Compare with the version that a JSON answer names, if it names one."""
    try:
        named = response.json().get("protocol_version")
    except (ValueError, AttributeError):
        return
    if named is not None:
        check_version(str(named), url)


def _batches(specs: Sequence[TrialSpec]) -> list[list[TrialSpec]]:
    batches: list[list[TrialSpec]] = []
    room = 0
    for spec in specs:
        n_bytes = len(spec.model_dump_json()) + 1
        if n_bytes > room:
            batches.append([])
            room = _CHECK_BYTES
        batches[-1].append(spec)
        room -= n_bytes
    return batches


def _checked_url(url: str) -> str:
    check_testbed_url(url)
    try:
        return str(httpx.URL(url)).rstrip("/")
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r} is not a URL ({error}). Give one like http://gpu-box:8765.") from error

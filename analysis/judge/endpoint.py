"""An OpenAI-compatible endpoint: one chat at a time, asked again while it is busy, one clear error when it refuses."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from contract.errors import JouleBedError, UsageError

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the key, unless another is named."""

_TRIES = 6
_MAX_WAIT_S = 60.0
_MAX_TOKENS = 512
_FORMATS = ("json_schema", "json_object", "text")
"""Ways to ask for JSON, the strictest first: not every server knows them all."""


class EndpointError(JouleBedError):
    """The judge's endpoint refuses, or cannot be reached."""

    code: ClassVar[str] = "judge_endpoint"
    http_status: ClassVar[int] = 502
    retryable: ClassVar[bool] = True


class RefusedRequestError(EndpointError):
    """One request is refused where others were answered, such as an answer too long for the judge's context."""

    code: ClassVar[str] = "judge_refused"
    retryable: ClassVar[bool] = False


@dataclass(frozen=True)
class Reply:
    """One answer of the judge.

    Attributes:
        content: its text.
        n_prompt_tokens: as the endpoint counts; None where it does not.
        n_output_tokens: the same.
    """

    content: str
    n_prompt_tokens: int | None
    n_output_tokens: int | None


class _BusyError(Exception):
    """To be asked again.

    Args:
        told: what happened.
        wait_s: what the endpoint asks to wait; None: it does not say.
    """

    def __init__(self, told: str, wait_s: float | None = None) -> None:
        super().__init__(told)
        self.wait_s = wait_s


def read_key(variable: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The key from the environment. Never from a flag, which `ps` would show.

    Args:
        variable: its name; None: `OPENAI_API_KEY`, which need not be set.
        environ: the process's environment.

    Raises:
        UsageError: the variable was named, and is not set.
    """
    key = environ.get(variable or KEY_VARIABLE, "").strip()
    if variable is not None and not key:
        raise UsageError(f"--api-key-env names {variable}, which is not set. Export it, or leave the option out.")
    return key or None


class JudgeEndpoint:
    """Chats with one model. Thread-safe.

    Args:
        url: base address; `/v1` is added where it is missing.
        model: as the endpoint calls it.
        seed: sent with every chat.
        key: bearer token; None: none is sent.
        transport: stands in for the network.
        sleep: how to wait between tries.
        timeout_s: for one reply.

    Raises:
        UsageError: the address is not one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        seed: int = 0,
        key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        base = url.rstrip("/").removesuffix("/chat/completions")
        if not base.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is no address. Give --endpoint such as http://127.0.0.1:8080/v1.")
        self.url = base if base.endswith("/v1") else f"{base}/v1"
        self.model = model
        self._seed = seed
        self._format = 0
        self._format_works = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sleep = sleep or self._pause
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> "JudgeEndpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._http.close()

    def stop(self) -> None:
        """End all waiting: threads that would ask again give up."""
        self._stopped.set()

    def model_id(self) -> str:
        """What is really behind the name: its entry in the endpoint's list, or the only entry there is.

        A server such as llama.cpp's takes any name and answers with the one model it has. An endpoint without a list
        is taken at its word.

        Raises:
            EndpointError: it cannot be reached, or refuses the key.
        """
        response = self._ask("GET", "/models")
        if response.status_code in (404, 405, 501):
            return self.model
        try:
            names = [str(each["id"]) for each in _checked(response, self).json()["data"]]
        except (ValueError, KeyError, TypeError):
            return self.model
        if self.model in names or len(names) != 1:
            return self.model
        return names[0]

    def chat(self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any]) -> Reply:
        """One reply, at temperature 0.

        Raises:
            RefusedRequestError: it refuses this request, after it has answered others.
            EndpointError: it refuses, or stays busy or away for longer than is waited.
        """
        while True:
            at = self._format
            body = {
                "model": self.model,
                "messages": list(messages),
                "temperature": 0,
                "seed": self._seed,
                "max_tokens": _MAX_TOKENS,
                **_response_format(_FORMATS[at], schema),
            }
            response = self._ask("POST", "/chat/completions", body)
            if response.status_code in (400, 413, 415, 422, 501):
                if self._format_works:
                    raise RefusedRequestError(f"status {response.status_code}: {_told(response)}")
                # What is wrong is told apart by trying the next way: no two servers word it alike.
                if at + 1 < len(_FORMATS):
                    with self._lock:
                        self._format = max(self._format, at + 1)
                    continue
            reply = _reply(_checked(response, self), self)
            self._format_works = True
            return reply

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        tries = Retrying(
            retry=retry_if_exception_type(_BusyError),
            stop=stop_after_attempt(_TRIES),
            wait=_wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return tries(self._once, method, path, body)
        except _BusyError as error:
            raise EndpointError(
                f"{self.url} was asked {_TRIES} times and could not answer ({error}). Verdicts so far are kept: run "
                "the same command again when it is back, with fewer --workers where it was overloaded.",
                endpoint=self.url,
            ) from error

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        if self._stopped.is_set():
            raise EndpointError("Stopped: another request has failed.")
        try:
            response = self._http.request(method, f"{self.url}{path}", json=body)
        except httpx.TransportError as error:
            raise _BusyError(f"{type(error).__name__}: {error}") from error
        if response.status_code == 429 or response.status_code in (500, 502, 503, 504):
            raise _BusyError(f"status {response.status_code}: {_told(response)}", _retry_after(response))
        return response

    def _pause(self, wait_s: float) -> None:
        self._stopped.wait(wait_s)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _BusyError) and error.wait_s is not None:
        return min(error.wait_s, _MAX_WAIT_S)
    return float(wait_random_exponential(multiplier=0.5, max=_MAX_WAIT_S)(state))


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(float(response.headers.get("Retry-After", "")), 0.0)
    except ValueError:
        return None  # absent, or a date: the usual wait will do


def _response_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if name == "json_schema":
        named = {"name": "verdict", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    return {"response_format": {"type": "json_object"}} if name == "json_object" else {}


def _checked(response: httpx.Response, endpoint: JudgeEndpoint) -> httpx.Response:
    status = response.status_code
    if status < 400:
        return response
    if status in (401, 403):
        what = "refuses the key. Set the environment variable that --api-key-env names to a valid one"
    elif status == 404:
        what = f"knows no model {endpoint.model!r}, or has no chat there. Check --model and --endpoint"
    else:
        what = "refuses the request. Its message says why"
    raise EndpointError(f"{endpoint.url} {what} (status {status}: {_told(response)}).", endpoint=endpoint.url)


def _reply(response: httpx.Response, endpoint: JudgeEndpoint) -> Reply:
    try:
        body = response.json()
        content = body["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EndpointError(
            f"{endpoint.url} does not answer as an OpenAI-compatible endpoint does ({error!r}). Check --endpoint.",
            endpoint=endpoint.url,
        ) from error
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(str(content or ""), counts.get("prompt_tokens"), counts.get("completion_tokens"))


def _told(response: httpx.Response) -> str:
    try:
        body = response.json()
        error = body.get("error", body)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:300] or "no message"

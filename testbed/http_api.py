"""The testbed over HTTP: thin. What it does is in `testbed.node`, what it says in `contract.routes`."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import anyio
from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse

from contract import routes
from contract.errors import ErrorBody, InvalidRequestError, JouleBedError
from contract.failed_logins import FailedLogins
from contract.node_info import CheckReport, CheckRequest, NodeInfo
from contract.trial_result import AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import Identifier, WireModel
from testbed.http_guard import MAX_BODY_BYTES, Guard, common_headers, error_response
from testbed.node import TestbedNode
from testbed.prometheus import CONTENT_TYPE, exposition
from testbed.telemetry.board import TelemetryListener

_TELEMETRY_PERIOD_S = 1.0
_MAX_LONG_POLLS = 64
_LONGEST_EVENT_ID = 200
_ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


class _StrictRequest(Request):
    async def json(self) -> Any:
        # Python's own parser lets through what cannot be written down again: halves of surrogate pairs, and NaN.
        return from_json(await self.body(), allow_inf_nan=False, cache_strings="keys")


class _StrictRoute(APIRoute):
    """Reads a body as the contract's models read JSON, so that what is taken can be stored and answered."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strictly


def create_app(
    node: TestbedNode,
    token: str,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    telemetry_period_s: float = _TELEMETRY_PERIOD_S,
) -> FastAPI:
    """The app of a node. The node is the caller's to close.

    Args:
        node: does the work.
        token: bearer token of every route but LIVE; not empty.
        max_body_bytes: larger requests are refused.
        telemetry_period_s: time between two events of the telemetry stream.
    """
    if not token:
        raise ValueError("an empty token would let everybody in")
    app = FastAPI(
        title="JouleBed testbed",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.router.route_class = _StrictRoute
    failed = FailedLogins(time.monotonic)
    # Long polls have threads of their own, so that they never keep a submission or a download waiting.
    poll_threads = anyio.CapacityLimiter(_MAX_LONG_POLLS)

    @app.get(routes.LIVE)
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get(routes.NODE, response_model=NodeInfo)
    def describe() -> Response:
        return _json(node.info())

    @app.post(routes.CHECK, response_model=CheckReport)
    def check(request: CheckRequest) -> Response:
        return _json(node.check(request.specs))

    @app.put(routes.ATTEMPT, response_model=AttemptStatus)
    async def submit(
        attempt_id: Identifier,
        spec: TrialSpec,
        wait_s: Annotated[float, Query(ge=0)] = 0.0,
        acknowledges: Annotated[list[Identifier], Query(max_length=routes.MAX_ACKNOWLEDGED)] = [],  # noqa: B006
    ) -> Response:
        def start() -> AttemptStatus:
            node.acknowledge_known(acknowledges)
            status = node.submit(attempt_id, spec)
            return node.status(attempt_id, after_version=status.version, wait_s=wait_s, with_result=wait_s > 0)

        return _json(await anyio.to_thread.run_sync(start, limiter=poll_threads))

    @app.get(routes.ATTEMPT, response_model=AttemptStatus)
    async def status(
        attempt_id: Identifier,
        wait_s: Annotated[float, Query(ge=0)] = 0.0,
        after_version: int = -1,
        with_result: bool = False,
    ) -> Response:
        def wait() -> AttemptStatus:
            return node.status(attempt_id, after_version=after_version, wait_s=wait_s, with_result=with_result)

        return _json(await anyio.to_thread.run_sync(wait, limiter=poll_threads))

    @app.delete(routes.ATTEMPT, response_model=AttemptStatus)
    def cancel(attempt_id: Identifier) -> Response:
        return _json(node.cancel(attempt_id))

    @app.get(routes.RESULT, response_model=TrialResult)
    def result(attempt_id: Identifier) -> Response:
        return _json(node.result(attempt_id))

    @app.get(routes.ARTIFACT, response_class=FileResponse)
    def artifact(attempt_id: Identifier, name: Identifier, request: Request) -> Response:
        path = node.artifact_path(attempt_id, name)
        stat = path.stat()
        _check_range(request.headers.get("range"), stat.st_size)
        return FileResponse(path, media_type="application/octet-stream", stat_result=stat)

    @app.post(routes.ACKNOWLEDGEMENT, response_model=AttemptStatus)
    def acknowledge(attempt_id: Identifier) -> Response:
        return _json(node.acknowledge(attempt_id))

    @app.get(routes.METRICS, response_class=Response)
    def metrics() -> Response:
        return Response(exposition(node, failed), media_type=CONTENT_TYPE)

    @app.get(routes.TELEMETRY, response_class=StreamingResponse)
    async def telemetry(last_event_id: Annotated[str, Header(max_length=_LONGEST_EVENT_ID)] = "") -> Response:
        headers = {"X-Accel-Buffering": "no"}
        # Before the answer begins: a refusal is an answer of its own.
        listener = await anyio.to_thread.run_sync(node.listen, last_event_id)
        events = _events(node, listener, telemetry_period_s)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    _tell_errors_alike(app)
    app.add_middleware(Guard, token=token, max_body_bytes=max_body_bytes, failed=failed)
    return app


def _json(model: WireModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


async def _events(node: TestbedNode, listener: TelemetryListener, period_s: float) -> AsyncIterator[str]:
    """One event per period for as long as somebody listens and the node is open.

    Whoever reads slowly keeps only itself waiting: the next event is made when the last one was taken.
    """
    with listener:
        while not node.is_closing and not listener.is_closed:
            sample = await anyio.to_thread.run_sync(listener.next)
            yield f"id: {sample.event_id}\ndata: {sample.model_dump_json()}\n\n"
            await asyncio.sleep(period_s)


def _check_range(header: str | None, size_bytes: int) -> None:
    """Refuse what the file response would refuse without an ErrorBody.

    Raises:
        HTTPException: 416, with the file's size, for a range that is not in the file; several ranges count as such.
    """
    if header is None:
        return
    match = _ONE_RANGE.fullmatch(header.replace(" ", "").lower())
    start = int(match[1]) if match and match[1] else 0
    if match is None or start >= size_bytes or (match[2] and int(match[2]) < start):
        raise HTTPException(
            416,
            f"The range {header[:80]!r} is not one part of the file's {size_bytes} bytes.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )


def _tell_errors_alike(app: FastAPI) -> None:
    """Make every error answer to an HTTP request an ErrorBody."""

    @app.exception_handler(JouleBedError)
    async def ours(request: Request, error: JouleBedError) -> Response:
        return error_response(error.body(), error.http_status)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [
            {"where": ".".join(str(part) for part in each["loc"]), "problem": each["msg"]} for each in error.errors()
        ]
        first = f"{problems[0]['where']}: {problems[0]['problem']}" if problems else "it cannot be read"
        body = InvalidRequestError(
            f"The request does not fit the contract ({first}). Compare it with contract/trial_spec.py; "
            "detail.problems has all of it.",
            problems=problems,
        ).body()
        return error_response(body, InvalidRequestError.http_status)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code == 400:
            # FastAPI's, for what our parser raised.
            why = f" ({error.__cause__})" if isinstance(error.__cause__, ValueError) else ""
            unreadable = InvalidRequestError(f"The request's body cannot be read{why}: send JSON in UTF-8.")
            return error_response(unreadable.body(), unreadable.http_status)
        if error.status_code in (404, 405):
            message = f"This testbed has no route {request.method} {request.url.path[:200]}. See contract/routes.py."
        body = ErrorBody(code=InvalidRequestError.code, message=message)
        return error_response(body, error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> Response:
        message = f"The testbed failed by a fault of its own ({type(error).__name__}). The traceback is in its log."
        # This answer is made outside the guard, which gives all others their headers.
        return error_response(ErrorBody(code=JouleBedError.code, message=message), 500, common_headers())

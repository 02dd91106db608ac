"""What every request must pass before any route sees it: token, protocol version, size; and the headers of answers.

What is no HTTP never comes here: uvicorn answers it by itself, with 400, one line of text and none of the headers.
"""

import hmac
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract import routes
from contract.errors import (
    ErrorBody,
    InvalidRequestError,
    JouleBedError,
    ProtocolMismatchError,
    TooManyFailuresError,
    UnauthorizedError,
)
from contract.failed_logins import FailedLogins
from contract.security_headers import security_headers
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024
"""A spec has a few kilobytes."""


class Guard:
    """ASGI middleware. Plain ASGI, so that streams and long polls pass through untouched.

    Args:
        app: what is guarded.
        token: the bearer token.
        max_body_bytes: larger request bodies are refused unread.
        now_s: monotonic seconds, for the limit on failures.
        failed: counts them; a new one by default.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        max_body_bytes: int = MAX_BODY_BYTES,
        now_s: Callable[[], float] = time.monotonic,
        failed: FailedLogins | None = None,
    ) -> None:
        self._app = app
        self._failed = failed or FailedLogins(now_s)
        self._token = token.encode()
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        if scope["path"] == routes.LIVE:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        address = str((scope.get("client") or ("unknown",))[0])
        wait_s = self._failed.wait_s(address)
        refusal = _too_many(wait_s) if wait_s > 0 else self._refusal(headers, address, scope["path"])
        if refusal is not None:
            extra = {}
            if isinstance(refusal, UnauthorizedError):
                extra = {"WWW-Authenticate": "Bearer"}
            elif wait_s > 0:
                extra = {"Retry-After": str(math.ceil(wait_s))}
            await error_response(refusal.body(), refusal.http_status, extra)(scope, receive, send)
            return
        body = await self._read(headers, receive)
        if body is None:
            refusal = InvalidRequestError(f"The request's body has more than {self._max_body_bytes} bytes.")
            await error_response(refusal.body(), 413)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self, headers: Headers, address: str, path: str) -> JouleBedError | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        # Both conditions are always computed, and the comparison takes the same time for every token.
        is_token = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token)
        if not is_token or scheme.lower() != "bearer":
            if self._failed.note_failure(address):
                _log.warning("A request from %s was refused: its token is missing or wrong", address)
            return UnauthorizedError(
                "The bearer token is missing or wrong. Give the orchestrator the token that this testbed was started "
                "with (its token file, or JOULEBED_TOKEN)."
            )
        self._failed.note_success(address)
        theirs = headers.get(PROTOCOL_HEADER)
        # A monitoring system speaks no protocol of ours.
        if path != routes.METRICS and theirs != str(PROTOCOL_VERSION):
            return ProtocolMismatchError(
                f"This testbed speaks protocol version {PROTOCOL_VERSION}, the request "
                f"{'names none' if theirs is None else 'speaks ' + repr(theirs[:20])}. "
                "Install the same version of joulebed on both machines.",
                testbed_version=PROTOCOL_VERSION,
                request_version=None if theirs is None else theirs[:20],
            )
        return None

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body; None when it is too large, whatever its header says."""
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > self._max_body_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)  # the client has gone
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _too_many(wait_s: float) -> TooManyFailuresError:
    return TooManyFailuresError(
        f"Too many requests with a wrong token came from this address. Wait {wait_s:.0f} s, and check the token."
    )


def error_response(body: ErrorBody, status: int, headers: dict[str, str] | None = None) -> Response:
    """An ErrorBody as an answer."""
    # Not pydantic's own serialisation: a detail may hold what JSON has no number for.
    content = json.dumps(body.model_dump(), default=str)
    return Response(content, status_code=status, headers=headers, media_type="application/json")


def common_headers() -> dict[str, str]:
    """Headers of every answer to HTTP: the protocol version, and what keeps a browser from making anything of it."""
    return {PROTOCOL_HEADER: str(PROTOCOL_VERSION), **security_headers()}


def _with_headers(send: Send) -> Send:
    headers = common_headers()

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed

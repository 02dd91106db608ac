"""What every request to the page must pass: the token, the origin of what changes something, and the answers' headers.

One token. The address that is printed at the start carries it once, a cookie from then on. The cookie holds a hash of
the token and not the token itself; its name differs by token, so that two dashboards on one host do not log each
other's browser out.
"""

import hashlib
import hmac
import logging
import math
import secrets
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

from jinja2 import Environment
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.errors import ErrorBody
from contract.failed_logins import FailedLogins
from contract.security_headers import SECURITY_POLICY, page_policy, security_headers

_log = logging.getLogger(__name__)

LIVE = "/v1/live"
LOGIN = "/login"
STATIC = "/static/"

MAX_BODY_BYTES = 64 * 1024
"""A reason, and a list of runs."""

_SAFE_METHODS = frozenset({"GET", "HEAD"})


class Access:
    """ASGI middleware. Plain ASGI, so that event streams pass through untouched.

    Args:
        app: what is guarded.
        token: of the page.
        templates: with `login.html.j2`.
        now_s: monotonic seconds, for the limit on failures.
    """

    def __init__(
        self, app: ASGIApp, token: str, templates: Environment, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._templates = templates
        self._failed = FailedLogins(now_s)
        self.cookie = f"joulebed_{hashlib.sha256(b'name' + self._token).hexdigest()[:12]}"
        self._secret = hmac.new(self._token, b"cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        state = scope.setdefault("state", {})
        state["nonce"] = nonce
        state["uses_plotly"] = False
        send = _with_headers(send, state)
        request = Request(scope, receive)
        answer = await self._answer(request, nonce)
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, request: Request, nonce: str) -> Response | None:
        """What is answered here; None: the request may pass."""
        path, method = request.url.path, request.method
        if path == LIVE or (path.startswith(STATIC) and method in _SAFE_METHODS):
            return None
        address = request.client.host if request.client else "unknown"
        headers = request.headers
        is_login = path == LOGIN
        # A form carries `Origin: null` under our Referrer-Policy, and the login changes nothing without the token.
        if method not in _SAFE_METHODS and not is_login and not _is_from_here(headers):
            return _refusal(403, "origin", "This request came from another page than the dashboard's own: refused.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES or "transfer-encoding" in headers:
            return _refusal(413, "too_large", f"The request's body has more than {MAX_BODY_BYTES} bytes.")
        shown = request.query_params.get("token") if method == "GET" and not is_login else None
        if is_login and method == "POST":
            form = parse_qs((await request.body()).decode("utf-8", "replace"))
            shown = form.get("token", [""])[0].strip()
        bearer = _bearer(headers)
        if shown is None and bearer is None:
            if self._has_cookie(headers):
                return RedirectResponse("/", 303) if is_login else None
            return self._ask(request, nonce, "" if is_login else "This page needs its token.", 200 if is_login else 401)
        wait_s = self._failed.wait_s(address)
        if wait_s > 0:
            message = f"Too many wrong tokens came from this address. Wait {wait_s:.0f} s, and check the token."
            answer = self._ask(request, nonce, message, 429)
            answer.headers["Retry-After"] = str(math.ceil(wait_s))
            return answer
        given = shown if shown is not None else bearer or ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            if self._failed.note_failure(address):
                _log.warning("A request from %s was refused: its token is wrong", address)
            return self._ask(request, nonce, "That token is wrong.", 401)
        self._failed.note_success(address)
        return None if shown is None else self._welcome(request)

    def _has_cookie(self, headers: Headers) -> bool:
        held = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        return hmac.compare_digest(held.encode("utf-8", "replace"), self._secret.encode())

    def _welcome(self, request: Request) -> Response:
        """The same address without the token, which would stay in the history; and the cookie."""
        rest = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
        path = "/" if request.url.path == LOGIN else request.url.path
        # A path of two slashes would be another host's address.
        answer = RedirectResponse("/" + path.lstrip("/") + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(
            self.cookie,
            self._secret,
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    def _ask(self, request: Request, nonce: str, message: str, status: int) -> Response:
        if request.url.path.startswith("/api/") or request.method not in _SAFE_METHODS | {"POST"}:
            code = "unauthorized" if status == 401 else "too_many_failures"
            return _refusal(status, code, f"{message} Open the address that the dashboard printed at its start.")
        text = self._templates.get_template("login.html.j2").render(
            message=message, nonce=nonce, is_wrong=status != 200
        )
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return HTMLResponse(text, status_code=status, headers=headers)


def _is_from_here(headers: Headers) -> bool:
    """Whether what changes something comes from our own page, or from a program that carries the token itself."""
    origin = headers.get("origin")
    if origin is None:
        # Browsers always send one with a POST.
        return _bearer(headers) is not None
    return urlsplit(origin).netloc == headers.get("host", "") != ""


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _refusal(status: int, code: str, message: str) -> Response:
    body = ErrorBody(code=code, message=message, retryable=False)
    return JSONResponse(body.model_dump(mode="json"), status_code=status)


def _with_headers(send: Send, state: dict[str, object]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            is_page = headers.get("content-type", "").startswith("text/html")
            policy = page_policy(str(state["nonce"])) if is_page else SECURITY_POLICY
            if is_page and state.get("uses_plotly"):
                # plotly places its labels by `style` attributes. They run nothing and load nothing: default-src is
                # 'none', and img-src is ourselves. Style elements still need the nonce.
                policy += "; style-src-attr 'unsafe-inline'"
            for name, value in security_headers(policy).items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers

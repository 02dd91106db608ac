"""Serves the page until a signal: its token, its socket, its ready file."""

import ipaddress
import json
import logging
import os
import secrets
import signal
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from contract.errors import UsageError
from orchestrator.durable_file import write_durably

_log = logging.getLogger(__name__)

TOKEN_VARIABLE = "JOULEBED_DASHBOARD_TOKEN"
"""Environment variable that holds the page's token."""

_MIN_TOKEN_CHARACTERS = 16
_GRACEFUL_S = 2


def is_loopback(host: str) -> bool:
    """Whether every address of a host is reachable from this machine only.

    Raises:
        UsageError: the host has no address.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"The host {host!r} has no address ({error.strerror}). Give one of this machine's.") from error
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def choose_token(host: str, token_file: Path | None, environment: Mapping[str, str]) -> str:
    """The page's token: from a file, else from the environment, else, on loopback only, a new one.

    Raises:
        UsageError: there is none, or it is too short, or its file cannot be read.
    """
    if token_file is not None:
        try:
            text, mode = token_file.read_text(encoding="utf-8"), token_file.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The token file {token_file} cannot be read ({error}). Give one line of text.") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            _log.warning("The token file %s is readable by others: chmod 600 %s", token_file, token_file)
        return _checked(text, f"The token file {token_file}")
    if environment.get(TOKEN_VARIABLE):
        return _checked(environment[TOKEN_VARIABLE], f"The environment variable {TOKEN_VARIABLE}")
    if not is_loopback(host):
        raise UsageError(
            f"Without a token of your own the dashboard listens on loopback only, and {host} is not. Make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))' > token; chmod 600 token`, and give it "
            f"with --token-file or in {TOKEN_VARIABLE}. Better still, leave it on loopback and come by `ssh -L`."
        )
    return secrets.token_urlsafe(32)


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if len(token) < _MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{where} does not hold a token: at least {_MIN_TOKEN_CHARACTERS} characters of ASCII without spaces. "
            "Make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        )
    return token


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        UsageError: the address is not this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        raise _cannot_listen(host, port, error) from error
    return bound


def _cannot_listen(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        f"The dashboard cannot listen on {host} port {port} ({error.strerror}). Choose another with --host or --port; "
        "port 0 takes a free one."
    )


def url_of(bound: socket.socket) -> str:
    """The address of a bound socket, as a browser on this machine would write it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


def serve(app: ASGIApp, bound: socket.socket, *, ready_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: see `app.create_app`.
        bound: where; closed at the end.
        ready_file: replaced by {"url": ..., "pid": ...} when requests are answered; without the token.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        # Nothing in front of it is trusted to say who asks.
        proxy_headers=False,
        # The comparison and the report end their processes and files with it.
        lifespan="on",
        timeout_graceful_shutdown=_GRACEFUL_S,
    )
    server = _Server(config, url_of(bound), ready_file)
    # uvicorn raises the signal again when it is done.
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        bound.close()


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, url: str, ready_file: Path | None) -> None:
        super().__init__(config)
        self._url = url
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._ready_file is not None:
            write_durably(self._ready_file, (json.dumps({"url": self._url, "pid": os.getpid()}) + "\n").encode())

"""Serves a node over HTTP until a signal: token, socket, ready file, orderly end."""

import ipaddress
import json
import logging
import os
import secrets
import signal
import socket
import ssl
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from contract.errors import UsageError
from contract.units import PROTOCOL_VERSION
from testbed.attempt_folder import write_atomic
from testbed.http_api import create_app
from testbed.node import TestbedNode

_log = logging.getLogger(__name__)

TOKEN_VARIABLE = "JOULEBED_TOKEN"
"""Environment variable that holds the bearer token; never handed to a child."""

_MIN_TOKEN_CHARACTERS = 16
_KEEP_ALIVE_S = 120
_GRACEFUL_S = 3


@dataclass(frozen=True)
class Certificate:
    """Files for TLS, both PEM."""

    certfile: Path
    keyfile: Path


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


def choose_token(
    host: str, token_file: Path | None, environment_token: str | None, data_dir: Path
) -> tuple[str, Path | None]:
    """The bearer token: from a file, else from the environment, else, on loopback only, a new one in the data folder.

    Args:
        host: where the testbed will listen.
        token_file: given by the user.
        environment_token: value of `TOKEN_VARIABLE`.
        data_dir: takes a generated token as `token`, readable by its owner only; a later start finds it again.

    Returns:
        The token, and the file it is in, if it is in one.

    Raises:
        UsageError: there is none, or it is too short, or its file cannot be read.
    """
    if token_file is not None:
        return _read_token(token_file), token_file
    if environment_token is not None:
        return _checked_token(environment_token, f"The environment variable {TOKEN_VARIABLE}"), None
    if not is_loopback(host):
        raise UsageError(
            f"Without a token this testbed listens on loopback only, and {host} is not: anybody could run models "
            "here. Make a token with `python -c 'import secrets; print(secrets.token_urlsafe(32))' > token; "
            f"chmod 600 token`, and give it with --token-file or in {TOKEN_VARIABLE}."
        )
    path = data_dir / "token"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    return _read_token(path), path


def _read_token(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The token file {path} cannot be read ({error}). Give one line of text.") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("The token file %s is readable by others: chmod 600 %s", path, path)
    return _checked_token(text, f"The token file {path}")


def _checked_token(text: str, where: str) -> str:
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
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UsageError(
            f"The testbed cannot listen on {host} port {port} ({error.strerror}). "
            "Choose another with --host or --port; port 0 takes a free one."
        ) from error
    return bound


class _Server(uvicorn.Server):
    """Says when it listens, and ends long polls when it is told to stop."""

    def __init__(self, config: uvicorn.Config, node: TestbedNode, url: str, ready_file: Path | None) -> None:
        super().__init__(config)
        self._node = node
        self._url = url
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _log.info(
                "joulebed %s, protocol %d, serves %s, process %d, attempts in %s",
                self._node.software_version,
                PROTOCOL_VERSION,
                self._url,
                os.getpid(),
                self._node.data_dir,
            )
        if self.started and self._ready_file is not None:
            write_atomic(self._ready_file, json.dumps({"url": self._url, "pid": os.getpid()}) + "\n")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # In a signal handler, no lock may be waited for: it may interrupt its holder.
        threading.Thread(target=self._node.end_waits, daemon=True).start()
        super().handle_exit(sig, frame)


def url_of(bound: socket.socket, certificate: Certificate | None = None) -> str:
    """The URL of a bound socket, as a client of this machine's would write it."""
    scheme = "http" if certificate is None else "https"
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


def load_certificate(certfile: Path | None, keyfile: Path | None) -> Certificate | None:
    """The files for TLS, tried before anything listens; None without them.

    Raises:
        UsageError: one of two is missing, cannot be read, or they do not belong together.
    """
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None:
        raise UsageError("TLS needs both --certfile and --keyfile.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"The certificate {certfile} and the key {keyfile} cannot be used ({error}). Both are PEM files, the key "
            "without a passphrase, and belong together."
        ) from error
    return Certificate(certfile, keyfile)


def serve(
    node: TestbedNode,
    bound: socket.socket,
    token: str,
    *,
    ready_file: Path | None,
    log_level: str,
    certificate: Certificate | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; returns when all answers are sent. The node is the caller's to close.

    Args:
        node: what is served.
        bound: where; closed at the end.
        token: of all routes but LIVE.
        ready_file: replaced by {"url": ..., "pid": ...} as soon as requests are answered.
        log_level: uvicorn's.
        certificate: for TLS; None serves plain HTTP.
    """
    config = uvicorn.Config(
        create_app(node, token),
        log_level=log_level,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        # Nothing in front of it is trusted to say who asks.
        proxy_headers=False,
        lifespan="off",
        # The orchestrator keeps one connection over a campaign, cooldowns included.
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACEFUL_S,
        ssl_certfile=certificate.certfile if certificate else None,
        ssl_keyfile=certificate.keyfile if certificate else None,
    )
    server = _Server(config, node, url_of(bound, certificate), ready_file)
    # uvicorn raises the signal again when it is done; the node must still be closed after that.
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        bound.close()

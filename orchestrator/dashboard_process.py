"""The dashboard beside a campaign: a process of its own, of low priority, that ends with it and can end without it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.log_line import LogFormat
from orchestrator.clients.http_client import TOKEN_VARIABLE
from orchestrator.local_testbed import end_with_parent

LOG = "dashboard.log"
READY = "dashboard.json"

PORT = 8790
"""Tried first; another free one where it is taken."""

_TOKEN_VARIABLE = "JOULEBED_DASHBOARD_TOKEN"
_NICE = 10
_READY_S = 20.0
_STOP_S = 5.0


class DashboardProcess:
    """`orchestrator dashboard` for the length of a block. Whatever becomes of it, the campaign goes on.

    Args:
        experiment: folder, with its run table.
        testbed_urls: of the campaign.
        testbed_token: of all of them; given in the environment, never on the command line.
        tell: shows a line to the person at the terminal.
        log_format: of its log.
        log_level: of the same.
        command: what is started, before its arguments.
        ready_s: how long is waited for it.
    """

    def __init__(
        self,
        experiment: Path,
        testbed_urls: Sequence[str],
        testbed_token: str,
        tell: Callable[[str], None],
        *,
        log_format: LogFormat = "text",
        log_level: str = "info",
        command: Sequence[str] = (sys.executable, "-m", "orchestrator", "dashboard"),
        ready_s: float = _READY_S,
    ) -> None:
        self._experiment = experiment
        self._arguments = [*command, str(experiment), "--log-format", log_format, "--log-level", log_level]
        for url in testbed_urls:
            self._arguments += ["--testbed", url]
        self._testbed_token = testbed_token
        self._tell = tell
        self._ready_s = ready_s
        self._ready = experiment / READY
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        token = os.environ.get(_TOKEN_VARIABLE) or secrets.token_urlsafe(32)
        try:
            for port in (PORT, 0):
                if self._start(port, token):
                    self._tell(f"Dashboard: {self.url}/?token={token}")
                    return self
                self.stop()
            self._tell(f"The dashboard did not start; the campaign goes on without it. See {self._experiment / LOG}.")
        except OSError as error:
            self._tell(f"The dashboard did not start ({error}); the campaign goes on without it.")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        self._ready.unlink(missing_ok=True)

    def _start(self, port: int, token: str) -> bool:
        self._ready.unlink(missing_ok=True)
        arguments = [*self._arguments, "--port", str(port), "--ready-file", str(self._ready)]
        environment = {**os.environ, _TOKEN_VARIABLE: token, TOKEN_VARIABLE: self._testbed_token}
        descriptor = os.open(self._experiment / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            self._process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # where its address goes, with the token
                stderr=log,
                # Ctrl-C in the terminal is for the orchestrator.
                start_new_session=True,
                preexec_fn=_humble(),
            )
        deadline_s = time.monotonic() + self._ready_s
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                return False
            time.sleep(0.05)
        self.url = str(json.loads(self._ready.read_text(encoding="utf-8"))["url"])
        return True


def _humble() -> Callable[[], None]:
    """Runs in the child: the campaign's own work comes first, and the child ends with its parent."""
    with_parent = end_with_parent()

    def humble() -> None:
        os.nice(_NICE)
        if with_parent is not None:
            with_parent()

    return humble

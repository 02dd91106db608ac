"""A testbed on this machine for the length of a campaign: started, found ready, and stopped whatever happens."""

import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.errors import JouleBedError
from orchestrator.clients.http_client import TOKEN_VARIABLE

OWN_SECRETS = (
    TOKEN_VARIABLE,
    "JOULEBED_DASHBOARD_TOKEN",
    "PGPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
"""Environment variables of the orchestrator: no trial on this machine needs its testbeds, page, run table, store or
cluster. HF_TOKEN is none of them: models are downloaded with it."""

LOG = "testbed.log"
DATA = "testbed"

_READY_S = 60.0
_STOP_S = 30.0
_LOG_TAIL_CHARACTERS = 2000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class LocalOptions:
    """What is passed through to `testbed serve`.

    Attributes:
        superglue_dir: folder of SuperGLUE items.
        meter: what the meter name `auto` stands for.
    """

    superglue_dir: Path | None = None
    meter: str | None = None


class LocalTestbed:
    """`testbed serve` on loopback, on a free port, with a random token. A context manager.

    Its attempts stay in the experiment's folder, so that a campaign that is started again finds them.

    Args:
        experiment: the experiment's folder; made if it is not there.
        options: passed through.
        command: what is started, before its arguments.
    """

    def __init__(
        self,
        experiment: Path,
        options: LocalOptions = LocalOptions(),
        *,
        command: Sequence[str] = (sys.executable, "-m", "testbed", "serve"),
    ) -> None:
        self._data = experiment / DATA
        self._log = experiment / LOG
        self._options = options
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.token = secrets.token_urlsafe(32)
        self.url = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in order, or else by force. Idempotent."""
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

    def _start(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        token_file, ready_file = self._data / "token", self._data / "ready.json"
        token_file.unlink(missing_ok=True)
        ready_file.unlink(missing_ok=True)
        with os.fdopen(os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.token + "\n")
        arguments = ["--host", "127.0.0.1", "--port", "0", "--data-dir", str(self._data)]
        arguments += ["--token-file", str(token_file), "--ready-file", str(ready_file)]
        # Who writes the experiment owns this machine: there is nobody to protect a file from.
        arguments += ["--allow-model", "*"]
        if self._options.superglue_dir is not None:
            arguments += ["--superglue-dir", str(self._options.superglue_dir)]
        if self._options.meter is not None:
            arguments += ["--meter", self._options.meter]
        environment = {name: value for name, value in os.environ.items() if name not in OWN_SECRETS}
        with self._log.open("ab") as log:
            log_start = log.tell()
            self._process = subprocess.Popen(
                [*self._command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the orchestrator, which lets the trial finish.
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        deadline_s = time.monotonic() + _READY_S
        while not ready_file.exists():
            if self._process.poll() is not None:
                raise JouleBedError(f"The local testbed did not start. It says: {self._tail(log_start)}")
            if time.monotonic() > deadline_s:
                raise JouleBedError(
                    f"The local testbed was not ready after {_READY_S:.0f} s. It says: {self._tail(log_start)}"
                )
            time.sleep(0.02)
        self.url = str(json.loads(ready_file.read_text(encoding="utf-8"))["url"])

    def _tail(self, start: int) -> str:
        with self._log.open("rb") as file:
            file.seek(start)
            text = file.read().decode(errors="replace").strip()
        return text[-_LOG_TAIL_CHARACTERS:] or "nothing"


def end_with_parent() -> Callable[[], None] | None:
    """What makes the kernel end the testbed when this process is killed; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    return ask

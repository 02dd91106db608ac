"""The testbed as a Ray actor: thin. What it does is in `testbed.node`; Ray places it, restarts it and finds it.

An actor that Ray restarts finds its attempts in its data folder, as `testbed serve` does: the child of a killed actor
goes on, and is followed to its end.
"""

import logging
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.actor_answer import ActorAnswer
from contract.errors import AttemptNotFoundError, ErrorBody, InvalidRequestError, JouleBedError
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION

if TYPE_CHECKING:
    from testbed.model_policy import ModelPolicy
    from testbed.telemetry.board import TelemetryListener

_log = logging.getLogger(__name__)

DATA_VARIABLE = "JOULEBED_RAY_DATA"
"""Environment variable of a cluster's machine: folder where its testbeds keep their attempts."""

MODELS_VARIABLE = "JOULEBED_RAY_ALLOW_MODEL"
"""Likewise: model sources that its testbeds may load, quoted as in a shell; else what `testbed serve` allows."""

LOG_FORMAT_VARIABLE = "JOULEBED_RAY_LOG_FORMAT"
"""Likewise: `text`, or `json`, of what its testbeds write to their error streams."""

RESOURCE = "joulebed_testbed"
"""Ray's custom resource; one unit is one testbed, which is one trial at a time."""

_SILENT_S = 60.0
"""Whoever asks nothing for this long is taken for gone."""
_SECRETS = ("RAY_AUTH_TOKEN",)
"""Of the cluster; a trial need not have them."""
_SET_BY_RAY = ("OMP_NUM_THREADS",)
"""Ray sets it for its own workers; a measured engine chooses by itself, or by its spec."""


def data_folder(name: str, root: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where a testbed keeps its attempts on the machine that it is on.

    Args:
        name: the actor's; the same after a restart.
        root: folder of all testbeds; None: `JOULEBED_RAY_DATA`, else `~/.joulebed/ray`.
        environment: of the machine.
    """
    chosen = root or environment.get(DATA_VARIABLE)
    return (Path(chosen) if chosen else Path.home() / ".joulebed" / "ray") / name


def model_policy(given: Sequence[str] | None, environment: Mapping[str, str] = os.environ) -> "ModelPolicy":
    """Which models a testbed of a cluster may load.

    Args:
        given: by who started the cluster for itself; None: as the machine says.
        environment: of the machine.
    """
    from testbed.model_policy import DEFAULT, ModelPolicy

    named = environment.get(MODELS_VARIABLE, "")
    try:
        patterns = given or shlex.split(named) or DEFAULT
    except ValueError as error:
        # An exception here would show as a machine that is gone.
        patterns = named.split()
        _log.warning("%s is not quoted as in a shell (%s): taken as %s.", MODELS_VARIABLE, error, patterns)
    return ModelPolicy(tuple(patterns), given_by=f"{MODELS_VARIABLE}=")


class TestbedActor:
    """One testbed. Its methods may be called by several threads at a time; Ray calls them by name.

    Args:
        name: of the actor.
        data_root: see `data_folder`.
        meter: what the meter name `auto` stands for.
        child_env: added to this process's environment for the children.
        models: see `model_policy`.
    """

    __test__ = False  # not a pytest class

    def __init__(
        self,
        name: str,
        data_root: str | None = None,
        meter: str = "auto",
        child_env: Mapping[str, str] | None = None,
        models: Sequence[str] | None = None,
    ) -> None:
        from contract.log_line import secret_values
        from testbed.allocator import give_back_large_blocks
        from testbed.log import configure_log
        from testbed.node import TestbedNode

        is_json = os.environ.get(LOG_FORMAT_VARIABLE) == "json"
        configure_log("info", "json" if is_json else "text", secrets=secret_values(os.environ))
        os.umask(0o077)  # results and logs are their owner's
        give_back_large_blocks()
        for variable in _SET_BY_RAY:
            os.environ.pop(variable, None)
        self._node = TestbedNode.open(
            data_folder(name, data_root),
            default_meter=meter,
            child_env={**dict.fromkeys(_SECRETS, ""), **(child_env or {})},
            models=model_policy(models),
        )
        self._hardware_sha256 = self._node.identity.hardware_sha256
        self._lock = threading.Lock()
        self._listeners: dict[str, tuple[TelemetryListener, float]] = {}
        self._callers: dict[str, float] = {}

    def answer(self, caller: str, question: str, arguments: dict[str, Any]) -> ActorAnswer:
        """Answer one question of `TestbedClient`.

        Args:
            caller: who asks; one id per client.
            question: name of the method there, or `read` for a piece of an artifact.
            arguments: plain values; specs as JSON.
        """
        with self._lock:
            self._callers[caller] = time.monotonic()
        try:
            return self._answer(self._method(question)(**arguments))
        except JouleBedError as error:
            return self._answer(b"", error.body())

    def leave(self, caller: str) -> bool:
        """A client is done. With nobody else here and no trial under way the actor ends, and frees its resources."""
        with self._lock:
            self._callers.pop(caller, None)
            others = [each for each in self._callers.values() if time.monotonic() - each < _SILENT_S]
        if others or self._node.info().running_attempt_id is not None:
            return False
        import ray

        self._node.close()
        ray.actor.exit_actor()
        return True

    def process_id(self) -> int:
        """Of the actor, for people who look for it."""
        return os.getpid()

    def _method(self, question: str) -> Callable[..., bytes]:
        methods: dict[str, Callable[..., bytes]] = {
            "node": lambda: _json(self._node.info()),
            "check": self._check,
            "submit": self._submit,
            "status": self._status,
            "result": lambda attempt_id: _json(self._node.result(attempt_id)),
            "read": self._read,
            "cancel": lambda attempt_id: _json(self._node.cancel(attempt_id)),
            "acknowledge": lambda attempt_id: _json(self._node.acknowledge(attempt_id)),
            "telemetry": self._telemetry,
            "end_telemetry": self._end_telemetry,
        }
        if question not in methods:
            raise InvalidRequestError(f"This testbed has no answer to {question[:40]!r}. Upgrade joulebed there.")
        return methods[question]

    def _answer(self, body: bytes, error: ErrorBody | None = None) -> ActorAnswer:
        return {
            "protocol_version": PROTOCOL_VERSION,
            "hostname": socket.gethostname(),
            "hardware_sha256": self._hardware_sha256,
            "error": error.model_dump_json() if error else None,
            "body": body,
        }

    def _check(self, specs: Sequence[str]) -> bytes:
        return _json(self._node.check([TrialSpec.model_validate_json(each) for each in specs]))

    def _submit(self, attempt_id: str, spec: str, wait_s: float, acknowledges: Sequence[str]) -> bytes:
        self._node.acknowledge_known(acknowledges)
        status = self._node.submit(attempt_id, TrialSpec.model_validate_json(spec))
        return self._status(attempt_id, status.version, wait_s, True) if wait_s else _json(status)

    def _status(self, attempt_id: str, after_version: int, wait_s: float, with_result: bool) -> bytes:
        status = self._node.status(attempt_id, after_version=after_version, wait_s=wait_s, with_result=with_result)
        return _json(status)

    def _read(self, attempt_id: str, name: str, offset: int, n_bytes: int) -> bytes:
        """A piece of an artifact; shorter than asked for at its end."""
        path = self._node.artifact_path(attempt_id, name)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(n_bytes)
        except FileNotFoundError as error:
            raise AttemptNotFoundError(
                f"The file {name} of attempt {attempt_id} is gone from the testbed. The run has to be measured again."
            ) from error

    def _telemetry(self, listener_id: str, after: str) -> bytes:
        """What is new since this listener asked last; the first question makes it one."""
        now_s = time.monotonic()
        with self._lock:
            listener = self._listeners[listener_id][0] if listener_id in self._listeners else self._node.listen(after)
            self._listeners[listener_id] = (listener, now_s)
            silent = [each for each, (_, at_s) in self._listeners.items() if now_s - at_s > _SILENT_S]
            gone = [self._listeners.pop(each)[0] for each in silent]
        for each in gone:
            each.close()
        return b"" if self._node.is_closing or listener.is_closed else _json(listener.next())

    def _end_telemetry(self, listener_id: str) -> bytes:
        with self._lock:
            found = self._listeners.pop(listener_id, None)
        if found is not None:
            found[0].close()
        return b""


def _json(model: Any) -> bytes:
    return bytes(model.model_dump_json(), "utf-8")

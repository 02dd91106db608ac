"""The process of one device: `python -m testbed.device_group.worker DEVICE`.

It keeps itself to its device before it imports any engine, takes orders on standard input and answers on standard
output (`testbed.device_group.messages`). It never outlives the trial's process: the end of its input is its end.
"""

import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TextIO

import psutil
from pydantic import JsonValue

from contract.errors import InvalidRequestError, JouleBedError
from contract.trial_spec import DeviceSpec, TrialSpec
from testbed.clock import Clock, SystemClock
from testbed.conditions import resident_peak_bytes
from testbed.device_group.messages import Message, pack_completions, parse, send, unpack_requests
from testbed.device_group.pinning import pin
from testbed.engines.base import Engine

_LEAVE_S = 5.0
"""For an orderly end once the trial's process is gone."""


class Worker:
    """Loads one engine, and has it answer requests from a common instant on.

    Args:
        device: what it is kept to.
        build: makes the engine of a trial.
        answers: takes its messages.
        clock: of this machine.
    """

    def __init__(self, device: DeviceSpec, build: Callable[[TrialSpec], Engine], answers: TextIO, clock: Clock) -> None:
        self._device = device
        self._build = build
        self._answers = answers
        self._clock = clock
        self._pinned: dict[str, JsonValue] = {}
        self._engine: Engine | None = None

    def work(self, next_order: Callable[[], Message | None]) -> None:
        """Do what is ordered, until the last order or a failure, which is told.

        Args:
            next_order: waits for one; None when there will be none.
        """
        try:
            self._pinned = pin(self._device)
            while (order := next_order()) is not None and order["what"] != "close":
                self._obey(order, next_order)
        except JouleBedError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 (a supervisor: the trial learns of it by a message)
            traceback.print_exc()
            self._fail(JouleBedError(f"{type(error).__name__}: {error}. See child.log."))
        finally:
            if self._engine is not None:
                self._engine.close()

    def _obey(self, order: Message, next_order: Callable[[], Message | None]) -> None:
        if order["what"] == "log":
            _log_to(order["path"])
        elif order["what"] == "load":
            self._load(TrialSpec.model_validate(order["spec"]))
        elif order["what"] == "requests":
            self._generate(order, next_order)

    def _load(self, spec: TrialSpec) -> None:
        self._engine = self._build(spec)
        report = self._engine.load(spec.model, max_concurrency=spec.load_concurrency, seed=spec.seed)
        report = report.model_copy(update={"settings": {**report.settings, **self._pinned}})
        send(self._answers, {"what": "loaded", "report": report.model_dump(mode="json")})

    def _generate(self, order: Message, next_order: Callable[[], Message | None]) -> None:
        if self._engine is None:
            raise InvalidRequestError("The device's engine has no model: it was asked before it was loaded.")
        requests = unpack_requests(order["requests"])
        send(self._answers, {"what": "ready"})
        go = next_order()
        if go is None or go["what"] != "go":
            return
        cpu_start_s = _cpu_s()
        self._clock.sleep(max(go["start_ns"] - self._clock.monotonic_ns(), 0) / 1e9)
        start_ns = self._clock.monotonic_ns()
        completions = self._engine.generate(
            requests,
            concurrency=order["concurrency"],
            on_completion=lambda _: send(self._answers, {"what": "done"}),
        )
        end_ns = self._clock.monotonic_ns()
        cpu_end_s = _cpu_s()
        send(
            self._answers,
            {
                "what": "generated",
                "completions": pack_completions(completions),
                "start_ns": start_ns,
                "end_ns": end_ns,
                "cpu_s": None if cpu_start_s is None or cpu_end_s is None else cpu_end_s - cpu_start_s,
                "memory_peak_bytes": resident_peak_bytes(),
            },
        )

    def _fail(self, error: JouleBedError) -> None:
        try:
            send(self._answers, {"what": "failed", "error": error.body().model_dump(mode="json")})
        except OSError:
            return  # the trial's process is gone


def _cpu_s() -> float | None:
    """CPU seconds of this process and of its living helpers."""
    try:
        helpers = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
    except psutil.Error:
        return None
    return time.process_time() + float(sum(each.user + each.system for each in helpers))


def _log_to(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _listen(orders: TextIO, found: "queue.Queue[Message | None]") -> None:
    """Pass orders on; when there are no more, see that this process leaves, whatever it is busy with."""
    for line in orders:
        message = parse(line)
        if message is not None:
            found.put(message)
    found.put(None)
    time.sleep(_LEAVE_S)
    os._exit(1)


def _build(device: DeviceSpec) -> Callable[[TrialSpec], Engine]:
    def build(spec: TrialSpec) -> Engine:
        # Not before the process is pinned: engines and their libraries look for processors when they are imported.
        from testbed.engines.build import build_engine

        return build_engine(spec, gpu=device.gpu_index)

    return build


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the process."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    # The testbed asks a whole group where it hangs, see `testbed.model_runner`.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    device = DeviceSpec(name=name)
    # Standard output for ourselves; what libraries print goes to standard error instead.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        found: queue.Queue[Message | None] = queue.Queue()
        threading.Thread(target=_listen, args=(sys.stdin, found), name="orders", daemon=True).start()
        Worker(device, _build(device), answers, SystemClock()).work(found.get)


if __name__ == "__main__":
    main()

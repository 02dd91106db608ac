"""A device's process, as the trial's process sees it."""

import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from contract.trial_spec import DeviceSpec
from testbed.attempt_folder import DeviceRecord
from testbed.child_process import wait_bounded
from testbed.device_group.messages import Message, parse, send
from testbed.device_group.pinning import environment

COMMAND = (sys.executable, "-m", "testbed.device_group.worker")
ENDED = "ended"
"""Message of our own: the process is gone."""

_DRAIN_S = 2.0
"""For its last lines to be read once it is gone; a helper that it left may hold its output open."""


@dataclass(frozen=True)
class Heard:
    """What came of a device.

    Attributes:
        member: whose.
        message: of `testbed.device_group.messages`, or `ended`.
    """

    member: "Member"
    message: Message


class Member:
    """Starts the process of a device, in the process group of this one, and listens to it.

    Args:
        device: what it is kept to.
        heard: takes what it says.
        environ: of this process.
        command: program and arguments, less the device's name.
    """

    def __init__(
        self,
        device: DeviceSpec,
        heard: "queue.Queue[Heard]",
        environ: Mapping[str, str],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.device = device
        self.record = DeviceRecord(device=device.name)
        self._heard = heard
        # Its output is ours: child.log. No session of its own: whoever ends this process's group ends it too.
        self._process = subprocess.Popen(
            [*command, device.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(device, environ),
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._listen, name=f"read-{device.name}", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name=f"wait-{device.name}", daemon=True).start()

    @property
    def name(self) -> str:
        """Of the device."""
        return self.device.name

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status of its process, negative for a signal; None while it lives."""
        return self._process.returncode

    def note(self, **changes: object) -> None:
        """Change the record."""
        self.record = self.record.model_copy(update=changes)

    def tell(self, message: Message) -> None:
        """Give an order. That the process is gone is told by `ended`, and not by an exception."""
        assert self._process.stdin is not None
        with suppress(OSError):
            if not self._process.stdin.closed:
                send(self._process.stdin, message)

    def close(self, grace_s: float) -> None:
        """End it: by an order, after the grace by SIGKILL. Idempotent.

        Args:
            grace_s: to free its engine; 0 kills at once.
        """
        assert self._process.stdin is not None
        if grace_s > 0:
            self.tell({"what": "close"})
        with suppress(OSError):  # nobody reads it: what was left in it is lost, as it may be
            self._process.stdin.close()
        if grace_s > 0:
            try:
                self._process.wait(grace_s)
                return
            except subprocess.TimeoutExpired:
                print(f"Device {self.name} does not leave by itself: it is ended", file=sys.stderr, flush=True)
        self._process.kill()
        wait_bounded(self._process)  # type: ignore[arg-type]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = parse(line)
            if message is not None:
                self._heard.put(Heard(self, message))

    def _wait(self) -> None:
        # Not the end of its output alone: a helper of its engine may hold that open.
        self._process.wait()
        self._reader.join(_DRAIN_S)
        self._heard.put(Heard(self, {"what": ENDED}))

"""What devices were set to before a trial touched them, on disk before they are touched.

One file per device and actuator in the ledger's folder, removed when the device is as it was. Whoever survives a
trial reads them: the trial itself, the testbed after its child's death and at its own start, and the watchdog.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from contract.errors import ActuatorError, DeviceNotRestoredError, JouleBedError
from contract.trial_spec import DomainName
from contract.units import Identifier, WireModel
from testbed.actuators.base import Actuator, DeviceGoneError, Original
from testbed.actuators.registry import ACTUATORS
from testbed.attempt_folder import write_atomic
from testbed.child_process import process_identity
from testbed.clock import Clock, SystemClock

_log = logging.getLogger(__name__)

LEDGER = "restore"
"""The ledger's folder in the testbed's data folder."""

_POLL_S = 0.02

Build = Callable[[str, str, Mapping[str, str]], Actuator]
"""Makes an actuator from name, domain and arguments."""


class LedgerEntry(WireModel):
    """A device that is, or may be, set to something else than it was."""

    actuator: Identifier
    domain: DomainName
    arguments: dict[str, str]
    """What builds the actuator again in another process."""
    state: dict[str, JsonValue]
    """Put back by `Actuator.restore`."""
    mending: str
    """What a person would type to put it back by hand."""
    pid: int
    """Of the process that holds the setting, and puts it back in the normal case."""
    identity: str | None
    """Of that process, see `process_identity`; None where it gave up."""

    @property
    def is_held(self) -> bool:
        """Whether its process lives, and the setting is its business alone."""
        return self.identity is not None and process_identity(self.pid) == self.identity


@dataclass(frozen=True)
class Unrestored:
    """A device that could not be put back; its entry stays.

    Attributes:
        actuator: name.
        domain: of the device.
        reason: in words.
        mending: what a person would type.
        is_gone: there is no such device any more: nothing can be measured on it, at a wrong setting or otherwise.
        path: the entry.
    """

    actuator: str
    domain: str
    reason: str
    mending: str
    is_gone: bool
    path: str

    def message(self) -> str:
        """For a person, with what to do next."""
        if self.is_gone:
            return f"{self.domain} ({self.actuator}) cannot be put back: {self.reason} If it is gone: rm {self.path}"
        return (
            f"{self.domain} ({self.actuator}) is still set as in an earlier trial, and could not be put back: "
            f"{self.reason} Put it back by hand: {self.mending}; then: rm {self.path}"
        )


def build_from_registry(name: str, domain: str, arguments: Mapping[str, str]) -> Actuator:
    """The actuator of an entry."""
    return ACTUATORS.create(name, domain=domain, **arguments)


class RestoreLedger:
    """The entries of one testbed. Several processes may use it at once: each change is made under a file lock.

    Args:
        folder: of the entries; made when the first one is written.
        build: makes the actuators of the entries.
        clock: for waiting.
        lock_limit_s: another process may take so long to put a device back.
    """

    def __init__(
        self,
        folder: Path,
        build: Build = build_from_registry,
        clock: Clock | None = None,
        lock_limit_s: float = 20.0,
    ) -> None:
        self.folder = folder
        self._build = build
        self._clock = clock or SystemClock()
        self._lock_limit_s = lock_limit_s

    def hold(self, actuator: Actuator) -> Original:
        """Write down what a device is set to, for this process to change it. Then, it may be touched.

        What an earlier trial left is put back before.

        Returns:
            What is set now; it survives a power cut.

        Raises:
            DeviceNotRestoredError: an earlier trial's setting is still there, or the entry cannot be written.
            ActuatorError: the device does not tell what it is set to, or another process holds it.
            ActuatorUnavailableError: there is no such device.
        """
        with self._locked():
            path = self._path(actuator.name, actuator.domain)
            if path.exists():
                entry = _read(path)
                if entry is not None and entry.is_held and entry.pid != os.getpid():
                    raise ActuatorError(
                        f"Process {entry.pid} has set {actuator.domain} ({actuator.name}). Wait for its end."
                    )
                left = self._restore(path)
                if left is not None:
                    raise DeviceNotRestoredError(left.message(), domain=left.domain, mending=left.mending)
            original = actuator.original()
            self._write(
                LedgerEntry(
                    actuator=actuator.name,
                    domain=actuator.domain,
                    arguments=dict(actuator.arguments),
                    state=dict(original.state),
                    mending=original.mending,
                    pid=os.getpid(),
                    identity=process_identity(os.getpid()),
                )
            )
            return original

    def release(self, actuator: Actuator) -> None:
        """Put a device back that this process holds, and strike its entry. Idempotent.

        Raises:
            DeviceNotRestoredError: the device refused; the entry stays, for others to try.
        """
        with self._locked():
            path = self._path(actuator.name, actuator.domain)
            entry = _read(path) if path.exists() else None
            if entry is None or entry.pid != os.getpid():
                return
            left = self._restore(path)
            if left is not None:
                self._write(entry.model_copy(update={"identity": None}))
                raise DeviceNotRestoredError(left.message(), domain=left.domain, mending=left.mending)

    def drop(self, actuator: Actuator) -> None:
        """Strike the entry of a device that was not touched in the end. Idempotent."""
        with self._locked():
            _remove(self._path(actuator.name, actuator.domain))

    def has_orphans(self) -> bool:
        """Whether there is an entry whose process is gone, or that cannot be read. Cheap where there is no entry."""
        return any(_is_orphan(path) for path in self._paths())

    def restore_orphans(self) -> list[Unrestored]:
        """Put back what dead processes left set. Idempotent, and harmless when several processes do it at once.

        Returns:
            What could not be put back.

        Raises:
            DeviceNotRestoredError: another process has been at it for too long.
        """
        if not self.folder.is_dir():
            return []
        with self._locked():
            for half in self.folder.glob(".*.tmp"):
                half.unlink(missing_ok=True)  # never finished, so its device was never touched
            results = [self._restore(path) for path in self._paths() if _is_orphan(path)]
        return [left for left in results if left is not None]

    def _restore(self, path: Path) -> Unrestored | None:
        """Put back one entry's device and strike the entry; the lock is held."""
        entry = _read(path)
        if entry is None:
            actuator, _, domain = path.stem.partition("@")
            reason, mending = "its entry cannot be read.", "restart the machine"
            return Unrestored(actuator, domain, reason, mending, is_gone=False, path=str(path))
        try:
            original = Original(entry.state, entry.mending)
            self._build(entry.actuator, entry.domain, entry.arguments).restore(original)
            _remove(path)
        except (JouleBedError, OSError, KeyError, TypeError, ValueError) as error:
            # An OSError: the disk. The last three: an entry of another version, or changed by hand.
            reason = error.message if isinstance(error, JouleBedError) else f"its entry does not fit ({error!r})."
            is_gone = isinstance(error, DeviceGoneError)
            left = Unrestored(entry.actuator, entry.domain, reason, entry.mending, is_gone, str(path))
            _log.warning("%s", left.message())
            return left
        _log.info("%s (%s) is as it was before the trial", entry.domain, entry.actuator)
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*@*.json"))

    def _path(self, actuator: str, domain: str) -> Path:
        return self.folder / f"{actuator}@{domain}.json"

    def _write(self, entry: LedgerEntry) -> None:
        path = self._path(entry.actuator, entry.domain)
        try:
            write_atomic(path, entry)
            path.chmod(0o600)
        except OSError as error:
            raise DeviceNotRestoredError(
                f"{path} cannot be written ({error.strerror}), so {entry.domain} is not touched: nobody could put it "
                "back after a crash. Mend the disk.",
                domain=entry.domain,
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DeviceNotRestoredError(
                f"{self.folder} cannot be written ({error.strerror}): no device is touched without it. Mend the disk."
            ) from error
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)  # the kernel does it as well, whatever becomes of this process

    def _wait_for(self, lock: int) -> None:
        end_ns = self._clock.monotonic_ns() + round(self._lock_limit_s * 1e9)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._clock.monotonic_ns() > end_ns:
                    raise DeviceNotRestoredError(
                        f"Another process has been putting devices back for {self._lock_limit_s:g} s. Find it with "
                        f"`fuser {self.folder / 'lock'}`: its driver may hang."
                    ) from None
            self._clock.sleep(_POLL_S)


def _read(path: Path) -> LedgerEntry | None:
    try:
        return LedgerEntry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _is_orphan(path: Path) -> bool:
    entry = _read(path)
    # A file that vanished meanwhile was struck by somebody else.
    return path.exists() if entry is None else not entry.is_held


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        # Durable as well: an entry that came back after a power cut would undo what a person set since.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

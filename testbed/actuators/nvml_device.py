"""One NVIDIA GPU as an actuator sees it: found, allowed to be set or not, and its errors in words."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from contract.errors import ActuatorError, ActuatorUnavailableError, InvalidOptionError
from testbed.actuators.base import DeviceGoneError
from testbed.meters.nvml_reading import text

_DOMAIN = re.compile(r"gpu:(\d+)")
_CAP_SYS_ADMIN = 21
"""Bit of capability(7); the driver's kernel module asks for it before it sets anything."""

HOW_TO_ALLOW = (
    "Setting a GPU needs root, or the capability CAP_SYS_ADMIN: start the testbed with sudo; in a systemd unit add "
    "AmbientCapabilities=CAP_SYS_ADMIN; in Docker add --cap-add=SYS_ADMIN."
)


def may_administer(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has the capability that setting a GPU needs; root in a container may well not.

    Args:
        status: of the process, as in proc(5).
    """
    try:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status.read_text(), re.MULTILINE)
    except OSError:
        return False
    return found is not None and bool(int(found[1], 16) >> _CAP_SYS_ADMIN & 1)


class NvmlDevice:
    """A GPU by its index. Nothing is asked before `session`.

    Args:
        domain: `gpu:0` and so on, as `nvidia-smi` numbers them.
        nvml: the library's module; pynvml by default.
        is_allowed: see `may_administer`.

    Raises:
        InvalidOptionError: the domain is no GPU's.
    """

    def __init__(
        self, domain: str, nvml: ModuleType | Any | None = None, is_allowed: Callable[[], bool] = may_administer
    ) -> None:
        found = _DOMAIN.fullmatch(domain)
        if found is None:
            raise InvalidOptionError(f"A GPU's domain is `gpu:` and its index, such as gpu:0, not {domain!r}.")
        if nvml is None:
            import pynvml

            nvml = pynvml
        self.domain, self.index = domain, int(found[1])
        self.nvml: Any = nvml
        self._is_allowed = is_allowed

    @contextmanager
    def session(self, uuid: str | None = None) -> Iterator[Any]:
        """The GPU's handle, while the library is open.

        Args:
            uuid: find the GPU by it, since indices change when cards are moved; None: by the index.

        Raises:
            DeviceGoneError: there is no such GPU, or no driver.
            ActuatorError: what NVML said in the block, in words.
            ActuatorUnavailableError: the same, where it is no permission, or no support.
        """
        try:
            self.nvml.nvmlInit()
        except self.nvml.NVMLError as error:
            raise DeviceGoneError(
                f"NVML does not start ({error}). Is an NVIDIA driver installed? Try: nvidia-smi"
            ) from error
        try:
            yield self._handle(uuid)
        except (self.nvml.NVMLError_NoPermission, self.nvml.NVMLError_NotSupported) as error:
            allow = HOW_TO_ALLOW if isinstance(error, self.nvml.NVMLError_NoPermission) else "This GPU cannot be set."
            raise ActuatorUnavailableError(f"{self.domain}: {error}. {allow}") from error
        except self.nvml.NVMLError as error:
            raise ActuatorError(f"{self.domain}: NVML says {error}. Look at: nvidia-smi -i {self.index} -q") from error
        finally:
            self.nvml.nvmlShutdown()

    def uuid(self, handle: Any) -> str:
        """Of a GPU: it stays when indices change."""
        return text(self.nvml.nvmlDeviceGetUUID(handle))

    def obstacle(self, handle: Any) -> str | None:
        """Why this GPU must not be touched, with the command that mends it; None where it may be."""
        try:
            is_split = self.nvml.nvmlDeviceGetMigMode(handle)[0] == 1
        except self.nvml.NVMLError:
            is_split = False  # not supported: nothing to split
        if is_split:
            return (
                f"{self.domain} is split into MIG instances, which share its clocks and its power. For a GPU of your "
                f"own: sudo nvidia-smi -i {self.index} -mig 0"
            )
        return None if self._is_allowed() else HOW_TO_ALLOW

    def _handle(self, uuid: str | None) -> Any:
        n_gpus = self.nvml.nvmlDeviceGetCount()
        if uuid is not None:
            for index in range(n_gpus):
                handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
                if self.uuid(handle) == uuid:
                    return handle
            raise DeviceGoneError(f"The GPU {uuid} ({self.domain}) is not in this machine any more. See: nvidia-smi -L")
        if self.index >= n_gpus:
            raise DeviceGoneError(f"There is no {self.domain} here: {n_gpus} GPUs. List them: nvidia-smi -L")
        return self.nvml.nvmlDeviceGetHandleByIndex(self.index)

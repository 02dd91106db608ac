"""NVIDIA GPUs through NVML: the energy counter where there is one, and power readings beside it."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Samples


class NvmlMeter(SampledMeter):
    """Reads every GPU: cumulative energy is the headline, power a second estimator; power alone where no counter is.

    Args:
        period_s: sampling period; the counter itself ticks every 20 to 100 ms.
        nvml: the library's module; pynvml by default.
        clock: of the stamps.
    """

    name = "nvml"

    def __init__(
        self, *, period_s: float = 0.2, nvml: ModuleType | Any | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(period_s=period_s, clock=clock)
        if nvml is None:
            import pynvml

            nvml = pynvml
        self._nvml = nvml
        self._handles: list[Any] = []
        self._has_counter: list[bool] = []

    def probe(self) -> MeterProbe:
        """See `Meter`."""
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            return MeterProbe(False, f"NVML does not start ({error}). Is an NVIDIA driver installed? Try: nvidia-smi")
        try:
            domains: list[str] = []
            useless: list[str] = []
            for index in range(self._nvml.nvmlDeviceGetCount()):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                readable = self._supports("nvmlDeviceGetTotalEnergyConsumption", handle) or self._supports(
                    "nvmlDeviceGetPowerUsage", handle
                )
                (domains if readable else useless).append(f"gpu:{index}")
        except self._nvml.NVMLError as error:
            return MeterProbe(False, f"NVML cannot list the GPUs: {error}. Try: nvidia-smi")
        finally:
            self._nvml.nvmlShutdown()
        if not domains:
            what = f"no power of {', '.join(useless)} (a Jetson measures through INA3221)" if useless else "no GPU"
            return MeterProbe(False, f"NVML delivers {what}.")
        return MeterProbe(True, f"NVML: {', '.join(domains)}", tuple(domains))

    def _supports(self, function: str, handle: Any) -> bool:
        try:
            getattr(self._nvml, function)(handle)
        except (self._nvml.NVMLError, AttributeError):
            return False
        return True

    def _open(self) -> None:
        self._nvml.nvmlInit()
        count = self._nvml.nvmlDeviceGetCount()
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        self._has_counter = [self._supports("nvmlDeviceGetTotalEnergyConsumption", each) for each in self._handles]

    def _close(self) -> None:
        self._nvml.nvmlShutdown()

    def _read(self) -> Mapping[str, float]:
        values = {}
        for index, handle in enumerate(self._handles):
            try:
                if self._has_counter[index]:
                    values[f"gpu:{index}/counter"] = self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
                values[f"gpu:{index}/power"] = self._nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
            except self._nvml.NVMLError_NotSupported:
                continue
            except self._nvml.NVMLError as error:
                raise OSError(str(error)) from error
        return values

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        domain, _, kind = sensor.partition("/")
        time_s, values = samples.arrays()
        if kind == "counter":
            return Trace(domain, "gpu", "counter", EnergyMethod.COUNTER, self.name, time_s, values)
        is_headline = not self._has_counter[int(domain.partition(":")[2])]
        return Trace(domain, "gpu", "power", EnergyMethod.SAMPLED, self.name, time_s, values, is_headline=is_headline)

"""NVIDIA GPUs through NVML: the energy counter where there is one, power readings beside it, and the conditions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, cast

from contract.errors import InvalidOptionError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from energy.trace import Gauge, Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.gpu_process import ForeignProcesses, own_process_tree
from testbed.meters.nvml_reading import Estimator, GpuReaders, describe, find_readers, text
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Reader, SamplerThread, Samples, read_each, read_energy

_PROCESS_LISTS = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")


class NvmlMeter(SampledMeter):
    """Reads every GPU; what one does not support is left out, found once, and named in the settings.

    The headline of a GPU is its energy counter; without one the instantaneous power, else the 1-s mean. Whatever
    else there is comes as a second estimator of the same domain, from the source `nvml-instant` or `nvml-average`.
    Beside them: temperature, clocks, utilisation, throttle reasons, memory, power limit, fan, and how many processes
    that are not of this trial use the GPU. It only reads: clocks, limits and modes stay as they are.

    Args:
        period_s: sampling period; the counter itself ticks every 20 to 100 ms.
        gpus: indices of the GPUs to measure, as `nvidia-smi` numbers them; all by default.
        nvml: the library's module; pynvml by default.
        processes: counts the strangers on a GPU; the trial's own are those of `own_pids` by default.
        own_pids: processes that belong to the trial: see `own_process_tree`.
        clock: of the stamps.

    Raises:
        InvalidOptionError: `gpus` is no list of indices.
    """

    name = "nvml"

    def __init__(
        self,
        *,
        period_s: float = 0.2,
        gpus: Sequence[int] | None = None,
        nvml: ModuleType | Any | None = None,
        processes: ForeignProcesses | None = None,
        own_pids: Callable[[], set[int]] = own_process_tree,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(period_s=period_s, clock=clock)
        if gpus is not None and not (
            isinstance(gpus, Sequence) and gpus and all(type(index) is int and index >= 0 for index in gpus)
        ):
            raise InvalidOptionError(f"NVML's option `gpus` is a list of indices such as [0, 1], not {gpus!r}.")
        if nvml is None:
            import pynvml

            nvml = pynvml
        self._nvml: Any = nvml
        self._gpus = gpus
        self._processes = processes or ForeignProcesses(own_pids)
        self._handles: dict[str, Any] = {}
        self._gpu: dict[str, GpuReaders] = {}
        self._energy: dict[str, Reader] = {}
        self._fast: dict[str, Reader] = {}
        self._slow: dict[str, Reader] = {}
        self._described: dict[str, str | float | None] = {}

    def probe(self) -> MeterProbe:
        """See `Meter`."""
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            return MeterProbe(False, f"NVML does not start ({error}). Is an NVIDIA driver installed? Try: nvidia-smi")
        try:
            readable = {
                domain: bool(find_readers(self._nvml, handle).energy) for domain, handle in self._find_gpus().items()
            }
        except self._nvml.NVMLError as error:
            return MeterProbe(False, f"NVML cannot list the GPUs: {error}. Try: nvidia-smi")
        finally:
            self._nvml.nvmlShutdown()
        domains = tuple(domain for domain, yes in readable.items() if yes)
        missing = [index for index in self._gpus or () if f"gpu:{index}" not in readable]
        if missing:
            return MeterProbe(False, f"There is no GPU {missing[0]}. List them: nvidia-smi -L, then mend option gpus.")
        if not domains:
            useless = ", ".join(readable)
            what = f"no power of {useless} (a Jetson measures through INA3221: meter jetson)" if useless else "no GPU"
            return MeterProbe(False, f"NVML delivers {what}.")
        return MeterProbe(True, f"NVML: {', '.join(domains)}", domains)

    def _find_gpus(self) -> dict[str, Any]:
        count = self._nvml.nvmlDeviceGetCount()
        indices = range(count) if self._gpus is None else [index for index in self._gpus if index < count]
        return {f"gpu:{index}": self._nvml.nvmlDeviceGetHandleByIndex(index) for index in indices}

    def _open(self) -> None:
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise MeterUnavailableError(f"NVML does not start any more ({error}). Try: nvidia-smi") from error
        try:
            self._handles = self._find_gpus()
            self._gpu = {domain: find_readers(self._nvml, handle) for domain, handle in self._handles.items()}
            driver = text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError as error:
            self._close()
            raise MeterUnavailableError(f"A GPU does not answer any more ({error}). Try: nvidia-smi") from error
        self._described = {"driver_version": driver}
        for domain, handle in self._handles.items():
            described = describe(self._nvml, handle)
            self._described |= {f"{domain}.{key}": value for key, value in described.items()}
        self._arrange()

    def _arrange(self) -> None:
        for domain, gpu in self._gpu.items():
            self._energy |= {f"{domain}/{estimator}": read for estimator, read in gpu.energy.items()}
            self._fast |= {f"{domain}/{quantity}": read for quantity, read in gpu.gauges.items()}
            self._slow |= {f"{domain}/{quantity}": read for quantity, read in gpu.slow_gauges.items()}
            lists = [each for each in _PROCESS_LISTS if self._lists_processes(each, domain)]
            if lists:
                self._slow[f"{domain}/foreign_processes"] = partial(self._count_strangers, domain, lists)

    def _lists_processes(self, function: str, domain: str) -> bool:
        try:
            getattr(self._nvml, function)(self._handles[domain])
        except (self._nvml.NVMLError, AttributeError):
            return False
        return True

    def _count_strangers(self, domain: str, lists: Sequence[str]) -> float:
        handle = self._handles[domain]
        try:
            pids = {each.pid for function in lists for each in getattr(self._nvml, function)(handle)}
        except self._nvml.NVMLError as error:
            raise OSError(f"{domain}: {error}") from error
        return float(self._processes.count(pids))

    def _close(self) -> None:
        self._nvml.nvmlShutdown()

    def _read(self) -> Mapping[str, float]:
        return read_energy(self._energy, self._missed)

    def _read_gauges(self) -> Mapping[str, float]:
        return read_each(self._fast, self._missed)

    def _read_slow_gauges(self) -> Mapping[str, float]:
        return read_each(self._slow, self._missed)

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        domain, _, name = sensor.partition("/")
        estimator = cast(Estimator, name)
        gpu = self._gpu[domain]
        is_headline = estimator == next(iter(gpu.energy))
        is_counter = estimator == "counter"
        time_s, values = samples.arrays()
        return Trace(
            domain,
            "gpu",
            "counter" if is_counter else "power",
            EnergyMethod.COUNTER if is_counter else EnergyMethod.SAMPLED,
            self.name if is_headline else f"{self.name}-{estimator}",
            time_s,
            values,
            is_headline=is_headline,
            note=gpu.notes[estimator],
        )

    def _gauges(self, sampler: SamplerThread) -> tuple[Gauge, ...]:
        gauges = super()._gauges(sampler)
        if self._processes.can_tell:
            return gauges
        # A list that hides our own processes hides the others' too: its 0 is not a count.
        return tuple(gauge for gauge in gauges if gauge.quantity != "foreign_processes")

    def _settings(self) -> Mapping[str, str | float | int | None]:
        counted = [domain for domain in self._gpu if f"{domain}/foreign_processes" in self._slow]
        for domain, gpu in self._gpu.items():
            missing = [*gpu.unsupported, *([] if domain in counted else ["foreign_processes"])]
            self._described[f"{domain}.unsupported"] = ", ".join(missing)
        strangers = self._processes.describe() if counted else None
        return {"period_s": self._period_s, **self._described, "foreign_processes": strangers}

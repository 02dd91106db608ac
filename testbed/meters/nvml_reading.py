"""What one GPU answers through NVML: each field by itself, found out once, so that none takes the others with it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from testbed.meters.sampler import Reader
from testbed.meters.sysfs import is_readable

Estimator = Literal["counter", "instant", "average"]

AVERAGED = "NVML's power reading here is a mean over about 1 s"
INSTANT = "NVML's instantaneous power"
UNKNOWN = "NVML's power reading; whether it is a mean over 1 s, the driver does not tell"

_INSTANT_DESPITE_AMPERE = re.compile(r"\bA(100|800|30)\b")
"""GPUs with the GA100 chip; their power reading is instantaneous, as on older chips."""


@dataclass(frozen=True)
class GpuReaders:
    """How to read one GPU. Only what answered when it was opened is here.

    Attributes:
        energy: estimator -> reader, joules (`counter`) or watts; the first one is the best.
        notes: estimator -> what its figures are.
        gauges: quantity -> reader, in the units of `energy.trace.Quantity`.
        slow_gauges: the same, for what need not be read oftener than once a second.
        unsupported: names of the fields that did not answer.
    """

    energy: Mapping[Estimator, Reader]
    notes: Mapping[Estimator, str]
    gauges: Mapping[str, Reader]
    slow_gauges: Mapping[str, Reader]
    unsupported: tuple[str, ...]


def find_readers(nvml: Any, handle: Any) -> GpuReaders:
    """Try every field of a GPU once. Nothing is changed on the device.

    Args:
        nvml: the library's module, or one like it; initialised.
        handle: of the device.
    """
    unsupported: list[str] = []

    def keep(wanted: dict[str, Reader]) -> dict[str, Reader]:
        found = {name: read for name, read in wanted.items() if is_readable(read)}
        unsupported.extend(name for name in wanted if name not in found)
        return found

    energy, notes = _energy_readers(nvml, handle)
    unsupported.extend(name for name in ("counter", "instant", "average") if name not in energy)
    temperature = temperature_reader(nvml, handle)
    if temperature is None:
        unsupported.append("temp_c")
    gauges = keep(
        {
            "clock_mhz": _call(nvml, "nvmlDeviceGetClockInfo", handle, _constant(nvml, "NVML_CLOCK_SM")),
            "memory_clock_mhz": _call(nvml, "nvmlDeviceGetClockInfo", handle, _constant(nvml, "NVML_CLOCK_MEM")),
            "utilisation": _call(
                nvml, "nvmlDeviceGetUtilizationRates", handle, convert=lambda rates: float(rates.gpu) / 100
            ),
            "throttle_reasons": _first_readable(
                # Renamed with driver 535.
                _call(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle),
                _call(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle),
            ),
        }
    )
    slow_gauges = keep(
        {
            "memory_used_bytes": _call(
                nvml, "nvmlDeviceGetMemoryInfo", handle, convert=lambda memory: float(memory.used)
            ),
            "power_limit_w": _call(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle, convert=_thousandth),
            "fan_rpm": _call(nvml, "nvmlDeviceGetFanSpeedRPM", handle),
        }
    )
    if temperature is not None:
        gauges = {"temp_c": temperature} | gauges
    return GpuReaders(energy, notes, gauges, slow_gauges, tuple(unsupported))


def temperature_reader(nvml: Any, handle: Any) -> Reader | None:
    """How to read a GPU's temperature in degrees Celsius; None where it cannot be read.

    Driver 550 and older have no `nvmlDeviceGetTemperatureV`; the older call is to go with CUDA 14.

    Args:
        nvml: the library's module, initialised.
        handle: of the device.
    """
    sensor = _constant(nvml, "NVML_TEMPERATURE_GPU")
    for function in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
        read = _call(nvml, function, handle, sensor)
        if is_readable(read):
            return read
    return None


def describe(nvml: Any, handle: Any) -> dict[str, str | float | None]:
    """What a GPU is and how it is set; None for what it does not tell. Nothing is changed.

    Locked clocks cannot be asked for in NVML: the clocks themselves are sampled.

    Args:
        nvml: the library's module, initialised.
        handle: of the device.
    """
    return {
        "name": _ask(nvml, "nvmlDeviceGetName", handle, convert=text),
        "uuid": _ask(nvml, "nvmlDeviceGetUUID", handle, convert=text),
        "persistence_mode": _ask(nvml, "nvmlDeviceGetPersistenceMode", handle, convert=float),
        # Current and pending; the current one is what is measured.
        "mig_mode": _ask(nvml, "nvmlDeviceGetMigMode", handle, convert=lambda modes: float(modes[0])),
        "application_clock_mhz": _ask(
            nvml, "nvmlDeviceGetApplicationsClock", handle, _constant(nvml, "NVML_CLOCK_SM"), convert=float
        ),
        "application_memory_clock_mhz": _ask(
            nvml, "nvmlDeviceGetApplicationsClock", handle, _constant(nvml, "NVML_CLOCK_MEM"), convert=float
        ),
        "power_limit_w": _ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle, convert=_thousandth),
    }


def text(value: str | bytes) -> str:
    """Older bindings answer bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _energy_readers(nvml: Any, handle: Any) -> tuple[dict[Estimator, Reader], dict[Estimator, str]]:
    readers: dict[Estimator, Reader] = {}
    notes: dict[Estimator, str] = {}
    counter = _call(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle, convert=_thousandth)
    if is_readable(counter):
        readers["counter"], notes["counter"] = counter, ""
    instant = _field(nvml, handle, "NVML_FI_DEV_POWER_INSTANT")
    average = _field(nvml, handle, "NVML_FI_DEV_POWER_AVERAGE")
    if is_readable(instant):
        readers["instant"], notes["instant"] = instant, INSTANT
    if is_readable(average):
        readers["average"], notes["average"] = average, AVERAGED
    usage = _call(nvml, "nvmlDeviceGetPowerUsage", handle, convert=_thousandth)
    if "average" not in readers and is_readable(usage):
        is_average = _usage_is_average(nvml, handle)
        if is_average is not False:
            readers["average"], notes["average"] = usage, AVERAGED if is_average else UNKNOWN
        elif "instant" not in readers:
            readers["instant"], notes["instant"] = usage, INSTANT
    return readers, notes


def _usage_is_average(nvml: Any, handle: Any) -> bool | None:
    """NVML's manual, nvmlDeviceGetPowerUsage: a mean over 1 s on Ampere (but GA100) or newer, else instantaneous."""
    architecture = _ask(nvml, "nvmlDeviceGetArchitecture", handle, convert=float)
    ampere = _constant(nvml, "NVML_DEVICE_ARCH_AMPERE")
    if not isinstance(architecture, float) or ampere is None or architecture == 0xFFFFFFFF:
        return None
    if architecture == ampere:
        name = _ask(nvml, "nvmlDeviceGetName", handle, convert=text)
        return None if name is None else not _INSTANT_DESPITE_AMPERE.search(str(name))
    return bool(architecture > ampere)


def _field(nvml: Any, handle: Any, name: str) -> Reader:
    """A power field, mW -> W; each field of an answer has a return code of its own."""

    def convert(answer: Any) -> float:
        if answer[0].nvmlReturn != 0:
            raise nvml.NVMLError(answer[0].nvmlReturn)
        return float(answer[0].value.uiVal) / 1e3

    return _call(nvml, "nvmlDeviceGetFieldValues", handle, [_constant(nvml, name)], convert=convert)


def _call(nvml: Any, function: str, *arguments: Any, convert: Callable[[Any], float] = float) -> Reader:
    return partial(_read, nvml, function, arguments, convert)


def _read(nvml: Any, function: str, arguments: tuple[Any, ...], convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(getattr(nvml, function)(*arguments))
    except (nvml.NVMLError, AttributeError, TypeError) as error:
        # AttributeError: an older binding has no such function. TypeError: nor such a constant.
        raise OSError(f"{function}: {error}") from error


def _ask(nvml: Any, function: str, *arguments: Any, convert: Callable[[Any], str | float]) -> str | float | None:
    try:
        answer: str | float = _read(nvml, function, arguments, convert)
    except OSError:
        return None
    return answer


def _first_readable(*readers: Reader) -> Reader:
    return next((read for read in readers if is_readable(read)), readers[-1])


def _constant(nvml: Any, name: str) -> Any:
    return getattr(nvml, name, None)


def _thousandth(value: float) -> float:
    return float(value) / 1e3

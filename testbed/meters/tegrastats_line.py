"""Reads a line of `tegrastats`, in the dialects of JetPack 3 to 6.

The dialects differ in the date before the line (JetPack 5), in the unit of power (`VDD_IN 4199/4199` in milliwatts,
`VDD_IN 4199mW/4199mW` since JetPack 5), in the case of the zones (`CPU@44C`, `cpu@48.5C`), and in the clock of the GPU
(`GR3D_FREQ 12%@1134`, `12%@[1300,1300]`, `12%`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_RAIL = re.compile(r"(?<![^\s])([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?=\s|$)")
"""Name, power now, average since the start."""

_NO_RAILS = frozenset({"NC", "RAM", "SWAP", "IRAM"})
"""Not connected; and memory, whose unit is missing where a line is cut off."""

_ZONE = re.compile(r"(?<![^\s])([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C(?=\s|$)")
_MEMORY = re.compile(r"(?<![^\s])RAM (\d+)/(\d+)MB")
_GPU = re.compile(r"(?<![^\s])GR3D_FREQ (\d+)%(?:@\[?(\d+)(?:,\d+)*\]?)?")

_PLAUSIBLE_C = (-20.0, 150.0)
"""A zone that is off says -256, the PMIC of some boards always 100."""

_NOT_SENSORS = frozenset({"PMIC"})


@dataclass(frozen=True)
class TegrastatsLine:
    """What a line tells.

    Attributes:
        power_w: rail -> watts now; channels that are not connected are left out.
        average_w: rail -> mean watts since tegrastats was started.
        temp_c: zone -> degrees Celsius.
        gpu_utilisation: 0 to 1; None where the line does not say.
        gpu_clock_mhz: None as above.
        memory_used_bytes: of the memory that processor and GPU share; None as above.
    """

    power_w: Mapping[str, float] = field(default_factory=dict)
    average_w: Mapping[str, float] = field(default_factory=dict)
    temp_c: Mapping[str, float] = field(default_factory=dict)
    gpu_utilisation: float | None = None
    gpu_clock_mhz: float | None = None
    memory_used_bytes: float | None = None


def parse_line(line: str) -> TegrastatsLine:
    """Read a line; what it does not hold is left out. Never raises: a line may be cut off.

    Args:
        line: as tegrastats prints it.
    """
    rails = [(name, float(now), float(mean)) for name, now, mean in _RAIL.findall(line) if name not in _NO_RAILS]
    gpu, memory = _GPU.search(line), _MEMORY.search(line)
    return TegrastatsLine(
        power_w={name: now / 1e3 for name, now, _ in rails},
        average_w={name: mean / 1e3 for name, _, mean in rails},
        temp_c={
            zone: float(value)
            for zone, value in _ZONE.findall(line)
            if zone not in _NOT_SENSORS and _PLAUSIBLE_C[0] < float(value) < _PLAUSIBLE_C[1]
        },
        gpu_utilisation=float(gpu[1]) / 100 if gpu else None,
        gpu_clock_mhz=float(gpu[2]) if gpu and gpu[2] else None,
        memory_used_bytes=float(memory[1]) * 2**20 if memory else None,
    )

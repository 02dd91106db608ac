"""The power rails of a Jetson: where the kernel shows them, and how they add up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from contract.errors import InvalidOptionError
from testbed.meters.sampler import Reader
from testbed.meters.sysfs import read_number, text_of

Component = Literal["cpu", "gpu", "dram", "system", "part"]

_CHANNELS = (1, 2, 3)
"""Of an INA3221. On hwmon, in4 to in6 are shunt voltages and in7 their sum: no rails."""

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
"""Input of the whole module, which holds all other rails.

VDD_IN: Orin Nano and NX, Xavier NX, TX2, TX1 ("VDD_IN is the total power of module": NVIDIA's forum, topic 200883).
POM_5V_IN: Nano (same forum, topic 73608: nothing is to be added to it).
"""

DISJOINT_RAILS: Mapping[str, Component] = {
    # AGX Orin; labels as in Linux, arch/arm64/boot/dts/nvidia/tegra234-p3701.dtsi.
    "VDD_GPU_SOC": "gpu",
    "VDD_CPU_CV": "cpu",
    "VDDQ_VDD2_1V8AO": "dram",
    # AGX Xavier; labels as in tegra194-p2888.dtsi, each the input of one supply (design guide DG-09840-001, fig. 5-14).
    "GPU": "gpu",
    "CPU": "cpu",
    "VDDRQ": "dram",
}
"""Rails of the boards without a total that feed one thing each, and so add up without counting anything twice.

The others of those boards are parts, so that their sum is less than what the module draws. VIN_SYS_5V0 (AGX Orin) is
the 5 V input, and we found no statement whether VDDQ_VDD2_1V8AO hangs on it; SOC, CV and SYS5V (AGX Xavier) are
disjoint, but neither processor, GPU nor memory. The options `added_rails` and `total_rail` overrule this table.
"""


@dataclass(frozen=True)
class Rail:
    """One channel of a power monitor.

    Attributes:
        label: as the board's device tree names it.
        voltage_file: millivolts.
        current_file: milliamperes.
    """

    label: str
    voltage_file: Path
    current_file: Path

    def reader(self) -> Reader:
        """Watts: volts times amperes, read one after the other."""
        voltage, current = str(self.voltage_file), str(self.current_file)
        return lambda: read_number(voltage) * read_number(current) / 1e6


def find_rails(hwmon: Path, iio: Path) -> list[Rail]:
    """All named channels of all INA3221; labels made unique by the chip where two are equal.

    Args:
        hwmon: the kernel's hwmon folder (JetPack 5 and newer, and mainline kernels).
        iio: folder of the older driver ina3221x (JetPack 4 and older).
    """
    found: list[tuple[str, Rail]] = []
    for chip in sorted(hwmon.glob("hwmon*"), key=_by_number):
        if text_of(chip / "name") == "ina3221":
            for n in _CHANNELS:
                rail = Rail(text_of(chip / f"in{n}_label"), chip / f"in{n}_input", chip / f"curr{n}_input")
                if text_of(chip / f"in{n}_enable") != "0" and _is_rail(rail):
                    found.append((chip.name, rail))
    for device in sorted(iio.glob("*/iio:device*")):
        for name_file in sorted(device.glob("rail_name_*")):
            n_text = name_file.name.removeprefix("rail_name_")
            rail = Rail(text_of(name_file), device / f"in_voltage{n_text}_input", device / f"in_current{n_text}_input")
            if _is_rail(rail):
                found.append((device.name, rail))
    labels = [rail.label for _, rail in found]
    return [
        rail if labels.count(rail.label) == 1 else Rail(f"{rail.label}@{chip}", rail.voltage_file, rail.current_file)
        for chip, rail in found
    ]


def components(
    labels: Sequence[str], *, total_rail: str | None = None, added_rails: Mapping[str, Component] | None = None
) -> dict[str, Component]:
    """How the rails of a board add up.

    Where there is a total, it is the `system` and all others are parts; else the rails of `DISJOINT_RAILS` add up.

    Args:
        labels: of all rails.
        total_rail: the one that holds all others, where the table does not know it.
        added_rails: rail -> component, instead of the table; the others are parts.
    """
    if added_rails is not None:
        return {label: added_rails.get(label, "part") for label in labels}
    total = total_rail or next((label for label in TOTAL_RAILS if label in labels), None)
    if total is not None:
        return {label: "system" if label == total else "part" for label in labels}
    return {label: DISJOINT_RAILS.get(label, "part") for label in labels}


def check_rail_options(meter: str, total_rail: object, added_rails: object) -> None:
    """See that the options of a Jetson's meter make sense before anything is measured.

    Args:
        meter: its name, for the message.
        total_rail: as given; None: not given.
        added_rails: as given; None: not given.

    Raises:
        InvalidOptionError: both at once, or one that is no rail's name or no component.
    """
    if total_rail is not None and added_rails is not None:
        raise InvalidOptionError(f"Give the meter {meter} either total_rail or added_rails: a total holds them all.")
    if total_rail is not None and not isinstance(total_rail, str):
        raise InvalidOptionError(f"The option total_rail is a rail's name, not {total_rail!r}.")
    if added_rails is not None and not (
        isinstance(added_rails, Mapping) and added_rails and set(added_rails.values()) <= set(get_args(Component))
    ):
        raise InvalidOptionError(
            f'The option added_rails is such as {{"VDD_GPU_SOC": "gpu", "VDD_CPU_CV": "cpu"}}, not {added_rails!r}.'
        )


def _is_rail(rail: Rail) -> bool:
    # NC: not connected.
    return rail.label not in ("", "NC") and rail.voltage_file.exists() and rail.current_file.exists()


def _by_number(chip: Path) -> tuple[int, str]:
    number = chip.name.removeprefix("hwmon")
    return (int(number) if number.isdigit() else 0, chip.name)

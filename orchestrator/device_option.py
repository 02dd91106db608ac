"""Devices on the command line and in configurations: `--devices 0 1`."""

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from contract.errors import UsageError
from contract.trial_spec import DeviceSpec

OPTION = "--devices"
_LOOKS_LIKE_ONE = re.compile(r"\d+(,\d+)*|gpu:\d+|cores:[\d,-]+")


def spread(arguments: Sequence[str]) -> list[str]:
    """`--devices 0 1` as `--devices 0 --devices 1`: an option of typer takes one value.

    Args:
        arguments: of the command line; what does not look like a device ends the list.
    """
    spread_out: list[str] = []
    is_list = False
    for argument in arguments:
        is_more = is_list and bool(_LOOKS_LIKE_ONE.fullmatch(argument))
        if is_more and spread_out[-1] != OPTION:
            spread_out.append(OPTION)
        spread_out.append(argument)
        is_list = argument == OPTION or is_more
    return spread_out


def device_specs(given: Iterable[str | int | DeviceSpec]) -> list[DeviceSpec]:
    """Devices by their names.

    A bare number is a GPU's index, whatever the machine: a plan means the same on all of them, and a machine without a
    GPU refuses it before anything runs. Sets of cores are named as such.

    Args:
        given: `0`, `0,1`, `gpu:0`, `cores:0-1`, or specs.

    Raises:
        UsageError: one of them names no device.
    """
    found: list[DeviceSpec] = []
    for each in given:
        if isinstance(each, DeviceSpec):
            found.append(each)
            continue
        text = str(each).strip()
        names = [f"gpu:{int(part)}" for part in text.split(",")] if re.fullmatch(r"\d+(,\d+)*", text) else [text]
        try:
            found += [DeviceSpec(name=name) for name in names]
        except ValidationError as error:
            raise UsageError(
                f"{each!r} names no device. Write a GPU's index (0, or gpu:0) or a set of cores (cores:0-1, cores:0,2)."
            ) from error
    return found

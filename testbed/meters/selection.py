"""Which meters a trial uses on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.errors import InvalidOptionError, JouleBedError, MeterUnavailableError
from contract.trial_spec import MeterSpec
from testbed.meters.base import Meter, MeterProbe
from testbed.meters.registry import METERS
from testbed.registry import Registry

AUTO = "auto"
NATIVE = ("rapl", "nvml", "jetson", "tegrastats")
"""Those that are there are taken together: processor and GPU of a PC or server, or the rails of a Jetson."""

FALLBACKS = {"tegrastats": "jetson"}
"""Meter -> the one that reads the same sensors directly, and is taken alone where it can."""


@dataclass(frozen=True)
class MeterChoice:
    """What was chosen, and why.

    Attributes:
        names: registry names; several are used side by side.
        reasons: meter -> why it was not taken, in words.
    """

    names: tuple[str, ...]
    reasons: Mapping[str, str]


class MeterSelector:
    """Chooses meters, and remembers what it found: looking starts a program and touches sensors.

    Args:
        default: what `auto` stands for: a meter's name, or `auto` itself.
        meters: the registry.
    """

    def __init__(self, default: str = AUTO, meters: Registry[Meter] = METERS) -> None:
        self._default = default
        self._meters = meters
        self._probes: dict[str, MeterProbe] = {}

    def choose(self, spec: MeterSpec) -> MeterChoice:
        """The meters for a trial.

        `auto` takes EnergiBridge where it runs, else the native meters that are there, else the labelled estimate.

        Raises:
            MeterUnavailableError: a meter that was asked for cannot measure here; the message says how to mend it.
            UnknownNameError: there is none of that name.
            InvalidOptionError: its options are wrong.
        """
        name = self._default if spec.name == AUTO else spec.name
        if name != AUTO:
            # Somebody who just ran the command of the last message must not need to restart the testbed.
            probe = self._probe(name, spec, look_again=True)
            if not probe.available:
                raise MeterUnavailableError(f"The meter {name!r} cannot be used here. {probe.message}", meter=name)
            return MeterChoice((name,), {})
        reasons = {}
        for names in (("energibridge",), NATIVE):
            available = []
            for each in names:
                if FALLBACKS.get(each) in available:
                    reasons[each] = f"The meter {FALLBACKS[each]} reads the same sensors."
                    continue
                probe = self._probe(each, spec)
                if probe.available:
                    available.append(each)
                else:
                    reasons[each] = probe.message
            if available:
                return MeterChoice(tuple(available), reasons)
        return MeterChoice(("estimate",), reasons)

    def _probe(self, name: str, spec: MeterSpec, *, look_again: bool = False) -> MeterProbe:
        options = spec.options if spec.name == name else {}
        key = f"{name} {sorted(options.items())!r}"
        known = self._probes.get(key)
        if known is None or (look_again and not known.available):
            try:
                self._probes[key] = self._meters.create_from_spec(name, options, period_s=spec.period_s).probe()
            except TypeError as error:  # a factory's complaint about an unknown option, or one of a wrong type
                raise InvalidOptionError(
                    f"The options of the meter {name!r} do not fit: {error}.", meter=name
                ) from error
            except JouleBedError as error:
                if spec.name == name:
                    raise
                self._probes[key] = MeterProbe(False, error.message)
        return self._probes[key]

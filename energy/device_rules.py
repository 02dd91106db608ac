"""Validity rules on the devices: a sensor that repeats itself, clocks, throttling, company on the GPU."""

import numpy as np

from contract.trial_result import EnergyMethod, SuspectReason
from energy.evidence import Evidence, Rule
from energy.trace import FloatArray, Gauge

_STALE_SAMPLES = 25
_STALE_S = 2.0
"""A sensor that gives the same value for so many samples on end, and for so long, is not being refreshed. (25 samples
are 5 s at 200 ms; NVML's own values are up to 1 s old, so fast sampling needs the time as well.)"""

_COARSE_SOURCES = ("jetson", "tegrastats")
"""An INA3221 steps by 40 µV across its shunt: over 2 milliohms, 0.4 W of a 20 V rail. An idle one stands still."""

CLOCK_TOLERANCE_MHZ = 15.0
"""NVIDIA's clocks move in steps of 15 MHz (7.5 on some cards): one step off is rounding."""

TOLERATED_SHARE = 0.01
"""What holds in at most this share of the samples moves the energy by too little to doubt it."""

THROTTLE_REASONS = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "thermal (software)",
    0x040: "thermal (hardware)",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}
"""Bit -> reason, of NVML's `nvmlDeviceGetCurrentClocksEventReasons` (nvml.h, `nvmlClocksEventReason*`, the last two
from `nvmlClocksThrottleReason*`). Left out, since none of them is throttling: idle (0x1), clocks that were set by an
application or a user (0x2), a display's clock (0x100)."""


def sensor_is_stale(evidence: Evidence) -> list[SuspectReason]:
    """A processor's or GPU's reading that does not move through many samples is repeated, not read.

    For a power sensor the same watts, to the last digit; for a counter no energy at all, which no processor manages.
    An estimate has no sensor.
    """
    reasons = []
    for trace in evidence.traces:
        if trace.component not in ("cpu", "gpu") or trace.method is EnergyMethod.ESTIMATE:
            continue
        if trace.source in _COARSE_SOURCES:
            continue
        n_samples, length_s = _longest_standstill(*evidence.during_measure(trace))
        if n_samples >= _STALE_SAMPLES and length_s >= _STALE_S:
            what = "the same power" if trace.kind == "power" else "a counter that stands still"
            text = f"{trace.domain} ({trace.source}): {what} in {n_samples} samples on end, {length_s:.1f} s."
            reasons.append(SuspectReason(code="stale_sensor", message=text))
    return reasons


def _longest_standstill(time_s: FloatArray, values: FloatArray) -> tuple[int, float]:
    """Samples and seconds of the longest run of equal values."""
    if values.size < 2:
        return 0, 0.0
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values) != 0) + 1])
    ends = np.append(starts[1:], values.size) - 1
    longest = int(np.argmax(ends - starts))
    return int(ends[longest] - starts[longest]) + 1, float(time_s[ends[longest]] - time_s[starts[longest]])


def clock_is_not_held(evidence: Evidence) -> list[SuspectReason]:
    """A clock was to be held, and the samples say that it was not, or cannot say.

    Only samples while the device worked count, where its utilisation is known: an idle GPU drops its clock.
    """
    reasons = []
    for domain, expected_mhz in sorted(evidence.expected_clock_mhz.items()):
        clocks = [_while_working(evidence, gauge) for gauge in evidence.gauges_of("clock_mhz", domain)]
        known = [clock_mhz for clock_mhz in clocks if clock_mhz.size]
        if not known:
            text = f"{domain}: was to run at {expected_mhz:g} MHz, and no sample of its clock says whether it did."
            reasons.append(SuspectReason(code="clock_unverified", message=text))
        for clock_mhz in known:
            off = np.abs(clock_mhz - expected_mhz) > CLOCK_TOLERANCE_MHZ
            if off.mean() > TOLERATED_SHARE:
                text = (
                    f"{domain}: was to run at {expected_mhz:g} MHz, and did not in {off.mean():.1%} of the samples "
                    f"({clock_mhz.min():g} to {clock_mhz.max():g} MHz)."
                )
                reasons.append(SuspectReason(code="clock_not_held", message=text))
    return reasons


def _while_working(evidence: Evidence, clock: Gauge) -> FloatArray:
    """MHz in the measured phase, without the samples at which the device is known to have been idle."""
    time_s, clock_mhz = evidence.during_measure(clock)
    for gauge in evidence.gauges_of("utilisation", clock.domain)[:1]:
        # The reading that was nearest in time: two samplers do not read together.
        middles_s = (gauge.time_s[1:] + gauge.time_s[:-1]) / 2
        return clock_mhz[gauge.values[np.searchsorted(middles_s, time_s)] > 0]
    return clock_mhz


def device_was_throttled(evidence: Evidence) -> list[SuspectReason]:
    """The driver slowed a device down: it was measured at another speed than its setting says."""
    reasons = []
    for gauge in evidence.gauges_of("throttle_reasons"):
        masks = evidence.during_measure(gauge)[1].astype(np.int64)
        shares = {name: float(((masks & bit) != 0).mean()) for bit, name in THROTTLE_REASONS.items()}
        share = float(((masks & sum(THROTTLE_REASONS)) != 0).mean())
        if share > TOLERATED_SHARE:
            words = ", ".join(f"{name} in {part:.1%}" for name, part in shares.items() if part)
            text = f"{gauge.domain}: throttled in {share:.1%} of the samples: {words}."
            reasons.append(SuspectReason(code="throttled", message=text))
    return reasons


def gpu_is_shared(evidence: Evidence) -> list[SuspectReason]:
    """Another process was on the GPU: its energy is in the figure."""
    reasons = []
    for gauge in evidence.gauges_of("foreign_processes"):
        counts = evidence.during_measure(gauge)[1]
        if counts.max() > 0:
            share = float((counts > 0).mean())
            text = f"{gauge.domain}: up to {counts.max():.0f} other processes, in {share:.1%} of the samples."
            reasons.append(SuspectReason(code="gpu_shared", message=text))
    return reasons


DEVICE_RULES: tuple[Rule, ...] = (sensor_is_stale, clock_is_not_held, device_was_throttled, gpu_is_shared)
"""In the order of their reasons."""

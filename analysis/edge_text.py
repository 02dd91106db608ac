"""The power profile as text and CSV."""

import csv
import io
import re
from collections.abc import Sequence

from analysis.columns import DEVICE_COLUMNS
from analysis.edge_battery import ASSUMPTIONS, FORMULA, BatteryLife
from analysis.edge_profile import DOES_NOT_FIT, ENERGY, MAXIMA, MEANS, W_STAR, DeviceProfile, Point

RUN_COLUMNS = (
    "device",
    W_STAR,
    "repetition",
    "run_id",
    "state",
    "counted",
    "baseline_power_w",
    "mean_power_w",
    "mean_net_power_w",
    "energy_j",
    "energy_net_j",
    ENERGY,
    "energy_net_per_output_token_j",
    "energy_method",
    "energy_source",
    "start_temp_c",
    "max_temp_c",
    "temp_rise_c",
    "tokens_per_s",
    "duration_s",
    "n_requests",
    "n_output_tokens",
    "memory_peak_bytes",
    "gpu_memory_peak_bytes",
    "throttled_share",
    "is_steady",
    "steady_s",
    "reasons",
)
"""Of a device's CSV, one row per planned run; `python -m analysis columns` has their meaning."""

_LEAST_NET_SHARE = 0.05
"""Of gross power: what generates draws more than that above idle, unless something else kept the machine busy."""

_HEAD = ("Device", "w*", "Net Power", "Energy/Token", "Max Temp", "Tokens/s")


def profile_text(profiles: Sequence[DeviceProfile], lives: Sequence[tuple[DeviceProfile, BatteryLife]] = ()) -> str:
    """The table for people, with what must be known to read it.

    Args:
        profiles: of all devices.
        lives: battery life at each device's efficient w*; may be empty.
    """
    rows = [(profile.device, *_cells(point)) for profile in profiles for point in profile.points]
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(len(_HEAD))]
    lines = [_line(_HEAD, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    lines += [_line(row, widths) for row in rows]
    lines += ["", *_notes(profiles)]
    for profile in profiles:
        if profile.efficient is not None:
            best = profile.efficient
            lines += ["", f"{profile.device}: efficient w* = {best.point.w_star}{_word(profile)}. {best.reason}"]
    for profile, life in lives:
        lines += ["", *_battery_lines(profile, life)]
    return "\n".join(lines) + "\n"


def runs_csv(profile: DeviceProfile) -> str:
    """All planned runs of a device; an empty cell is "not measured"."""
    own = [name for name in DEVICE_COLUMNS if name in profile.runs.columns]
    text: str = profile.runs.select(*RUN_COLUMNS, *own, *(["energy_notes"] if own else [])).write_csv()
    return text


def summary_csv(profiles: Sequence[DeviceProfile]) -> str:
    """One row per device and w*: means with standard deviation and 95 % interval, and highest values."""
    out = io.StringIO()
    writer = csv.writer(out)
    spreads = [f"{name}{end}" for name in MEANS for end in ("", "_sd", "_ci95_half")]
    head = ["device", W_STAR, "n_planned", "n_counted", "n_steady", "energy_method", "is_efficient", *spreads, *MAXIMA]
    writer.writerow([*head, "problem"])
    for profile in profiles:
        for point in profile.points:
            means = [point.means[name] for name in MEANS]
            row: list[object] = [
                profile.device,
                point.w_star,
                point.n_planned,
                point.n_counted,
                point.n_steady,
                " + ".join(profile.methods) if point.n_counted else None,
                profile.efficient is not None and point is profile.efficient.point,
            ]
            row += [value for mean in means for value in (mean.mean, mean.sd, mean.half_width)]
            row += [*(point.maxima[name] for name in MAXIMA), point.problem]
            writer.writerow(["" if value is None else value for value in row])
    return out.getvalue()


def file_stem(device: str) -> str:
    """A device's name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", device).strip("_.")[:100] or "device"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cells[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
    ]
    return "  ".join(padded).rstrip()


def _cells(point: Point) -> tuple[str, ...]:
    if not point.n_counted:
        words = DOES_NOT_FIT if point.problem == DOES_NOT_FIT else "no result"
        return (str(point.w_star), words, "-", "-", "-")
    temp_c = point.maxima["max_temp_c"]
    return (
        str(point.w_star),
        _number(point.mean("mean_net_power_w"), "W"),
        _number(point.mean(ENERGY), "J"),
        "-" if temp_c is None else f"{temp_c:.1f} °C",
        _number(point.mean("tokens_per_s"), ""),
    )


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:#.4g} {unit}".rstrip(" .")


def _notes(profiles: Sequence[DeviceProfile]) -> list[str]:
    notes = [
        "Net Power: above the idle baseline that was taken before each point. Energy/Token: gross, baseline included. "
        "Means over the counted runs; Max Temp is the highest reading of all. -: not measured.",
    ]
    if any(profile.is_estimate for profile in profiles):
        names = ", ".join(profile.device for profile in profiles if profile.is_estimate)
        notes.append(f"ESTIMATE, not a measurement: power and energy of {names} are computed from busy core-seconds.")
    for profile in profiles:
        if profile.kind:
            notes.append(f"{profile.device}: {profile.kind}.")
        notes += _device_notes(profile)
        if profile.domains:
            notes.append(f"{profile.device}: the meter covers {'; '.join(profile.domains)}.")
        unsteady = [str(each.w_star) for each in profile.points if (each.n_steady or 0) < each.n_counted]
        if unsteady and any(each.n_steady is not None for each in profile.points):
            notes.append(
                f"{profile.device}: not every run was steady before it was measured at w* = {_join(unsteady)}."
            )
        busy = [str(each.w_star) for each in profile.points if _baseline_was_busy(each)]
        if busy:
            notes.append(
                f"{profile.device}: in the baseline about as much was drawn as in the measured phase at w* = "
                f"{_join(busy)}: other work ran on the machine, and net power says nothing there."
            )
        throttled = [str(each.w_star) for each in profile.points if (each.maxima["throttled_share"] or 0) > 0]
        if throttled:
            notes.append(f"{profile.device}: throttled at w* = {_join(throttled)}.")
        gone = [str(each.w_star) for each in profile.points if each.problem == DOES_NOT_FIT]
        if gone:
            notes.append(
                f"{profile.device}: does not fit into its memory at w* = {_join(gone)}: a result, not a crash."
            )
        for point in profile.points:
            if point.problem not in ("", DOES_NOT_FIT):
                notes.append(f"{profile.device}, w* = {point.w_star}: no result, {point.problem}")
            elif 0 < point.n_counted < point.n_planned:
                notes.append(f"{profile.device}, w* = {point.w_star}: {point.n_counted} of {point.n_planned} runs.")
    return notes


def _device_notes(profile: DeviceProfile) -> list[str]:
    """Of one of several devices: why it has no energy, and what it drew when it was done before the others."""
    if "tail_s" not in profile.runs.columns:
        return []
    rows = [row for row in profile.runs.rows(named=True) if row["duration_s"] is not None]
    missing = dict.fromkeys(row["energy_notes"] for row in rows if row["energy_j"] is None and row["energy_notes"])
    notes = [f"{profile.device}: no energy of its own, {text}." for text in missing]
    tails = [row for row in rows if (row["tail_s"] or 0.0) > 0]
    if tails:
        mean_s = sum(row["tail_s"] for row in tails) / len(tails)
        joules = [row["tail_energy_j"] for row in tails if row["tail_energy_j"] is not None]
        drew = f", in which it drew {sum(joules) / len(joules):.4g} J{_word(profile)}" if joules else ""
        notes.append(
            f"{profile.device}: done before the last device in {len(tails)} of {len(rows)} runs, by {mean_s:.3g} s on "
            f"average{drew}: in the energy of the whole, not in its own."
        )
    return notes


def _baseline_was_busy(point: Point) -> bool:
    net_w, gross_w = point.mean("mean_net_power_w"), point.mean("mean_power_w")
    return net_w is not None and gross_w is not None and net_w < _LEAST_NET_SHARE * gross_w


def _join(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _word(profile: DeviceProfile) -> str:
    return " (estimate)" if profile.is_estimate else ""


def _battery_lines(profile: DeviceProfile, life: BatteryLife) -> list[str]:
    w_star = profile.efficient.point.w_star if profile.efficient is not None else None
    return [
        f"Battery life of {profile.device} at w* = {w_star}{_word(profile)}: {life.hours:.4g} h, "
        f"{life.n_tokens:,.0f} tokens on one charge.",
        f"  {FORMULA}",
        f"  = {life.capacity_wh:g} / ({life.duty:g} x {life.active_power_w:.4g} + {1 - life.duty:g} x "
        f"{life.idle_power_w:.4g}) = {life.capacity_wh:g} Wh / {life.mean_power_w:.4g} W",
        *(f"  Assumed: {text}" for text in ASSUMPTIONS),
    ]

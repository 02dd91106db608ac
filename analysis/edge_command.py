"""What `python -m analysis edge` does: profile, files, battery life."""

from collections.abc import Sequence
from pathlib import Path

from analysis.edge_battery import BatteryLife, battery_life
from analysis.edge_profile import DeviceProfile, device_profiles
from analysis.edge_text import file_stem, profile_text, runs_csv, summary_csv
from analysis.load import load_runs
from contract.errors import UsageError


def edge_command(
    experiment: str,
    *,
    out: Path,
    battery_wh: float | None,
    duty: float,
    idle_power_w: float | None,
    include_suspect: bool,
) -> None:
    """Print the profile, and write it as text, CSV and figures.

    Args:
        experiment: of a length sweep.
        out: folder; files in it are replaced.
        battery_wh: capacity; None: no battery life.
        duty: share of the time spent generating.
        idle_power_w: in between; None: the measured baseline.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: there is nothing to report, or it cannot be written.
    """
    from analysis.figures.edge import FIGURES, edge_figure
    from analysis.figures.style import save_figure

    profiles = device_profiles(load_runs(experiment), include_suspect=include_suspect)
    lives = [] if battery_wh is None else _lives(profiles, battery_wh, duty, idle_power_w)
    text = profile_text(profiles, lives)
    print(text, end="")
    files = {"profile.txt": text, "summary.csv": summary_csv(profiles)}
    stems = [file_stem(profile.device) for profile in profiles]
    for i, profile in enumerate(profiles):
        stem = stems[i] if stems.count(stems[i]) == 1 else f"{stems[i]}-{i}"
        files[f"device_{stem}.csv"] = runs_csv(profile)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}. Give another folder with --out.") from error
    missing = []
    for name in FIGURES:
        try:
            save_figure(edge_figure(profiles, name), out / name)
        except UsageError as error:
            missing.append(error.message)
    print(f"\nWritten to {out}: {', '.join(files)}, and figures. {' '.join(missing)}".rstrip())


def _lives(
    profiles: Sequence[DeviceProfile], battery_wh: float, duty: float, idle_power_w: float | None
) -> list[tuple[DeviceProfile, BatteryLife]]:
    lives = []
    for profile in profiles:
        if profile.efficient is None:
            continue
        point = profile.efficient.point
        active_w, speed = point.mean("mean_power_w"), point.mean("tokens_per_s")
        idle_w = idle_power_w if idle_power_w is not None else point.mean("baseline_power_w")
        if active_w is None or speed is None or idle_w is None:
            raise UsageError(
                f"{profile.device} has no idle power: its trials have no baseline. Give one with --idle-power-w, or "
                "set baseline_s."
            )
        lives.append((profile, battery_life(battery_wh, duty, active_w, idle_w, speed)))
    if not lives:
        raise UsageError("No device has a point with an energy: there is no battery life to tell.")
    return lives

"""What `python -m control profile` does: read, flag, write, tell."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contract.errors import UsageError
from control.device_model import outlier_text
from control.profile_import import Imported, import_table, profile_of_results
from control.profile_table import ESTIMATE, Profile, write_profile


def profile_command(
    experiment: Path | None,
    *,
    table: Path | None,
    out: Path,
    n_input_tokens: int | None,
    n_output_tokens: int | None,
    clock_mhz: float | None,
    include_suspect: bool,
    total_power: bool,
    as_json: bool,
) -> None:
    """Write the profile, and print what is in it and what is not.

    Args:
        experiment: folder of results; or
        table: a shared table.
        out: CSV.
        n_input_tokens: of a shared table.
        n_output_tokens: the same.
        clock_mhz: of results that did not set it.
        include_suspect: of results.
        total_power: the same.
        as_json: print JSON.

    Raises:
        UsageError: both or neither is given, or it cannot be written.
        ProfileError: what is read is no profile.
    """
    if (experiment is None) == (table is None):
        raise UsageError("Give the folder of an experiment, or a shared table with --import; one of the two.")
    if table is not None:
        imported = import_table(table, n_input_tokens=n_input_tokens, n_output_tokens=n_output_tokens)
    else:
        assert experiment is not None
        imported = profile_of_results(
            experiment, include_suspect=include_suspect, clock_mhz=clock_mhz, total_power=total_power
        )
    write_profile(imported.profile, out)
    if as_json:
        print(json.dumps(_told(imported, out), indent=1, ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(imported.profile))
    _print_list(console, "Flagged, and left out of every fit", [outlier_text(each) for each in imported.outliers])
    _print_list(console, "Not measured", imported.profile.holes)
    _print_list(console, "Runs that are in no cell", imported.left_out)
    console.print(f"Written to {out}: {len(imported.profile.cells)} cells. Next: python -m control fit {out}")


def _table(profile: Profile) -> Table:
    word = f" ({ESTIMATE})" if profile.is_estimate else ""
    shown = Table(title=profile.source, title_justify="left")
    for name in ("tokens in/out", "clocks (MHz)", "batch sizes", "cells", "runs", "latency (s)", f"power (W){word}"):
        shown.add_column(name)
    for pair in profile.pairs:
        cells = profile.of_lengths(pair)
        clocks = sorted({cell.clock_mhz for cell in cells if cell.clock_mhz is not None})
        batches = sorted({cell.batch_size for cell in cells})
        latency, power = [cell.latency_s for cell in cells], [cell.power_w for cell in cells]
        shown.add_row(
            "not known" if pair == (None, None) else f"{pair[0] or '?'}/{pair[1] or '?'}",
            f"{len(clocks)}: {clocks[0]:g} to {clocks[-1]:g}" if clocks else "not known",
            ", ".join(map(str, batches)) if len(batches) <= 12 else f"{len(batches)}: {batches[0]} to {batches[-1]}",
            str(len(cells)),
            str(sum(cell.n_repetitions for cell in cells)),
            f"{min(latency):.3g} to {max(latency):.3g}",
            f"{min(power):.4g} to {max(power):.4g}",
        )
    return shown


def _print_list(console: Console, title: str, lines: "tuple[str, ...] | list[str]") -> None:
    if lines:
        console.print(f"\n{title}: {len(lines)}")
        for line in lines:
            console.print(f"  {line}", markup=False)


def _told(imported: Imported, out: Path) -> dict[str, object]:
    profile = imported.profile
    return {
        "out": str(out),
        "source": profile.source,
        "sha256": profile.sha256,
        "is_estimate": profile.is_estimate,
        "n_cells": len(profile.cells),
        "n_runs": sum(cell.n_repetitions for cell in profile.cells),
        "lengths": [list(pair) for pair in profile.pairs],
        "holes": list(profile.holes),
        "outliers": [each.model_dump(mode="json") for each in imported.outliers],
        "left_out": list(imported.left_out),
    }

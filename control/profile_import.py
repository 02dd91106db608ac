"""Profiles from files: our own results, our own profile CSVs, and tables that others share.

Of our own results the exported run table is read (`orchestrator export`, which `orchestrator run` writes as well): it
has a row for each planned run, so that cells that were never measured are named.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from control.device_model import Outlier
from control.fit import find_outliers
from control.profile_table import (
    COLUMNS,
    Profile,
    ProfileCell,
    ProfileError,
    cell_name,
    make_profile,
    named,
    number,
    read_rows,
    whole,
)

RUN_TABLE = "run_table.csv"

CLOCK, BATCH, INPUT, OUTPUT = "clock_mhz", "batch", "input_len", "output_len"
"""Factors of `runnerconfig/dvfs_profile.py`."""

_SHARED = frozenset({"gpu_frequency_mhz", "batch_size", "latency_s", "power_w"})
_SHARED_EXTRA = frozenset({"input_len", "output_len", "votes_lat", "votes_pow"})


@dataclass(frozen=True)
class Imported:
    """A profile and what there is to say about it.

    Attributes:
        profile: with flags.
        outliers: flagged cells, as lengths and outlier.
        left_out: runs that are in no cell, with the reason.
    """

    profile: Profile
    outliers: tuple[Outlier, ...] = ()
    left_out: tuple[str, ...] = ()


def import_table(
    path: Path,
    *,
    n_input_tokens: int | None = None,
    n_output_tokens: int | None = None,
    finds_outliers: bool = True,
) -> Imported:
    """Read a shared table, or a profile CSV; cells whose answers ended early are flagged, with names and reasons.

    Shared tables have the columns gpu_frequency_mhz, batch_size, latency_s, power_w, and may have input_len and
    output_len, or votes_lat and votes_pow (how many trees of a regressor agree on a recovered row).

    Args:
        path: of the CSV.
        n_input_tokens: only this length; of a table without lengths: what it is.
        n_output_tokens: the same.
        finds_outliers: False: leave that to the fit, which does it as well.

    Raises:
        ProfileError: it cannot be read, has other columns, or a row says what cannot be; row and column are named.
    """
    rows, sha256 = read_rows(path)
    columns = set(rows[0])
    if columns == set(COLUMNS):
        cells = [_own_cell(path, i, row) for i, row in enumerate(rows, start=2)]
    elif columns >= _SHARED and columns <= _SHARED | _SHARED_EXTRA:
        cells = [_shared_cell(path, i, row) for i, row in enumerate(rows, start=2)]
        if "input_len" not in columns:
            cells = [replace(cell, n_input_tokens=n_input_tokens, n_output_tokens=n_output_tokens) for cell in cells]
    else:
        odd = sorted(columns - _SHARED - _SHARED_EXTRA) or sorted(_SHARED - columns)
        raise ProfileError(
            f"{path} is no profile: the column {odd[0]!r} is {'unknown' if odd[0] in columns else 'missing'}. A "
            f"shared table has {', '.join(sorted(_SHARED))}, and may have {', '.join(sorted(_SHARED_EXTRA))}; a "
            f"profile of ours has {', '.join(COLUMNS)}."
        )
    kept = [
        cell
        for cell in cells
        if n_input_tokens in (None, cell.n_input_tokens) and n_output_tokens in (None, cell.n_output_tokens)
    ]
    if not kept:
        known = ", ".join(dict.fromkeys(f"{cell.n_input_tokens}/{cell.n_output_tokens}" for cell in cells))
        raise ProfileError(
            f"{path} has no rows of {n_input_tokens or 'any'} tokens in and {n_output_tokens or 'any'} out. It has "
            f"{known}: choose with --input-len and --output-len."
        )
    profile = make_profile(kept, path.name, sha256=sha256)
    return _flagged(profile) if finds_outliers else Imported(profile)


def profile_of_results(
    folder: Path, *, include_suspect: bool = False, clock_mhz: float | None = None, total_power: bool = False
) -> Imported:
    """Read the results of an experiment with the factor `batch` (and `clock_mhz`, `input_len`, `output_len`).

    A run's latency is the measured phase over the batches in it, and its power is energy over the same time, of the
    GPU where every counted run has it. Repetitions of a cell become their mean.

    Args:
        folder: results/EXPERIMENT.
        include_suspect: also count results that are doubted.
        clock_mhz: what the clock was, where it was not set.
        total_power: of all measured domains, also where the GPU's is known.

    Raises:
        ProfileError: there is no run table, it has no such factors, nothing in it counts, or a run generated another
            number of tokens than its cell says.
    """
    path = folder / RUN_TABLE
    if not path.is_file():
        raise ProfileError(
            f"{path} is not there. Give the folder of an experiment (runnerconfig/dvfs_profile.py makes one), and "
            f"write its table first: orchestrator export {folder}"
        )
    rows, _ = read_rows(path)
    if BATCH not in rows[0] or OUTPUT not in rows[0]:
        raise ProfileError(
            f"{path} has no factors {BATCH} and {OUTPUT}: it is no profile. Start from runnerconfig/dvfs_profile.py."
        )
    counted, left_out = [], []
    for i, row in enumerate(rows, start=2):
        state = row["state"].strip()
        if state == "DONE" or (state == "SUSPECT" and include_suspect):
            counted.append((i, row))
        else:
            left_out.append(f"{row['__run_id']}: {state or 'not run yet'}. {row['reasons'].strip()}".rstrip(". "))
    if not counted:
        raise ProfileError(
            f"No run of {path} counts: {named(left_out)}. Run them, or count doubted results: --include-suspect."
        )
    domain = "total" if total_power or any(not row["gpu_energy_j"].strip() for _, row in counted) else "gpu"
    cells = [_run_cell(path, i, row, domain, clock_mhz) for i, row in counted]
    planned = [_planned_cell(path, i, row, clock_mhz) for i, row in enumerate(rows, start=2)]
    known = {str(cell) for cell in cells}
    profile = make_profile(
        cells, f"results of {folder.absolute().name}", holes=[cell for cell in planned if cell not in known]
    )
    return replace(_flagged(profile), left_out=tuple(left_out))


def _flagged(profile: Profile) -> Imported:
    """Flags of cells that all others speak against; those that a file brings along are kept."""
    cells, found = list(profile.cells), []
    for pair in profile.pairs:
        own = profile.of_lengths(pair)
        if any(cell.clock_mhz is None for cell in own):
            continue
        for outlier in find_outliers(own):
            found.append(outlier)
            for i, cell in enumerate(cells):
                if cell.lengths == pair and (cell.clock_mhz, cell.batch_size) == (
                    outlier.clock_mhz,
                    outlier.batch_size,
                ):
                    new = cell.flag.split("; ") if cell.flag else []
                    flag = "; ".join(dict.fromkeys([*new, outlier.reason]))
                    cells[i] = replace(cell, flag=flag)
    return Imported(replace(profile, cells=tuple(cells)), tuple(found))


def _own_cell(path: Path, i: int, row: Mapping[str, str]) -> ProfileCell:
    def optional(column: str) -> int | None:
        return whole(path, i, column, row[column]) if row[column] else None

    return ProfileCell(
        clock_mhz=number(path, i, "clock_mhz", row["clock_mhz"]) if row["clock_mhz"] else None,
        batch_size=whole(path, i, "batch_size", row["batch_size"]),
        n_input_tokens=optional("input_len"),
        n_output_tokens=optional("output_len"),
        latency_s=number(path, i, "latency_s", row["latency_s"]),
        power_w=number(path, i, "power_w", row["power_w"]),
        n_repetitions=whole(path, i, "n_repetitions", row["n_repetitions"]),
        method=row["method"],
        domain=row["domain"],
        flag=row["flag"],
    )


def _shared_cell(path: Path, i: int, row: Mapping[str, str]) -> ProfileCell:
    has_lengths = "input_len" in row and "output_len" in row
    return ProfileCell(
        clock_mhz=number(path, i, "gpu_frequency_mhz", row["gpu_frequency_mhz"]),
        batch_size=whole(path, i, "batch_size", row["batch_size"]),
        n_input_tokens=whole(path, i, "input_len", row["input_len"]) if has_lengths else None,
        n_output_tokens=whole(path, i, "output_len", row["output_len"]) if has_lengths else None,
        latency_s=number(path, i, "latency_s", row["latency_s"]),
        power_w=number(path, i, "power_w", row["power_w"]),
    )


def _run_cell(path: Path, i: int, row: Mapping[str, str], domain: str, clock_mhz: float | None) -> ProfileCell:
    energy = "energy_j" if domain == "total" else "gpu_energy_j"
    for column in (energy, "duration_s", "n_output_tokens"):
        if not row[column].strip():
            raise ProfileError(
                f"{path}, row {i} ({row['__run_id']}): {column} was not measured. Measure the run again with a meter "
                "that tells it (orchestrator doctor), or retry it: orchestrator retry."
            )
    batch, n_input, n_output, clock_mhz = _levels(path, i, row, clock_mhz)
    n_tokens = whole(path, i, "n_output_tokens", row["n_output_tokens"])
    n_batches = n_tokens / (batch * n_output)
    name = cell_name(clock_mhz, batch, (n_input, n_output))
    if n_batches < 1 or n_batches != math.floor(n_batches):
        raise ProfileError(
            f"{path}, row {i} ({row['__run_id']}; {name}): {n_tokens} tokens are no whole number of batches of "
            f"{batch} x {n_output}: answers ended early. Ignore the end of sequence, as runnerconfig/dvfs_profile.py "
            "does."
        )
    n_prompt = row["n_prompt_tokens"].strip()
    if n_input is not None and n_prompt and whole(path, i, "n_prompt_tokens", n_prompt) != n_input * batch * n_batches:
        raise ProfileError(
            f"{path}, row {i} ({row['__run_id']}; {name}): its prompts have {n_prompt} tokens, and {n_batches:g} "
            f"batches of {batch} x {n_input} would have {n_input * batch * n_batches:g}. Pad them: input_len is exact."
        )
    duration_s = number(path, i, "duration_s", row["duration_s"])
    return ProfileCell(
        clock_mhz=clock_mhz,
        batch_size=batch,
        n_input_tokens=n_input,
        n_output_tokens=n_output,
        latency_s=duration_s / n_batches,
        power_w=number(path, i, energy, row[energy]) / duration_s if duration_s else math.nan,
        method=row["energy_method"],
        domain=domain,
    )


def _planned_cell(path: Path, i: int, row: Mapping[str, str], clock_mhz: float | None) -> str:
    batch, n_input, n_output, clock_mhz = _levels(path, i, row, clock_mhz)
    return cell_name(clock_mhz, batch, (n_input, n_output))


def _levels(
    path: Path, i: int, row: Mapping[str, str], clock_mhz: float | None
) -> tuple[int, int | None, int, float | None]:
    """Batch, tokens in, tokens out, clock of a run."""
    return (
        whole(path, i, BATCH, row[BATCH]),
        whole(path, i, INPUT, row[INPUT]) if INPUT in row else None,
        whole(path, i, OUTPUT, row[OUTPUT]),
        number(path, i, CLOCK, row[CLOCK]) if CLOCK in row else clock_mhz,
    )

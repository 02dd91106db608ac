"""What `python -m control fit` does: fit, judge by held-out cells, write, tell."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contract.errors import UsageError
from control.device_model import QUANTITIES, DeviceModel, DeviceModelError, LengthModel, outlier_text
from control.fit import STEPS_PER_QUANTITY, fit_device_model
from control.profile_import import import_table
from control.profile_table import ESTIMATE, Profile


def fit_command(
    profile: Path,
    *,
    out: Path,
    table: Path | None,
    figures: Path | None,
    compare: Path | None,
    n_input_tokens: int | None,
    n_output_tokens: int | None,
    seed: int,
    fills_holes: bool,
    is_clock_left_alone: bool,
    as_json: bool,
) -> None:
    """Write the model, and print the errors on cells that were held out.

    Args:
        profile: CSV of ours, or a shared table.
        out: JSON.
        table: CSV with every batch size; None: none.
        figures: folder; None: none.
        compare: another table; None: none.
        n_input_tokens: which lengths.
        n_output_tokens: the same.
        seed: of the folds.
        fills_holes: whether the model may tell cells that were not measured.
        is_clock_left_alone: the table shall have one clock.
        as_json: print JSON.

    Raises:
        ProfileError: a file is no profile.
        DeviceModelError: it cannot be fitted, or no table can be made of it.
        UsageError: a file cannot be written.
    """
    imported = import_table(
        profile, n_input_tokens=n_input_tokens, n_output_tokens=n_output_tokens, finds_outliers=False
    )
    model = _fit(imported.profile, seed, fills_holes)
    other = None
    if compare is not None:
        other = import_table(
            compare, n_input_tokens=n_input_tokens, n_output_tokens=n_output_tokens, finds_outliers=False
        ).profile
    compared = [] if other is None else [row for each in model.lengths for row in _compare(each, other)]
    model.write(out)
    written = [str(out)]
    if table is not None:
        chosen = model.of_lengths(n_input_tokens, n_output_tokens)
        made = chosen.service_table(f"{out.name}: fitted to {model.source}", is_clock_left_alone=is_clock_left_alone)
        try:
            table.parent.mkdir(parents=True, exist_ok=True)
            made.write(table)
        except OSError as error:
            raise UsageError(f"{table} cannot be written ({error.strerror}). Give another file: --table.") from error
        written.append(str(table))
    if figures is not None:
        from control.fit_figure import write_figures

        written += [str(path) for path in write_figures(model, imported.profile, figures)]
    if as_json:
        told = {"written": written, "compared": compared, **model.model_dump(mode="json")}
        print(json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False))
        return
    _print(model, compared, compare, written)


def _fit(profile: Profile, seed: int, fills_holes: bool) -> DeviceModel:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    n_steps = len(profile.pairs) * len(QUANTITIES) * STEPS_PER_QUANTITY
    with bar:
        task = bar.add_task("outliers", total=n_steps)
        return fit_device_model(
            profile,
            seed=seed,
            fills_holes=fills_holes,
            progress=lambda step: bar.update(task, advance=1, description=step),
        )


def _compare(lengths: LengthModel, other: Profile) -> list[dict[str, object]]:
    """How far the model is from another table, on the cells of that which are within the model."""
    # A table that does not tell its lengths is compared with all.
    cells = [
        replace(cell, n_input_tokens=lengths.n_input_tokens, n_output_tokens=lengths.n_output_tokens)
        for cell in other.cells
        if None in (cell.n_input_tokens, lengths.n_input_tokens) or cell.lengths == lengths.lengths
    ]
    known = [cell for cell in cells if cell.clock_mhz is not None and cell.batch_size in lengths.batch_sizes]
    known = [cell for cell in known if lengths.clock_mhz[0] <= (cell.clock_mhz or 0) <= lengths.clock_mhz[-1]]
    if not known:
        raise DeviceModelError(f"{other.source} has no cell within the model: there is nothing to compare.")
    told: list[dict[str, object]] = []
    for name in QUANTITIES:
        errors = np.array(
            [lengths.predict(name, cell.clock_mhz or 0, cell.batch_size) / getattr(cell, name) - 1 for cell in known]
        )
        told.append(
            {
                "quantity": name,
                "n_input_tokens": lengths.n_input_tokens,
                "n_output_tokens": lengths.n_output_tokens,
                "n_cells": len(known),
                "mape": float(np.abs(errors).mean()),
                "mean_error": float(errors.mean()),
                "largest": float(np.abs(errors).max()),
            }
        )
    return told


def _print(model: DeviceModel, compared: list[dict[str, object]], compare: Path | None, written: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    word = f"; power is an {ESTIMATE}" if model.is_estimate else ""
    shown = Table(title=f"{model.source}: errors on cells that were held out{word}", title_justify="left")
    for column in ("tokens", "quantity", "MAPE", "90 %", "largest", "new batch", "new clock"):
        shown.add_column(column, no_wrap=True)
    ways = []
    for lengths in model.lengths:
        pair = "" if lengths.lengths == (None, None) else f"{lengths.n_input_tokens}/{lengths.n_output_tokens}"
        for name in QUANTITIES:
            quantity, held = lengths.quantity(name), lengths.quantity(name).held_out
            shown.add_row(
                pair or "-",
                name,
                *(f"{each:.2%}" for each in (held.mape, held.p90, held.largest)),
                *("-" if each is None else f"{each:.2%}" for each in (held.mape_unseen_batch, held.mape_unseen_clock)),
            )
            others = ", ".join(f"{way} {error:.2%}" for way, error in held.mape_by_way.items() if way != quantity.way)
            ways.append(f"{pair} {name}: {held.n_cells} cells, {quantity.way}. MAPE of the others: {others}.".lstrip())
            if held.mape_with_outliers != held.mape:
                ways[-1] += f" With the cells that were left out, it is {held.mape_with_outliers:.2%}."
    console.print(shown)
    console.print(
        "MAPE: mean absolute error as a share of what was measured. New batch, new clock: whole levels were held out."
    )
    for way in ways:
        console.print(f"  {way}", markup=False)
    for lengths in model.lengths:
        pair = "" if lengths.lengths == (None, None) else f"{lengths.n_input_tokens}/{lengths.n_output_tokens} tokens: "
        for outlier in lengths.outliers:
            console.print(f"  left out: {pair}{outlier_text(outlier)}", markup=False)
        for limitation in lengths.limitations:
            console.print(f"  note: {pair}{limitation}", markup=False)
    for row in compared:
        console.print(
            f"  against {compare}, {row['n_cells']} cells: {row['quantity']} differs by {row['mape']:.2%} on average "
            f"({row['mean_error']:+.2%} with its sign), {row['largest']:.2%} at most",
            markup=False,
        )
    console.print(f"Written: {', '.join(written)}", markup=False)

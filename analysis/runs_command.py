"""What `python -m analysis runs` and `columns` do."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.columns import TABLES
from analysis.experiment import Experiment
from analysis.export import describe_columns, export_frame
from analysis.label_score import has_labels, with_accuracy
from analysis.load import load_runs
from analysis.metrics import with_carbon, with_cost, with_metrics
from analysis.phases import energy_by_phase
from contract.attempt_state import RunState

if TYPE_CHECKING:
    import polars as pl

# The method first: where room ends, no estimate may stand without the word.
_SHOWN = (
    "energy_method",
    "energy_j",
    "duration_s",
    "tokens_per_s",
    "n_output_tokens",
    "start_temp_c",
    "accuracy",
    "mean_exit_layer",
    "mean_entropy_nats",
)
_SHOWN_METRICS = ("mean_power_w", "energy_per_output_token_j", "energy_per_correct_j", "edp_js")
_SHOWN_BY_ARGUMENT = ("cost", "carbon_g")
_MIN_HEADING = 9
_GAP = 3


def load_scored(path_or_url: str, prompts: Path | None = None) -> Experiment:
    """`load_runs`, with accuracy where gold labels are at hand.

    Args:
        path_or_url: see `load_runs`.
        prompts: folder with gold labels, of Experiment Runner; None: that of the experiment, where it has one.

    Raises:
        UsageError: there is no experiment, or no labels in `prompts`.
    """
    experiment = load_runs(path_or_url)
    return with_accuracy(experiment, prompts) if prompts is not None or has_labels(experiment) else experiment


def runs_command(
    path_or_url: str,
    *,
    as_json: bool,
    parquet: Path | None,
    csv: Path | None,
    metrics: bool,
    phases: bool,
    prompts: Path | None,
    price_per_kwh: float | None,
    currency: str,
    grid_g_per_kwh: float | None,
) -> None:
    """Show or export the frame of runs, or of their phases.

    Args:
        path_or_url: see `load_runs`.
        as_json: print everything, for programs.
        parquet: file to write.
        csv: file to write.
        metrics: with derived figures.
        phases: energy by phase and domain instead of runs.
        prompts: folder with gold labels, of Experiment Runner.
        price_per_kwh: adds the cost.
        currency: of the price.
        grid_g_per_kwh: adds the carbon.

    Raises:
        UsageError: there is nothing to show, or it cannot be written.
    """
    experiment = load_scored(path_or_url, prompts)
    frame = experiment.runs if not phases else energy_by_phase(experiment)
    if not phases:
        frame = with_metrics(frame) if metrics else frame
        frame = with_cost(frame, price_per_kwh, currency) if price_per_kwh is not None else frame
        frame = with_carbon(frame, grid_g_per_kwh) if grid_g_per_kwh is not None else frame
    table = "phases" if phases else "runs"
    for path in (parquet, csv):
        if path is not None:
            export_frame(frame, path, factors=experiment.factors, table=table)
    if as_json:
        print(json.dumps(_document(experiment, frame, table), indent=1, ensure_ascii=False, allow_nan=False))
    elif parquet is not None or csv is not None:
        print("\n".join(str(path) for path in (parquet, csv) if path is not None))
    else:
        _print(experiment, frame, phases=phases)


def columns_command(*, as_json: bool) -> None:
    """Print name, unit and meaning of every column of every frame."""
    described = {table: describe_columns(list(columns), (), table) for table, columns in TABLES.items()}
    if as_json:
        print(json.dumps(described, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for table, columns in described.items():
        shown = Table("column", "unit", "meaning", box=box.SIMPLE_HEAD, title=table, title_justify="left")
        for column in columns:
            shown.add_row(column["name"], column["unit"], column["doc"])
        console.print(shown)


def _document(experiment: Experiment, frame: "pl.DataFrame", table: str) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "source": experiment.source,
        "kind": experiment.kind,
        "factors": list(experiment.factors),
        "notes": list(experiment.notes),
        "excluded": [vars(each) for each in experiment.excluded],
        "columns": describe_columns(frame.columns, experiment.factors, table),
        "rows": frame.to_dicts(),
    }


def _print(experiment: Experiment, frame: "pl.DataFrame", *, phases: bool) -> None:
    console = Console(highlight=False)
    if phases:
        names = [name for name in frame.columns if name not in ("n_gaps", "n_wraps", "source")]
        rows = frame
    else:
        wanted = (*_SHOWN, *_SHOWN_METRICS, *_SHOWN_BY_ARGUMENT)
        # A column without a figure only takes room.
        measured = [name for name in wanted if name in frame.columns and frame[name].null_count() < frame.height]
        rows = frame.filter(frame["attempt_id"].is_not_null())
        state = [] if (rows["state"] == RunState.DONE.value).all() else ["state"]
        names = ["run_id", *experiment.factors, *state, *measured]
    cells = {name: [_cell(cell) for cell in rows[name]] for name in names}
    shown = _fitting(cells, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        is_number = rows[name].dtype.is_numeric()
        table.add_column(_heading(name, cells[name]), justify="right" if is_number else "left", no_wrap=True)
    for row in zip(*(cells[name] for name in shown), strict=True):
        table.add_row(*row)
    console.print(table)
    if len(shown) < len(names):
        left = ", ".join(name for name in names if name not in shown)
        console.print(f"Too narrow for: {left}. Everything is in --json, --csv and --parquet.")
    n_counted = int(experiment.runs["counted"].sum())
    console.print(f"{experiment.name}: {n_counted} of {experiment.runs.height} runs are counted.")
    whys: dict[str, list[str]] = {}
    for each in experiment.excluded:
        whys.setdefault(each.why, []).append(each.run_id)
    for why, run_ids in sorted(whys.items(), key=lambda item: -len(item[1])):
        more = "" if len(run_ids) <= 3 else f" and {len(run_ids) - 3} more"
        console.print(f"Not counted: {', '.join(run_ids[:3])}{more}: {why.rstrip('.')}.")
    for note in experiment.notes:
        console.print(note)


def _fitting(cells: dict[str, list[str]], width: int) -> list[str]:
    """As many columns as have room, from the left; the first at least."""
    shown: list[str] = []
    for name, column in cells.items():
        width -= max(len(text) for text in (*_heading(name, column).split("\n"), *column)) + _GAP
        if width < 0 and shown:
            break
        shown.append(name)
    return shown


def _heading(name: str, column: list[str]) -> str:
    """The name, broken at its underscores to be hardly wider than the column."""
    room = max([_MIN_HEADING, *(len(text) for text in column)])
    lines = textwrap.wrap(name.replace("_", "_ "), room, break_long_words=False)
    return "\n".join(line.replace("_ ", "_") for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.5g}" if isinstance(value, float) else str(value)

"""What `python -m analysis edge-control` does: table, files, figures."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from analysis.edge_control import FIGURES, EdgeRow, edge_rows, worst_violation_s
from analysis.edge_control_text import edge_control_csv, edge_control_text
from analysis.experiment import Experiment
from analysis.load import load_runs
from contract.errors import UsageError

_BATCHES = "edge_batches.csv"


def edge_control_command(experiment: str, *, out: Path, as_json: bool, include_suspect: bool) -> None:
    """Print the table, and write it as text and CSV, with a figure of a run of each treatment.

    Args:
        experiment: of edge control.
        out: folder; files in it are replaced.
        as_json: print JSON, and write nothing.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: there is nothing to report, or it cannot be written.
    """
    loaded = load_runs(experiment)
    rows = edge_rows(loaded, include_suspect=include_suspect)
    if as_json:
        print(json.dumps([_json(row) for row in rows], indent=1, ensure_ascii=False, allow_nan=False))
        return
    from analysis.figures.edge_control import overview_figure, runs_figure
    from analysis.figures.style import save_figure

    text = edge_control_text(rows)
    print(text, end="")
    files = {"edge_control.txt": text, "edge_control.csv": edge_control_csv(rows)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}. Give another folder with --out.") from error
    save_figure(overview_figure(rows), out / "overview")
    runs = _first_runs(loaded, rows)
    if runs:
        save_figure(runs_figure(runs), out / "runs")
    told = "" if runs else " The batches of the runs are not beside the table: there is no figure of them."
    print(f"\nWritten to {out}: {', '.join(files)}, and figures.{told}")


def _first_runs(experiment: Experiment, rows: Sequence[EdgeRow]) -> dict[str, list[dict[str, str]]]:
    """Treatment -> the batches of its first run, where they are on the disk."""
    attempts = dict(zip(experiment.runs["run_id"].to_list(), experiment.runs["attempt_id"].to_list(), strict=True))
    found = {}
    for row in rows:
        for run_id in row.reports:
            path = (experiment.folder or Path()) / "runs" / run_id / str(attempts[run_id]) / _BATCHES
            if path.is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    found[row.name] = list(csv.DictReader(file))
                break
    return found


def _json(row: EdgeRow) -> dict[str, object]:
    return {
        "treatment": dict(row.levels),
        "n_planned": row.n_planned,
        "n_runs": len(row.reports),
        "is_simulated": row.is_simulated,
        "problem": row.problem or None,
        "figures": {name: vars(row.means[name]) for name in FIGURES},
        "worst_violation_s": worst_violation_s(row),
    }

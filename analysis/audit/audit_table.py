"""The audit on a terminal: findings first, then the runs."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.audit.audit import Audit
from analysis.audit.run_audit import Energy, RunAudit

_FEW = 60
_ABSENT = "–"


def print_audit(audit: Audit, console: Console, *, all_runs: bool = False) -> None:
    """Print the findings and a table of runs.

    Args:
        audit: what to print.
        console: where.
        all_runs: all, however many; otherwise only the runs that something is said of, where there are many.
    """
    n_read = sum(run.whole is not None for run in audit.runs)
    console.print(Text(f"{audit.folder}: {n_read} of {len(audit.runs)} runs read", style="bold"), soft_wrap=True)
    console.print()
    for finding in audit.findings:
        console.print(Text("- ") + Text(finding), soft_wrap=False)
    if not audit.findings:
        console.print("Nothing wrong was found.")
    console.print()
    runs = audit.runs
    if len(runs) > _FEW and not all_runs:
        runs = tuple(run for run in runs if run.problem or run.warnings or run.n_wraps or run.n_gaps)
    if runs:
        console.print(_table(runs))
    if len(runs) < len(audit.runs):
        console.print(f"{len(audit.runs) - len(runs)} more runs without a remark: --all-runs or --json shows them.")
    console.print(
        "CPU, GPU and total are joules of the prompts alone (of the whole log where the prompts are not known), whole "
        "those of the whole log, before those from the first sample to the first prompt, after those from the last "
        "prompt to the last sample; °C is the GPU's at the first sample. Each domain counts once."
    )


def _table(runs: tuple[RunAudit, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("Run", no_wrap=True)
    for name in ("CPU J", "GPU J", "Total J", "Whole J", "Before", "After", "°C"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Remarks", overflow="fold", min_width=8)
    for run in runs:
        measured = run.measured
        table.add_row(
            run.run_id.replace("_repetition_", " rep "),
            *(_joules(measured, name) for name in ("cpu_j", "gpu_j", "total_j")),
            _joules(run.whole, "total_j"),
            _joules(run.before, "total_j"),
            _joules(run.after, "total_j"),
            _ABSENT if run.start_temp_c is None else f"{run.start_temp_c:.0f}",
            _remarks(run),
        )
    return table


def _joules(energy: Energy | None, name: str) -> str:
    value = getattr(energy, name) if energy else None
    return _ABSENT if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _remarks(run: RunAudit) -> str:
    words = [run.problem] if run.problem else []
    if run.n_wraps:
        words.append(f"{run.n_wraps} wrap{'s' if run.n_wraps > 1 else ''}")
    if run.n_duplicates > 1:
        words.append(f"{run.n_duplicates} duplicate rows")
    if run.n_gaps:
        words.append(f"{run.n_gaps} gaps")
    return "; ".join([*words, *run.warnings])

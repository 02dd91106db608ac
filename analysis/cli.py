"""The command line of the analysis."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from contract.errors import JouleBedError

app = typer.Typer(
    help="From finished runs to tables and figures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """From finished runs to tables and figures."""


@app.command()
def summary(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment, such as results/quickstart.")],
    as_json: Annotated[bool, typer.Option("--json", help="Full precision, for programs.")] = False,
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Count results that are doubted as well.")
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Factor that makes the rows, the others are averaged over; may be repeated."),
    ] = None,
) -> None:
    """Energy, speed and accuracy by treatment."""
    from analysis.load import load_experiment
    from analysis.summary import summarise, to_json

    result = summarise(load_experiment(experiment), by=by, include_suspect=include_suspect)
    if as_json:
        print(json.dumps(to_json(result), indent=1, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    from analysis.summary_table import print_summary

    print_summary(result, Console(highlight=False))


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="Results of Experiment Runner, or any folder with EnergiBridge logs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
    table: Annotated[
        list[Path] | None, typer.Option(help="One more run table to check; may be repeated. Those in it are found.")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all-runs", help="List runs without a remark too.")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="Print the columns of a published recipe instead, as a CSV: published.")
    ] = None,
) -> None:
    """Find wrong joules: compute every run again from its log, and check the run tables against it."""
    from analysis.audit.command import audit_command, recipe_command

    if recipe is not None:
        recipe_command(folder, recipe, as_json=as_json)
    else:
        audit_command(folder, table or [], as_json=as_json, all_runs=all_runs)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        0, or 2 when what was asked for cannot be done.
    """
    try:
        app(arguments, prog_name="python -m analysis", standalone_mode=True)
    except JouleBedError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 2
    except SystemExit as end:  # how typer ends, also after its own message on a wrong option
        return end.code if isinstance(end.code, int) else 0
    return 0

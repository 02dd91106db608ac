"""The commands by which a person decides over runs: `retry`, `pause`, `resume`, `exclude`, `include`."""

from pathlib import Path
from typing import Annotated

import typer

decisions = typer.Typer()

ExperimentArgument = Annotated[
    Path, typer.Argument(help="results/EXPERIMENT, or its configuration.", show_default=False)
]
ResultsOption = Annotated[Path | None, typer.Option(help="Folder of results, in place of the configuration's.")]
_By = Annotated[str | None, typer.Option(help="Who decides. Default: this user at this machine.", show_default=False)]
_RunIds = Annotated[list[str], typer.Argument(help="Ids of runs: `__run_id` in run_table.csv.", show_default=False)]


@decisions.command()
def retry(
    experiment: ExperimentArgument,
    suspect: Annotated[bool, typer.Option("--suspect", help="All runs whose result is doubted.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="All runs that failed.")] = False,
    run_id: Annotated[list[str] | None, typer.Option("--run", help="This run; may be given again.")] = None,
    results: ResultsOption = None,
) -> None:
    """Have suspect or failed runs measured again; what they have so far stays as evidence."""
    if not (suspect or failed or run_id):
        raise typer.BadParameter("say which: --suspect, --failed or --run RUN_ID", param_hint="--suspect / --failed")
    from orchestrator.experiment_folder import find_experiment, open_run_table
    from orchestrator.retry_command import retry_command

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        typer.echo(retry_command(store, wants_suspect=suspect, wants_failed=failed, run_ids=run_id or []))
    finally:
        store.close()


@decisions.command()
def pause(
    experiment: ExperimentArgument,
    reason: Annotated[str, typer.Option(help="Why; whoever looks at the campaign is told.")] = "",
    by: _By = None,
    results: ResultsOption = None,
) -> None:
    """Let a campaign take up no further run until `resume`; the trial under way goes on to its end."""
    from orchestrator.control_command import pause_command
    from orchestrator.experiment_folder import find_experiment, open_run_table

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        typer.echo(pause_command(store, folder, by=by, reason=reason))
    finally:
        store.close()


@decisions.command()
def resume(experiment: ExperimentArgument, by: _By = None, results: ResultsOption = None) -> None:
    """Let a paused campaign go on."""
    from orchestrator.control_command import resume_command
    from orchestrator.experiment_folder import find_experiment, open_run_table

    store = open_run_table(find_experiment(experiment, results), create=False)
    try:
        typer.echo(resume_command(store, by=by))
    finally:
        store.close()


@decisions.command()
def exclude(
    experiment: ExperimentArgument,
    run_ids: _RunIds,
    reason: Annotated[str, typer.Option(help="Why; readers of the results are told.", show_default=False)],
    by: _By = None,
    results: ResultsOption = None,
) -> None:
    """Leave runs out of exports and analysis, with a reason; what was measured stays as evidence."""
    from orchestrator.control_command import exclude_command
    from orchestrator.experiment_folder import find_experiment, open_run_table

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        typer.echo(exclude_command(store, folder, run_ids, by=by, reason=reason))
    finally:
        store.close()


@decisions.command()
def include(experiment: ExperimentArgument, run_ids: _RunIds, by: _By = None, results: ResultsOption = None) -> None:
    """Take excluded runs back into exports and analysis."""
    from orchestrator.control_command import include_command
    from orchestrator.experiment_folder import find_experiment, open_run_table

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        typer.echo(include_command(store, folder, run_ids, by=by))
    finally:
        store.close()

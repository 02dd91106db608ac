"""The orchestrator's command line: `plan`, `run`, `status`, `retry`, `export`, `doctor`.

Exit codes: 0 fine, 1 some runs failed or are still to do, 2 the command was wrong and nothing was written.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from contract.errors import JouleBedError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Plans an experiment, runs it on a testbed, and keeps the results.",
)

_Config = Annotated[Path, typer.Argument(help="A Python file with a class RunnerConfig.", show_default=False)]
_Experiment = Annotated[Path, typer.Argument(help="results/EXPERIMENT, or its configuration.", show_default=False)]
_Results = Annotated[Path | None, typer.Option(help="Folder of results, in place of the configuration's.")]
_Url = Annotated[str | None, typer.Option(help="URL of a testbed, such as http://gpu-box:8765.")]
_TokenFile = Annotated[Path | None, typer.Option(help="File with the testbed's token. Else JOULEBED_TOKEN.")]
_Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]

# Everything heavier than this is imported by the command that needs it: `--help` is quick.


@app.command()
def plan(
    config: _Config,
    as_json: _Json = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 10,
) -> None:
    """Show what would run, in which order. Writes nothing, asks no testbed."""
    from orchestrator.config_loader import load_config
    from orchestrator.design import expand
    from orchestrator.plan_view import plan_document, print_plan

    runner_config, text = load_config(config)
    document = plan_document(runner_config, expand(runner_config, text), limit)
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print_plan(Console(), document)


@app.command()
def run(
    config: _Config,
    testbed: _Url = None,
    token_file: _TokenFile = None,
    local: Annotated[bool, typer.Option("--local", help="Start a testbed on this machine for the campaign.")] = False,
    superglue_dir: Annotated[Path | None, typer.Option(help="With --local: folder of SuperGLUE items.")] = None,
    meter: Annotated[str | None, typer.Option(help="With --local: what the meter `auto` stands for.")] = None,
    results: _Results = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Lines in place of bars.")] = False,
    on_suspect: Annotated[
        str | None,
        typer.Option(
            metavar="retry|keep|fail",
            help="What becomes of doubted results from now on, in place of the configuration's.",
        ),
    ] = None,
) -> None:
    """Run an experiment, or continue it: the same command again never repeats a finished run.

    Ctrl-C once stops after the current trial, twice cancels it.
    """
    if local == (testbed is not None):
        raise typer.BadParameter("give either --testbed URL or --local", param_hint="--testbed / --local")
    if not local and (superglue_dir is not None or meter is not None):
        raise typer.BadParameter(
            "goes with --local only; give it to `testbed serve` on the other machine",
            param_hint="--superglue-dir / --meter",
        )
    from orchestrator.config import OnSuspect
    from orchestrator.local_testbed import LocalOptions
    from orchestrator.run_command import RunOptions, run_command
    from orchestrator.stop_request import StopRequest

    if on_suspect is not None and on_suspect not in list(OnSuspect):
        raise typer.BadParameter(f"choose one of: {', '.join(OnSuspect)}", param_hint="--on-suspect")
    options = RunOptions(
        config=config,
        testbed_url=testbed,
        token_file=token_file,
        local=LocalOptions(superglue_dir, meter) if local else None,
        results=results,
        wants_bars=not no_progress,
        on_suspect=OnSuspect(on_suspect) if on_suspect else None,
    )
    raise typer.Exit(run_command(options, Console(), StopRequest()))


@app.command()
def status(experiment: _Experiment, as_json: _Json = False, results: _Results = None) -> None:
    """Show how an experiment stands, and what failed and why."""
    from orchestrator.experiment_folder import find_experiment, open_run_table
    from orchestrator.status_view import print_status, status_document

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        document = status_document(folder, store)
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print_status(Console(), document)


@app.command()
def retry(
    experiment: _Experiment,
    suspect: Annotated[bool, typer.Option("--suspect", help="All runs whose result is doubted.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="All runs that failed.")] = False,
    run_id: Annotated[list[str] | None, typer.Option("--run", help="This run; may be given again.")] = None,
    results: _Results = None,
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


@app.command()
def export(
    experiment: _Experiment,
    file_format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    results: _Results = None,
) -> None:
    """Write the run table as a file: run_table.csv in Experiment Runner's layout, or Parquet."""
    if file_format not in ("csv", "parquet"):
        raise typer.BadParameter("choose csv or parquet", param_hint="--format")
    from orchestrator.experiment_folder import find_experiment, open_run_table
    from orchestrator.export import export_run_table

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        path = export_run_table(store, folder, file_format)
    finally:
        store.close()
    typer.echo(str(path))


@app.command()
def doctor(
    testbed: _Url = None,
    token_file: _TokenFile = None,
    as_json: _Json = False,
    results: _Results = None,
) -> None:
    """Check this machine and, with --testbed, that one; say how to mend what is wrong."""
    from orchestrator.doctor import findings_document, look_at_testbed, look_here, print_findings

    findings = look_here(results or Path("results"))
    if testbed is not None:
        from orchestrator.clients.http_client import HttpClient, read_token

        client = HttpClient(testbed, read_token(token_file), unreachable_after_s=3.0)
        try:
            findings += look_at_testbed(client.node, client.clock_offset_s)
        finally:
            client.close()
    if as_json:
        typer.echo(json.dumps(findings_document(findings), indent=1, ensure_ascii=False))
    else:
        print_findings(Console(), findings)
    raise typer.Exit(1 if any(finding.is_fine is False for finding in findings) else 0)


def main() -> None:
    """Entry of the console command."""
    try:
        app()
    except JouleBedError as error:
        console = Console(stderr=True)
        console.print("[bold red]Error:[/] ", end="")
        console.print(error.message, markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)

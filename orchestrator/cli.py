"""The orchestrator's command line: `plan`, `run`, `status`, `story`, `retry`, `pause`, `resume`, `exclude`, `include`,
`fetch`, `export`, `repair`, `doctor`.

Exit codes: 0 fine, 1 some runs failed or are still to do, 2 the command was wrong and nothing was written.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from contract.errors import JouleBedError
from contract.log_line import LOG_FORMATS, LOG_LEVELS, LogFormat
from orchestrator.decision_cli import ExperimentArgument, ResultsOption, decisions
from orchestrator.device_option import spread

if TYPE_CHECKING:
    from orchestrator.experiment_runner.study import StudySource

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Plans an experiment, runs it on a testbed, and keeps the results.",
)

_Config = Annotated[Path | None, typer.Argument(help="A Python file with a class RunnerConfig.", show_default=False)]
_Theirs = Annotated[
    Path | None,
    typer.Option("--experiment-runner-config", metavar="FILE", help="In place of CONFIG: one of Experiment Runner's."),
]
_Spec = Annotated[
    Path | None, typer.Option("--spec", metavar="TEMPLATE", help="With it: a TOML file, how its levels become trials.")
]
_Continued = Annotated[
    Path | None,
    typer.Option("--continue-from", metavar="FOLDER", help="With it: its half-done campaign, with run_table.csv."),
]
_TokenFile = Annotated[Path | None, typer.Option(help="File with the testbed's token. Else JOULEBED_TOKEN.")]
_Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--devices",
        metavar="DEVICE ...",
        help="Each trial on these at the same time: GPUs (0 1) or sets of cores (cores:0 cores:1).",
    ),
]
_LogLevel = Annotated[str, typer.Option(metavar="|".join(LOG_LEVELS), help="Of its log.")]
_LogFormat = Annotated[str, typer.Option(metavar="|".join(LOG_FORMATS), help="Of its log; json: an object per line.")]
_Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]

_FORMATS = ("csv", "parquet", "experiment-runner")

app.add_typer(decisions)

# Everything heavier than this is imported by the command that needs it: `--help` is quick.


@app.command()
def plan(
    config: _Config = None,
    experiment_runner_config: _Theirs = None,
    spec: _Spec = None,
    continue_from: _Continued = None,
    devices: _Devices = None,
    as_json: _Json = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 10,
) -> None:
    """Show what would run, in which order. Writes nothing, asks no testbed."""
    from orchestrator.config_loader import load_config
    from orchestrator.design import expand
    from orchestrator.plan_view import plan_document, print_plan

    study = _study(config, experiment_runner_config, spec, continue_from)
    if study is not None and devices:
        raise typer.BadParameter("goes with CONFIG only", param_hint="--devices")
    if study is not None:
        from orchestrator.experiment_runner.study import load_study

        found = load_study(study)
        document = plan_document(found.config, found.plan, limit)
    else:
        assert config is not None  # or it were a study
        runner_config, text = load_config(config)
        runner_config.devices = devices or runner_config.devices
        document = plan_document(runner_config, expand(runner_config, text), limit)
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print_plan(Console(), document)


@app.command()
def run(
    config: _Config = None,
    experiment_runner_config: _Theirs = None,
    spec: _Spec = None,
    continue_from: _Continued = None,
    testbed: Annotated[
        list[str] | None,
        typer.Option(help="URL of a testbed, such as http://gpu-box:8765; again for each further one."),
    ] = None,
    pool: Annotated[
        Path | None, typer.Option(metavar="POOL.toml", help="File of testbeds, see docs/pool.md.", show_default=False)
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep the run table in PostgreSQL: postgresql+psycopg://USER@HOST/DATABASE; password in PGPASSWORD.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="All testbeds of a Ray cluster, see docs/ray.md; `local` starts one on this machine.",
        ),
    ] = None,
    token_file: _TokenFile = None,
    local: Annotated[bool, typer.Option("--local", help="Start a testbed on this machine for the campaign.")] = False,
    devices: _Devices = None,
    superglue_dir: Annotated[Path | None, typer.Option(help="With --local: folder of SuperGLUE items.")] = None,
    meter: Annotated[str | None, typer.Option(help="With --local: what the meter `auto` stands for.")] = None,
    results: ResultsOption = None,
    artifacts: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Copy the files there too: s3://BUCKET/FOLDER, see docs/artifacts.md."),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Lines in place of bars.")] = False,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve its web page beside it.")] = False,
    on_suspect: Annotated[
        str | None,
        typer.Option(
            metavar="retry|keep|fail",
            help="What becomes of doubted results from now on, in place of the configuration's.",
        ),
    ] = None,
    log_level: _LogLevel = "info",
    log_format: _LogFormat = "text",
) -> None:
    """Run an experiment, or continue it: the same command again never repeats a finished run.

    Ctrl-C once stops after the current trial, twice cancels it.
    """
    study = _study(config, experiment_runner_config, spec, continue_from)
    if study is not None and devices:
        raise typer.BadParameter("goes with CONFIG only", param_hint="--devices")
    if sum((local, bool(testbed or pool), ray is not None)) != 1:
        raise typer.BadParameter(
            "give either --testbed URL (or --pool POOL.toml) or --local or --ray ADDRESS",
            param_hint="--testbed / --local / --ray",
        )
    is_here = local or (ray is not None and ray.partition(":")[0] == "local")
    if not is_here and (superglue_dir is not None or meter is not None):
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
    checked_format = _checked_log(log_level, log_format)
    options = RunOptions(
        config=config,
        testbed_urls=tuple(testbed or ()),
        token_file=token_file,
        local=LocalOptions(superglue_dir, meter) if is_here else None,
        results=results,
        wants_bars=not no_progress,
        on_suspect=OnSuspect(on_suspect) if on_suspect else None,
        log_level=log_level,
        log_format=checked_format,
        study=study,
        devices=tuple(devices or ()),
        wants_dashboard=dashboard,
        pool=pool,
        database=database,
        ray=ray,
        artifacts=artifacts,
    )
    raise typer.Exit(run_command(options, Console(), StopRequest()))


@app.command()
def fetch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The experiment's: results/NAME.")],
    artifacts: Annotated[str, typer.Option(metavar="URL", help="The store that `run --artifacts` copied to.")],
    run_id: Annotated[list[str] | None, typer.Option("--run", help="Of this run only; again for more.")] = None,
) -> None:
    """Bring files of attempts back from a store, verified; what is here already is left."""
    from orchestrator.artifact_store import ArtifactStore

    done = ArtifactStore(artifacts, folder.resolve().name).fetch(folder, run_id or ())
    console = Console()
    size = f"{done.n_new_files} files, {done.n_bytes / 1e6:.1f} MB"
    console.print(f"{done.n_attempts} attempts are in {folder / 'runs'}; fetched now: {size}.", highlight=False)
    for message in done.failed.values():
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if done.failed else 0)


@app.command()
def status(experiment: ExperimentArgument, as_json: _Json = False, results: ResultsOption = None) -> None:
    """Show how an experiment stands: what holds it up, what failed and why."""
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
def export(
    experiment: ExperimentArgument,
    file_format: Annotated[str, typer.Option("--format", metavar="|".join(_FORMATS), help="What to write.")] = "csv",
    output: Annotated[Path | None, typer.Option(help="With experiment-runner: the folder to write.")] = None,
    python: Annotated[
        Path | None, typer.Option(help="With experiment-runner: the Python that Experiment Runner runs on.")
    ] = None,
    results: ResultsOption = None,
) -> None:
    """Write the run table as run_table.csv, as Parquet, or as a folder that Experiment Runner restarts from."""
    if file_format not in _FORMATS:
        raise typer.BadParameter(f"choose one of: {', '.join(_FORMATS)}", param_hint="--format")
    if file_format != "experiment-runner" and (output is not None or python is not None):
        raise typer.BadParameter("goes with --format experiment-runner only", param_hint="--output / --python")
    from orchestrator.experiment_folder import find_experiment, open_run_table
    from orchestrator.experiment_runner.export import export_experiment_runner
    from orchestrator.export import export_run_table

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    notes: tuple[str, ...] = ()
    try:
        if file_format == "experiment-runner":
            exported = export_experiment_runner(store, folder, output, python)
            path, notes = exported.folder, exported.notes
        else:
            path = export_run_table(store, folder, file_format)
    finally:
        store.close()
    typer.echo(str(path))
    for note in notes:
        typer.echo(f"Note: {note}", err=True)


@app.command()
def story(
    experiment: ExperimentArgument,
    run_id: Annotated[
        str | None, typer.Argument(help="A run's id, or an attempt's; without one, the campaign's own story.")
    ] = None,
    as_json: _Json = False,
    results: ResultsOption = None,
) -> None:
    """Tell what happened to a run: its attempts, events, errors and files."""
    from orchestrator.experiment_folder import find_experiment, open_run_table
    from orchestrator.story_view import campaign_document, print_campaign_story, print_run_story, run_document

    folder = find_experiment(experiment, results)
    store = open_run_table(folder, create=False)
    try:
        document = campaign_document(store) if run_id is None else run_document(folder, store, run_id)
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    elif run_id is None:
        print_campaign_story(Console(), document)
    else:
        print_run_story(Console(), document)


@app.command()
def repair(
    experiment: ExperimentArgument,
    check: Annotated[bool, typer.Option("--check", help="Only look: exit code 1 if something is wrong.")] = False,
    as_json: _Json = False,
    results: ResultsOption = None,
) -> None:
    """Mend a damaged, lost or outdated run table from what is left of it and the files under runs/. Deletes nothing."""
    from orchestrator.repair_command import print_repair, repair_command

    document = repair_command(experiment, results, only_look=check)
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print_repair(Console(), document)
    raise typer.Exit(0 if document["sound"] or document["repaired"] else 1)


@app.command()
def doctor(
    experiment: Annotated[
        Path | None, typer.Argument(help="results/EXPERIMENT, or its configuration: look at it too.")
    ] = None,
    testbed: Annotated[list[str] | None, typer.Option(help="URL of a testbed; again for each further one.")] = None,
    pool: Annotated[Path | None, typer.Option(metavar="POOL.toml", help="File of testbeds.")] = None,
    token_file: _TokenFile = None,
    as_json: _Json = False,
    results: ResultsOption = None,
) -> None:
    """Check this machine, an experiment if it is named, and testbeds if they are; say how to mend what is wrong."""
    from orchestrator.doctor import findings_document, look_at_experiment, look_here, print_findings

    findings, ours = look_here(results or Path("results")), None
    if experiment is not None:
        from orchestrator.experiment_folder import find_experiment

        about_it, ours = look_at_experiment(find_experiment(experiment, results))
        findings += about_it
    if testbed or pool is not None:
        from orchestrator.doctor import look_at_testbeds
        from orchestrator.pool_file import entries_of

        findings += look_at_testbeds(entries_of(testbed or (), pool), token_file, ours)
    if as_json:
        typer.echo(json.dumps(findings_document(findings), indent=1, ensure_ascii=False))
    else:
        print_findings(Console(), findings)
    raise typer.Exit(1 if any(finding.is_fine is False for finding in findings) else 0)


@app.command()
def dashboard(
    experiment: ExperimentArgument,
    testbed: Annotated[
        list[str] | None,
        typer.Option(help="Show this testbed's live power; may be given again. Else those that are driven now."),
    ] = None,
    testbed_token_file: Annotated[Path | None, typer.Option(help="Their token. Else JOULEBED_TOKEN.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8790,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the page's token. Else JOULEBED_DASHBOARD_TOKEN; else, on loopback, a new one."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Change nothing: a copy, or for others' eyes.")
    ] = False,
    ready_file: Annotated[Path | None, typer.Option(help="Written when the page answers: its URL.")] = None,
    log_level: _LogLevel = "info",
    log_format: _LogFormat = "text",
    results: ResultsOption = None,
) -> None:
    """Serve a web page of an experiment: watch it run, or read what came out. Works on a copied folder too."""
    checked_format = _checked_log(log_level, log_format)
    from orchestrator.dashboard.command import DashboardOptions, dashboard_command
    from orchestrator.experiment_folder import find_experiment

    options = DashboardOptions(
        folder=find_experiment(experiment, results),
        host=host,
        port=port,
        token_file=token_file,
        testbeds=tuple(testbed or ()),
        testbed_token_file=testbed_token_file,
        is_read_only=read_only,
        ready_file=ready_file,
        log_level=log_level,
        log_format=checked_format,
    )
    dashboard_command(options, Console())


def _checked_log(level: str, log_format: str) -> LogFormat:
    if level not in LOG_LEVELS:
        raise typer.BadParameter(f"choose one of: {', '.join(LOG_LEVELS)}", param_hint="--log-level")
    if log_format not in LOG_FORMATS:
        raise typer.BadParameter(f"choose one of: {', '.join(LOG_FORMATS)}", param_hint="--log-format")
    return "json" if log_format == "json" else "text"


def _study(config: Path | None, theirs: Path | None, spec: Path | None, continued: Path | None) -> "StudySource | None":
    """What of Experiment Runner is meant; None: a configuration of ours."""
    if (config is None) == (theirs is None):
        raise typer.BadParameter("give either CONFIG or --experiment-runner-config FILE", param_hint="CONFIG")
    if theirs is None:
        if spec is not None or continued is not None:
            raise typer.BadParameter("goes with --experiment-runner-config only", param_hint="--spec / --continue-from")
        return None
    if spec is None:
        raise typer.BadParameter("say with --spec TEMPLATE how its levels become trials", param_hint="--spec")
    from orchestrator.experiment_runner.study import StudySource

    return StudySource(theirs, spec, continued)


def main() -> None:
    """Entry of the console command."""
    # Prompts, answers and the configuration's text are their owner's; who wants to share results, says so by chmod.
    os.umask(0o077)
    try:
        app(spread(sys.argv[1:]))
    except JouleBedError as error:
        console = Console(stderr=True)
        console.print("[bold red]Error:[/] ", end="")
        console.print(error.message, markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)

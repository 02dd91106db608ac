"""The command line of the analysis."""

import json
from pathlib import Path
from typing import Annotated

import typer

from contract.command_end import exit_code

app = typer.Typer(
    help="From finished runs to tables and figures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """From finished runs to tables and figures."""


_SOURCE_HELP = "results/EXPERIMENT, the address of its database, or a folder of Experiment Runner."


@app.command()
def summary(
    experiment: Annotated[str, typer.Argument(help=_SOURCE_HELP)],
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
    from analysis.runs_command import load_scored
    from analysis.summary import summarise, to_json

    result = summarise(load_scored(experiment), by=by, include_suspect=include_suspect)
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


@app.command()
def runs(
    experiment: Annotated[str, typer.Argument(help=_SOURCE_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help="Everything in full precision, for programs.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Parquet file to write.")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="With derived figures: per token, EDP, ...")] = False,
    phases: Annotated[bool, typer.Option("--phases", help="Energy by phase and domain instead of runs.")] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Of Experiment Runner: folder with gold labels; default: prompts/ in the folder."),
    ] = None,
    price: Annotated[float | None, typer.Option(help="Price per kWh: adds the electricity's cost.")] = None,
    currency: Annotated[str, typer.Option(help="Of the price.")] = "",
    grid_intensity: Annotated[float | None, typer.Option(help="g CO2e per kWh: adds the carbon.")] = None,
) -> None:
    """One row per run, as a table or a file; what the columns mean goes with a file, and is told by `columns`."""
    from analysis.runs_command import runs_command

    runs_command(
        experiment,
        as_json=as_json,
        parquet=parquet,
        csv=csv,
        metrics=metrics,
        phases=phases,
        prompts=prompts,
        price_per_kwh=price,
        currency=currency,
        grid_g_per_kwh=grid_intensity,
    )


@app.command()
def columns(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Name, unit and meaning of every column."""
    from analysis.runs_command import columns_command

    columns_command(as_json=as_json)


_PROMPTS_HELP = "Of Experiment Runner: folder with gold labels; default: prompts/ in the folder."
_STORE_HELP = "File of the verdicts; default: judgements.sqlite in the folder."


@app.command()
def accuracy(
    folder: Annotated[Path, typer.Argument(help="results/EXPERIMENT, or a folder of Experiment Runner.")],
    prompts: Annotated[Path | None, typer.Option(help=_PROMPTS_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Full precision, for programs.")] = False,
) -> None:
    """Accuracy by gold label, per task and treatment."""
    from analysis.agreement_command import accuracy_command

    accuracy_command(folder, prompts=prompts, as_json=as_json)


@app.command()
def judge(
    experiment: Annotated[Path, typer.Argument(help="results/EXPERIMENT, or a folder of Experiment Runner.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible address, such as http://127.0.0.1:8080/v1.")],
    model: Annotated[str, typer.Option(help="The judge, as the endpoint calls it.")],
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key; default: OPENAI_API_KEY, if set.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sent with every question; another seed is judged anew.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about so many at most that are not judged yet.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Questions at a time.")] = 4,
    prompts: Annotated[Path | None, typer.Option(help=_PROMPTS_HELP)] = None,
    store: Annotated[Path | None, typer.Option(help=_STORE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Full precision, for programs.")] = False,
) -> None:
    """Let a language model judge the answers, given the gold labels; goes on where it was stopped."""
    from analysis.judge.command import judge_command

    judge_command(
        experiment,
        endpoint=endpoint,
        model=model,
        key_variable=api_key_env,
        seed=seed,
        limit=limit,
        workers=workers,
        prompts=prompts,
        store=store,
        as_json=as_json,
    )


@app.command()
def agreement(
    experiment: Annotated[Path, typer.Argument(help="results/EXPERIMENT, or a folder of Experiment Runner.")],
    human: Annotated[Path | None, typer.Option(help="Labelled sheet (CSV).")] = None,
    out_sheet: Annotated[Path | None, typer.Option(help="Write a sheet to label instead.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="With --out-sheet: answers on it.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample, and of the bootstrap.")] = 0,
    judge_model: Annotated[str | None, typer.Option(help="Which judge, where several have judged.")] = None,
    prompts: Annotated[Path | None, typer.Option(help=_PROMPTS_HELP)] = None,
    store: Annotated[Path | None, typer.Option(help=_STORE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Full precision, for programs.")] = False,
) -> None:
    """Cohen's kappa between rules, judge and a human-labelled sheet."""
    from analysis.agreement_command import agreement_command

    agreement_command(
        experiment,
        human=human,
        out_sheet=out_sheet,
        n_sample=sample,
        seed=seed,
        judge_model=judge_model,
        prompts=prompts,
        store=store,
        as_json=as_json,
    )


@app.command()
def report(
    experiment: Annotated[Path, typer.Argument(help="results/EXPERIMENT, or a folder of Experiment Runner.")],
    out: Annotated[Path | None, typer.Option(help="HTML file that needs nothing else; default: report.html.")] = None,
    md: Annotated[Path | None, typer.Option(help="Markdown file; its figures go to a folder beside it.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for each figure as PDF, SVG and PNG.")] = None,
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Count results that are doubted as well.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Write one self-contained page: answer, warnings, tables, tests, figures, how to cite."""
    from analysis.report.command import report_command

    report_command(experiment, out=out, md=md, figures=figures, include_suspect=include_suspect, seed=seed)


@app.command()
def published(
    folder: Annotated[Path, typer.Argument(help="The public study's run tables, with folders RQ1.1, RQ2, RQ3.1.")],
) -> None:
    """Recompute the public LLaMA study's tables: cells reproduced, what is wrong, corrected values (Markdown)."""
    from analysis.published_check import published_report

    print(published_report(folder), end="")


@app.command()
def edge(
    experiment: Annotated[str, typer.Argument(help=_SOURCE_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for text, CSVs and figures.")] = Path("edge_profile"),
    battery_wh: Annotated[float | None, typer.Option(help="Capacity of a battery: tells how long it lasts.")] = None,
    duty: Annotated[float, typer.Option(help="Share of the time spent generating, 0 to 1.")] = 1.0,
    idle_power_w: Annotated[
        float | None, typer.Option(help="Power between requests; default: the measured idle baseline.")
    ] = None,
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Count results that are doubted as well.")
    ] = False,
) -> None:
    """Power profile of devices over w*: net power, energy per token, temperature, speed, battery life."""
    from analysis.edge_command import edge_command

    edge_command(
        experiment,
        out=out,
        battery_wh=battery_wh,
        duty=duty,
        idle_power_w=idle_power_w,
        include_suspect=include_suspect,
    )


@app.command()
def serving(
    experiment: Annotated[str, typer.Argument(help=_SOURCE_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for text, CSVs and figures.")] = Path("serving_report"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs; writes no files.")] = False,
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Count results that are doubted as well.")
    ] = False,
) -> None:
    """Policies under an objective: SLO share, joules in both definitions, latency, throughput, over seeds."""
    from analysis.serving_command import serving_command

    serving_command(experiment, out=out, as_json=as_json, include_suspect=include_suspect)


@app.command(name="edge-control")
def edge_control(
    experiment: Annotated[str, typer.Argument(help=_SOURCE_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for text, CSV and figures.")] = Path("edge_control_report"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs; writes no files.")] = False,
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Count results that are doubted as well.")
    ] = False,
) -> None:
    """Choosers of clocks, batch and exit: regret, speed, temperature, violations, and what choosing cost."""
    from analysis.edge_control_command import edge_control_command

    edge_control_command(experiment, out=out, as_json=as_json, include_suspect=include_suspect)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        0, or 2 when what was asked for cannot be done.
    """
    return exit_code(lambda: app(arguments, prog_name="python -m analysis", standalone_mode=True))

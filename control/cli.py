"""The command line of control: profile, fit, and what is learned from them. One module for each command."""

from pathlib import Path
from typing import Annotated

import typer

from contract.command_end import exit_code
from control.edge_app import app as edge_app

app = typer.Typer(
    help="From profiles of a device to models of it, and to policies for serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """From profiles of a device to models of it, and to policies for serving."""


_JSON_HELP = "Full precision, for programs."
_INPUT_HELP = "Tokens of each prompt: which to take of several; what it is, of a table that does not tell."
_OUTPUT_HELP = "The same of the tokens generated."


@app.command()
def profile(
    experiment: Annotated[
        Path | None, typer.Argument(help="results/EXPERIMENT, of runnerconfig/dvfs_profile.py or alike.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--import", help="A shared table (CSV) instead.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV to write.")] = Path("profile.csv"),
    input_len: Annotated[int | None, typer.Option(min=1, help=_INPUT_HELP)] = None,
    output_len: Annotated[int | None, typer.Option(min=1, help=_OUTPUT_HELP)] = None,
    clock_mhz: Annotated[
        float | None, typer.Option(min=1, help="What the clock was, where the experiment did not set it.")
    ] = None,
    include_suspect: Annotated[
        bool, typer.Option("--include-suspect", help="Count results that are doubted as well.")
    ] = False,
    total_power: Annotated[
        bool, typer.Option("--total-power", help="Of all measured domains, also where the GPU's is known.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Make a profile of an experiment's results, or of a shared table; name holes, and answers that ended early."""
    from control.profile_command import profile_command

    profile_command(
        experiment,
        table=table,
        out=out,
        n_input_tokens=input_len,
        n_output_tokens=output_len,
        clock_mhz=clock_mhz,
        include_suspect=include_suspect,
        total_power=total_power,
        as_json=as_json,
    )


@app.command()
def fit(
    profile: Annotated[Path, typer.Argument(help="CSV of `profile`, or a shared table.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Device model to write (JSON).")] = Path("device_model.json"),
    table: Annotated[
        Path | None, typer.Option(help="Also write its full table, every batch size, for serving (CSV).")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures, as SVG and PNG.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Another table: how far the model is from it.")] = None,
    input_len: Annotated[int | None, typer.Option(min=1, help=_INPUT_HELP)] = None,
    output_len: Annotated[int | None, typer.Option(min=1, help=_OUTPUT_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which cells are held out together.")] = 0,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Let the model tell cells that were not measured.")
    ] = False,
    clock_left_alone: Annotated[
        bool,
        typer.Option("--clock-left-alone", help="With --table: one clock, for policies that choose batches alone."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Fit latency and power over clock and batch, and tell the errors on cells that were held out."""
    from control.fit_command import fit_command

    fit_command(
        profile,
        out=out,
        table=table,
        figures=figures,
        compare=compare,
        n_input_tokens=input_len,
        n_output_tokens=output_len,
        seed=seed,
        fills_holes=fill_holes,
        is_clock_left_alone=clock_left_alone,
        as_json=as_json,
    )


_SLO_HELP = "Objective: completion minus arrival, seconds."
_SHARE_HELP = "Share of requests that shall be within it, above 0 and below 1."
_RATE_HELP = "Requests per second, Poisson."
_CV_HELP = "Bursts: standard deviation of the gaps over their mean (1: Poisson)."
_IDLE_HELP = "Power while nothing is served, W. 0, as in the reference figures, makes waiting free."


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="Service table (CSV): of `fit --table`, or a shared one.")],
    slo_s: Annotated[float, typer.Option(min=0.001, help=_SLO_HELP)],
    rate: Annotated[float, typer.Option(min=0.0001, help=_RATE_HELP)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the policies; goes on where it stopped.")],
    slo_share: Annotated[float, typer.Option(min=0.01, max=0.9999, help=_SHARE_HELP)] = 0.98,
    cv: Annotated[float | None, typer.Option(min=0.01, help=_CV_HELP)] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="What waiting lets pass, s; 0: no waiting.")] = 1.0,
    switch_s: Annotated[float, typer.Option(min=0, help="What a change of the clock takes, s.")] = 0.05,
    idle_power_w: Annotated[float, typer.Option(min=0, help=_IDLE_HELP)] = 0.0,
    queue_limit: Annotated[int, typer.Option(min=1, help="Requests that may be queued.")] = 100,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Largest batch; the table's if not given.")] = None,
    duration_s: Annotated[float, typer.Option(min=1, help="Length of a run, simulated s.")] = 3600.0,
    input_len: Annotated[int | None, typer.Option(min=1, help=_INPUT_HELP)] = None,
    output_len: Annotated[int | None, typer.Option(min=1, help=_OUTPUT_HELP)] = None,
    n_seeds: Annotated[int, typer.Option("--seeds", min=1, help="Learners, with seeds 0, 1, ...")] = 5,
    steps: Annotated[int, typer.Option(min=0, help="Decisions that PPO sees; 0: imitation alone.")] = 500_000,
    ppo_alone: Annotated[
        bool, typer.Option("--ppo-alone", help="From random weights, without a plan to imitate.")
    ] = False,
    energy_weight: Annotated[float, typer.Option(min=0, help="0: an ablation that learns the deadlines alone.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Plan, imitate the plan, and learn on with PPO; one policy for each seed."""
    from control.case_options import case_of
    from control.imitation import ImitationConfig
    from control.learner import LearnerConfig
    from control.train_command import train_command
    from testbed.simulation.service_table import read_service_table

    case = case_of(
        read_service_table(table, n_input_tokens=input_len, n_output_tokens=output_len),
        slo_s=slo_s,
        rate_per_s=rate,
        cv=cv,
        duration_s=duration_s,
        wait_s=wait_s or None,
        switch_s=switch_s,
        idle_power_w=idle_power_w,
        queue_limit=queue_limit,
        max_batch=max_batch,
    )
    imitation = None if ppo_alone else ImitationConfig()
    config = LearnerConfig(n_steps=steps, energy_weight=energy_weight, imitation=imitation)
    train_command(case, slo_share, out, config, range(n_seeds), as_json=as_json)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Of `train`.")],
    n_seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each policy.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first run's arrivals.")] = 0,
    table: Annotated[Path | None, typer.Option(help="Another service table: a run on another model.")] = None,
    slo_s: Annotated[float | None, typer.Option(min=0.001, help=f"{_SLO_HELP} The training's if not given.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.0001, help=f"{_RATE_HELP} The training's if not given.")] = None,
    cv: Annotated[float | None, typer.Option(min=0.01, help=_CV_HELP)] = None,
    idle_power_w: Annotated[float | None, typer.Option(min=0, help=_IDLE_HELP)] = None,
    duration_s: Annotated[float | None, typer.Option(min=1, help="Length of a run, simulated s.")] = None,
    slo_share: Annotated[float | None, typer.Option(min=0.01, max=0.9999, help=_SHARE_HELP)] = None,
    input_len: Annotated[int | None, typer.Option(min=1, help=_INPUT_HELP)] = None,
    output_len: Annotated[int | None, typer.Option(min=1, help=_OUTPUT_HELP)] = None,
    ablation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=FILE", help="A policy file to compare with, such as a checkpoint; may be repeated."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results: FOLDER/evaluation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Run what was learned beside the constant, the rules and the plan, on arrivals that nothing was trained on."""
    from control.case_options import kept_case, named_files
    from control.evaluate_command import evaluate_command
    from testbed.simulation.service_table import read_service_table

    other = None if table is None else read_service_table(table, n_input_tokens=input_len, n_output_tokens=output_len)
    case, share = kept_case(
        folder, other, slo_s=slo_s, rate_per_s=rate, cv=cv, idle_power_w=idle_power_w, duration_s=duration_s
    )
    seeds = range(first_seed, first_seed + n_seeds)
    evaluate_command(
        case,
        slo_share or share,
        folder,
        seeds,
        out or folder / "evaluation",
        ablations=named_files(ablation or []),
        as_json=as_json,
    )


app.add_typer(edge_app, name="edge")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        0, or 2 when what was asked for cannot be done.
    """
    return exit_code(lambda: app(arguments, prog_name="python -m control", standalone_mode=True))

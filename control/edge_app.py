"""`python -m control edge ...`: edge control on a simulated Orin. One module for what each command does."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Edge control on a simulated AGX Orin: clocks, batch, early exit, and a fan that stops. Nothing is measured.",
    no_args_is_help=True,
    add_completion=False,
)

FanOn = Annotated[Path, typer.Argument(help="Grid log with the fan on.")]
FanOff = Annotated[Path, typer.Argument(help="Grid log with the fan off, in the order it was run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Full precision, for programs.")]


@app.command()
def train(
    grid_fan_on: FanOn,
    grid_fan_off: FanOff,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints; goes on where it stopped.")],
    seeds: Annotated[int, typer.Option(min=1, help="Learners.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="Of the first learner.")] = 0,
    updates: Annotated[int, typer.Option(min=1, help="On the simulated board.")] = 600,
    log_updates: Annotated[int, typer.Option(min=0, help="From the log alone, before that.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Train GRPO from the log, then on the simulated board, for a fan that runs or not; one checkpoint per seed."""
    from control.edge_train_command import train_command

    train_command(
        grid_fan_on,
        grid_fan_off,
        out,
        range(first_seed, first_seed + seeds),
        n_updates=updates,
        n_pretraining=log_updates,
        as_json=as_json,
    )


@app.command()
def evaluate(
    grid_fan_on: FanOn,
    grid_fan_off: FanOff,
    checkpoint: Annotated[list[Path], typer.Argument(help="Of `train`; several are run one after the other.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rows and figures.")] = Path("edge_evaluation"),
    batches: Annotated[int, typer.Option(min=1, help="Of each run.")] = 1500,
    fan_off_at: Annotated[int, typer.Option(help="Batch from which the fan is off; below 0: it runs on.")] = 200,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the noise; the checkpoint's if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run checkpoints with a fan that stops, beside the best fixed settings and the rules."""
    from control.edge_evaluate_command import evaluate_command

    evaluate_command(
        grid_fan_on,
        grid_fan_off,
        checkpoint,
        out,
        n_batches=batches,
        fan_off_at=fan_off_at if fan_off_at >= 0 else None,
        seed=seed,
        as_json=as_json,
    )


@app.command()
def study(
    grid_fan_on: FanOn,
    grid_fan_off: FanOff,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report, figures, rows, checkpoints.")] = Path(
        "results/edge"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="The first.")] = 0,
    measurements: Annotated[int, typer.Option(min=1, help="Of each way of search.")] = 300,
    updates: Annotated[int, typer.Option(min=1, help="Of each policy that is trained.")] = 600,
    batches: Annotated[int, typer.Option(min=1, help="Of a run in which the fan stops.")] = 1500,
    fan_off_at: Annotated[int, typer.Option(min=0, help="Batch from which the fan is off.")] = 200,
    search: Annotated[bool, typer.Option(help="Compare the ways of search.")] = True,
    fan_off: Annotated[bool, typer.Option(help="Train, and stop the fan.")] = True,
    as_json: AsJson = False,
) -> None:
    """Who finds a good setting soon, what happens when the fan stops, how well the simulation fits; with a report."""
    from control.edge_study_command import study_command

    study_command(
        grid_fan_on,
        grid_fan_off,
        out,
        range(first_seed, first_seed + seeds),
        n_measurements=measurements,
        n_updates=updates,
        n_batches=batches,
        fan_off_at=fan_off_at,
        with_search=search,
        with_fan_off=fan_off,
        as_json=as_json,
    )

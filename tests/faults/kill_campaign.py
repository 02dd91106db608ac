"""Campaigns whose processes are killed at random instants; an undisturbed one shows what must come out."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import processes
from tests.faults.audit import Table, audit, differences, read_table
from tests.faults.experiment import NAME, write_experiment
from tests.faults.plan import draw
from tests.faults.report import Report
from tests.faults.stage import Stage, pids

_FIRST_S = 300.0
_PER_TRIAL_S = 20.0
"""Patience: a machine that is shared by others takes long to start a process."""


def undisturbed(folder: Path, n_trials: int, *, is_large: bool = False) -> Table:
    """The table of a campaign to which nothing happens.

    Args:
        folder: made; takes everything.
        n_trials: a multiple of `experiment.N_TREATMENTS`.
        is_large: see `write_experiment`.
    """
    stage = Stage(folder, write_experiment(folder, n_trials, is_large=is_large))
    with stage.open():
        stage.finish(_FIRST_S + _PER_TRIAL_S * n_trials)
    found = audit(stage.traces.experiment, n_trials)
    assert not found.problems, found.problems
    return read_table(stage.traces.experiment)


def kill_campaign(
    folder: Path,
    reference: Table,
    *,
    n_kills: int,
    seed: int,
    n_interrupts: int = 0,
    n_orchestrators: int = 1,
    n_testbeds: int = 1,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run a campaign, strike it, and look at what came out.

    Args:
        folder: made; takes everything.
        reference: of `undisturbed`, of as many trials.
        n_kills: SIGKILLs.
        seed: of their victims and instants.
        n_interrupts: Ctrl-C besides, once and twice in turn.
        n_orchestrators: that share the run table.
        n_testbeds: that are shared out among them.
        tell: is told how it goes.
    """
    n_trials = len(reference.rows)
    limit_s = _FIRST_S + _PER_TRIAL_S * n_trials
    blows = draw(n_kills, n_interrupts, seed)
    report = Report(f"kills: {n_trials} trials, {n_orchestrators} orchestrator(s), {n_testbeds} testbed(s)")
    stage = Stage(folder, write_experiment(folder, n_trials), n_orchestrators=n_orchestrators, n_testbeds=n_testbeds)
    watch = processes.RunnerWatch(stage.mark)
    begin_s = time.monotonic()
    try:
        with watch.watching(), stage.open():
            for number, blow in enumerate(blows, start=1):
                stage.strike(blow, n_trials, limit_s)
                tell(f"{number}/{len(blows)} {blow.victim} at {blow.moment}, {stage.traces.n_done()} runs done")
            stage.finish(limit_s)
    except AssertionError as error:
        report.problems.append(str(error))
        report.log_tail = stage.log_tail()
        return report
    found = audit(stage.traces.experiment, n_trials, n_testbeds=n_testbeds)
    differing = differences(read_table(stage.traces.experiment), reference)
    report.figures = {
        "seed": seed,
        "runs": found.n_runs,
        "attempts": found.n_attempts,
        "ends of attempts": found.ends,
        "struck": dict(stage.struck),
        "moments": dict(stage.moments),
        "blows without a victim": len(stage.missed),
        "orchestrator ended by itself": dict(stage.unasked),
        "lost": len(found.lost),
        "duplicated": len(found.duplicated),
        "orphan processes": len(stage.leftovers),
        "trials at the same time on a testbed": len(found.overlaps) + len(watch.collisions),
        "trial windows compared": found.n_windows,
        "looks at processes": watch.n_looks,
        "cells that differ from the undisturbed table": len(differing),
        "duration_s": time.monotonic() - begin_s,
    }
    report.problems += found.problems + differing
    report.problems += [f"two trials at once: {' and '.join(pair)}" for pair in watch.collisions]
    report.problems += [f"orphan processes: {pids(stage.leftovers)}"] * bool(stage.leftovers)
    report.problems += [f"{len(stage.missed)} blows found no victim"] * bool(stage.missed)
    report.log_tail = stage.log_tail() if report.problems else ""
    return report


def experiment_folder(folder: Path) -> Path:
    """Where a campaign of a folder keeps its results."""
    return folder / "results" / NAME

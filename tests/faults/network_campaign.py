"""Campaigns over a bad network: every fault at every kind of message, partitions, a pulled cable."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.end_to_end.fault_proxy import FAULTS, KINDS
from tests.faults.audit import Table, audit, differences, read_table
from tests.faults.experiment import write_experiment
from tests.faults.machines import Machines
from tests.faults.plan import Blow, Moment, Victim
from tests.faults.report import Report
from tests.faults.stage import Stage, pids

_LIMIT_S = 900.0
_TRIES = 4
"""To interrupt a trial that is short."""


def fault_campaign(
    folder: Path, reference: Table, faults: Sequence[str], *, seed: int, latency_s: float = 2.0
) -> Report:
    """A campaign in which every other message of each kind meets one of some faults.

    The orchestrator is killed while it fetches, and stopped by Ctrl-C twice: only then it asks for a result alone, or
    for a cancellation.

    Args:
        folder: made; takes everything.
        reference: of an undisturbed campaign of large trials.
        faults: of `FAULTS`.
        seed: of the proxy.
        latency_s: of `latency`.
    """
    network = {"seed": seed, "faults": faults, "every_other": True, "latency_s": latency_s}
    stage = _stage(folder, reference, network=network)
    report = Report(f"network: {', '.join(faults)}")

    def strike() -> None:
        assert stage.proxy is not None
        for victim, moment, kind in _AIMED:
            for _ in range(_TRIES):
                stage.strike(_blow(victim, moment), len(reference.rows), _LIMIT_S)
                if _met(stage, kind) or stage.is_over():
                    break

    _run(stage, reference, report, strike)
    if stage.proxy is not None:
        met = {kind: _met(stage, kind) for kind in KINDS}
        report.figures = {"seed": seed, "requests": stage.proxy.n_requests, "faults met": met, **report.figures}
        report.problems += [f"no message of the kind {kind} met a fault" for kind, number in met.items() if not number]
    return report


def mixed_campaign(folder: Path, reference: Table, *, seed: int, rate: float = 0.3, latency_s: float = 2.0) -> Report:
    """A campaign in which a share of all messages meets a fault of any kind."""
    stage = _stage(folder, reference, network={"seed": seed, "rate": rate, "latency_s": latency_s})
    report = Report(f"network: all faults, {rate:.0%} of the messages")
    _run(stage, reference, report, lambda: None)
    if stage.proxy is not None:
        figures = {"seed": seed, "requests": stage.proxy.n_requests, "faults met": dict(stage.proxy.met)}
        report.figures = {**figures, **report.figures}
    return report


def partition_campaign(folder: Path, reference: Table, *, seconds: float, moments: Sequence[Moment]) -> Report:
    """A campaign with partitions: everything is reset for a while, from the given moments on."""
    stage = _stage(folder, reference, network={})
    report = Report(f"network: partitions of {seconds:g} s at {', '.join(moments)}")

    def strike() -> None:
        assert stage.proxy is not None
        for moment in moments:
            stage.traces.wait_for(moment, _LIMIT_S, stage.is_over)
            stage.proxy.partition(seconds)
            time.sleep(seconds)

    _run(stage, reference, report, strike)
    return report


def cable_campaign(
    folder: Path, reference: Table, machines: Machines, *, seconds: float, moments: Sequence[Moment]
) -> Report:
    """The same between two network namespaces: the cable is pulled, and packets vanish without a word."""
    stage = _stage(folder, reference, machines=machines)
    report = Report(f"network: cable between two namespaces pulled for {seconds:g} s at {', '.join(moments)}")

    def strike() -> None:
        for moment in moments:
            stage.traces.wait_for(moment, _LIMIT_S, stage.is_over)
            machines.pull()
            time.sleep(seconds)
            machines.plug()

    _run(stage, reference, report, strike)
    return report


_AIMED: tuple[tuple[Victim, Moment, str], ...] = (
    ("orchestrator", "transfer", "result"),
    ("ctrl_c_twice", "child", "cancel"),
)
"""What is done to the orchestrator, when, and which message it makes necessary."""


def _met(stage: Stage, kind: str) -> int:
    assert stage.proxy is not None
    return sum(stage.proxy.met_at[kind, fault] for fault in FAULTS)


def _blow(victim: Victim, moment: Moment) -> Blow:
    return Blow(victim, moment, delay_s=0.0, down_s=0.0, after_share=0.0, orchestrator_first=True)


def _stage(
    folder: Path, reference: Table, *, machines: Machines | None = None, network: dict[str, object] | None = None
) -> Stage:
    config = write_experiment(folder, len(reference.rows), is_large=True)
    return Stage(folder, config, network=network, **({} if machines is None else {"machines": machines}))


def _run(stage: Stage, reference: Table, report: Report, strike: Callable[[], None]) -> None:
    n_trials = len(reference.rows)
    begin_s = time.monotonic()
    try:
        with stage.open():
            strike()
            stage.finish(_LIMIT_S)
    except AssertionError as error:
        report.problems.append(str(error))
        report.log_tail = stage.log_tail()
        return
    found = audit(stage.traces.experiment, n_trials)
    differing = differences(read_table(stage.traces.experiment), reference)
    report.figures = {
        "runs": found.n_runs,
        "attempts": found.n_attempts,
        "ends of attempts": found.ends,
        "struck": dict(stage.struck),
        "orchestrator ended by itself": dict(stage.unasked),
        "lost": len(found.lost),
        "duplicated": len(found.duplicated),
        "orphan processes": len(stage.leftovers),
        "trials at the same time on a testbed": len(found.overlaps),
        "cells that differ from the undisturbed table": len(differing),
        "duration_s": time.monotonic() - begin_s,
    }
    report.problems += found.problems + differing
    report.problems += [f"orphan processes: {pids(stage.leftovers)}"] * bool(stage.leftovers)
    # A killed or stopped orchestrator is started again by us; one that gives up is not a campaign that completes.
    report.problems += [f"the orchestrator ended by itself: {dict(stage.unasked)}"] * bool(stage.unasked)
    report.log_tail = stage.log_tail() if report.problems else ""

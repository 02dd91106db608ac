"""Says in words why a campaign stands as it does, and what to do: pure, from what is known of it."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from contract.attempt_state import AttemptState, RunState
from orchestrator.disk_space import DiskSpace
from orchestrator.driver import Condition, Driver
from orchestrator.outage_note import OutageNote
from orchestrator.pool_file import RAY_SCHEME, is_of_ray
from orchestrator.processes import ProcessState, host_of, pid_of
from orchestrator.store.base import AttemptRow, RunRow
from orchestrator.store.control import Pause
from orchestrator.time_words import told_since, told_span, told_time

_SILENT_S = 120.0
_NAMED = 10
_TOLD_APART = 3
_OF_A_TESTBED = ("testbed_unreachable", "testbed_busy", "waiting", "thermal_gate", "cooldown")
"""Codes of remarks about a testbed and not about the process that drives it."""
_LARGEST_CLOCK_DIFFERENCE_S = 5.0
_FAILURES = 3
_ROOM = "Make room: when it is full the campaign stops, and can be continued later."
_ROOM_THERE = "Make room there: when it is full, trials fail."
_FAILED = (AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.LOST)


class Weight(StrEnum):
    """How bad it is."""

    PROBLEM = "problem"
    """Nothing moves, or soon nothing will, until somebody acts."""
    WARNING = "warning"
    """It goes on, and is worth a look."""
    NOTE = "note"
    """A fact that explains a wait."""


@dataclass(frozen=True)
class Remark:
    """One explanation.

    Attributes:
        weight: how bad.
        code: stable name.
        message: what is the case, since when.
        advice: what to do; empty where there is nothing to do.
        details: more of it, a line each.
    """

    weight: Weight
    code: str
    message: str
    advice: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Situation:
    """All that is known from here.

    Attributes:
        now: aware UTC.
        host: this machine.
        folder: of the experiment.
        rows: all runs.
        drivers: latest first.
        state_since: open attempt -> when it got its present state.
        disk: of this machine.
        process_state: of an owner.
        pause: None while the campaign is not paused.
        outage: of the run table's server, that an orchestrator on this machine noted last; None: there is none.
    """

    now: datetime
    host: str
    folder: Path
    rows: Sequence[RunRow]
    drivers: Sequence[Driver]
    state_since: Mapping[str, datetime]
    disk: DiskSpace
    process_state: Callable[[str], ProcessState]
    pause: Pause | None = None
    outage: OutageNote | None = None

    @cached_property
    def signs(self) -> dict[str, datetime]:
        """Owner -> newest sign of life in the attempts that it drove."""
        newest: dict[str, datetime] = {}
        for row in self.rows:
            for attempt in row.attempts:
                newest[attempt.owner] = max(attempt.updated_at, newest.get(attempt.owner, attempt.updated_at))
        return newest

    @cached_property
    def open(self) -> dict[str, AttemptRow]:
        """Attempts that have not ended, by their ids."""
        return {attempt.attempt_id: attempt for attempt in open_attempts(self.rows)}


def explain(situation: Situation) -> list[Remark]:
    """What there is to say, the worst first; empty when all runs have ended and nothing is wrong."""
    n_left = sum(row.state in (RunState.TODO, RunState.RUNNING) for row in situation.rows)
    remarks = [*_failures(situation.folder, situation.rows)]
    if n_left:
        remarks += _paused(situation)
        active = [each for each in situation.drivers if is_active(situation, each)]
        remarks += _of_drivers(situation, active)
        if not active:
            remarks.append(_gave_up_on_server(situation) or _undriven(situation))
        remarks += _held(situation, {driver.owner for driver in active})
        remarks += _disks(situation, active)
    remarks += _clock(situation)
    order = list(Weight)
    return sorted(remarks, key=lambda remark: order.index(remark.weight))


def open_attempts(rows: Sequence[RunRow]) -> list[AttemptRow]:
    """Attempts that have not ended."""
    return [attempt for row in rows for attempt in row.attempts if attempt.finished_at is None]


def is_active(situation: Situation, driver: Driver) -> bool:
    """Whether somebody may be at work there, as far as can be told."""
    return driver.condition is not Condition.ENDED and situation.process_state(driver.owner) is not ProcessState.GONE


def _of_drivers(situation: Situation, active: Sequence[Driver]) -> list[Remark]:
    """Of all that are at work; what is the case with many testbeds of a pool is told once."""
    found: dict[tuple[str, str, bool], list[tuple[Driver, Remark]]] = {}
    for driver in active:
        for remark in _driven(situation, driver):
            found.setdefault((driver.owner, remark.code, driver.is_member), []).append((driver, remark))
    remarks = []
    for (_, code, is_member), group in found.items():
        told = [remark for _, remark in group]
        # What is wrong with a process is wrong with all its testbeds; what is wrong with a testbed is its own.
        if not is_member or (code in _OF_A_TESTBED and len(group) <= _TOLD_APART):
            remarks += told
            continue
        if len(group) == 1 or code not in ("driven", *_OF_A_TESTBED):
            remarks.append(told[0])
            continue
        names = ", ".join(driver.testbed for driver, _ in group[:_NAMED])
        more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
        if code == "driven":
            message = (
                f"{_upper(_who(situation, group[0][0].owner))} drives this on {len(group)} testbeds ({names}{more})."
            )
            remarks.append(replace(told[0], message=message))
        else:
            message = f"{len(group)} testbeds ({names}{more}): {code.replace('_', ' ')}. The first of them: "
            remarks.append(replace(told[0], message=message + told[0].message))
    return remarks


def _driven(situation: Situation, driver: Driver) -> list[Remark]:
    """Of one process that is at work, as far as can be told."""
    now = situation.now
    seen_at = _seen_at(situation, driver)
    silent_s = (now - seen_at).total_seconds()
    who = _who(situation, driver.owner)
    state = situation.process_state(driver.owner)
    if state is ProcessState.SUSPENDED:
        advice = f"Wake it: `fg` in its terminal, or `kill -CONT {pid_of(driver.owner)}`."
        return [Remark(Weight.PROBLEM, "suspended", f"{_upper(who)}, which drives this, is suspended.", advice)]
    if silent_s > _SILENT_S:
        sign = f"the last sign of life was at {told_time(seen_at, now)}, {told_span(silent_s)} ago"
        if state is ProcessState.ALIVE:
            message = f"{_upper(who)} drives this and lives, but {sign}: it hangs, or its disk does."
            advice = f"End it with `kill {pid_of(driver.owner)}` and start it again: {_start(driver)}"
        else:
            message = f"{_upper(who)} drove this; {sign}. It cannot be told from here whether it lives."
            advice = f"Look there. If it is gone, start it again, there or here: {_start(driver)}"
        return [Remark(Weight.PROBLEM, "silent", message, advice)]
    held_up = _condition(situation, driver)
    if held_up is not None:
        return [held_up]
    message = f"{_upper(who)} drives this on the testbed {driver.testbed}; last sign of life {told_span(silent_s)} ago."
    return [Remark(Weight.NOTE, "driven", message)]


def _condition(situation: Situation, driver: Driver) -> Remark | None:
    now, since = situation.now, told_since(driver.since, situation.now)
    testbed = f"testbed {driver.testbed}{f' ({driver.url})' if driver.url else ''}"
    attempt = situation.open.get(driver.attempt_id or "")
    if driver.condition is Condition.UNREACHABLE:
        answered = f"; its last answer came at {told_time(driver.last_answer_at, now)}" if driver.last_answer_at else ""
        last = [f"Last attempt: {attempt.attempt_id}, {attempt.state} when last seen."] if attempt else []
        until = f" until {told_time(driver.until, now)}" if driver.until else ""
        waits = f"{_upper(_who(situation, driver.owner))} keeps trying{until}, and goes on by itself once it answers."
        return Remark(
            Weight.PROBLEM,
            "testbed_unreachable",
            f"The {testbed} is unreachable {since}{answered}.",
            _look_closer(driver),
            (*last, driver.message, waits),
        )
    if driver.condition is Condition.BUSY:
        message = f"The {testbed} is busy with another's trial {since}."
        waits = "The campaign goes on by itself when that trial has ended."
        return Remark(Weight.WARNING, "testbed_busy", message, details=(driver.message, waits))
    if driver.condition is Condition.WAITING and situation.pause is None:
        return Remark(Weight.WARNING, "waiting", f"It waits {since}: {driver.message}")
    if attempt is None or attempt.state is not AttemptState.CLAIMED:
        return None  # the cooldown that was written down is over
    left = f", at most {told_span((driver.until - now).total_seconds())} more" if driver.until else ""
    if driver.condition is Condition.GATE:
        return Remark(
            Weight.NOTE, "thermal_gate", f"Thermal gate before {attempt.run_id}: waiting {since}{left}. {_gate(driver)}"
        )
    if driver.condition is Condition.COOLING:
        return Remark(Weight.NOTE, "cooldown", f"Cooldown before {attempt.run_id}: pausing {since}{left}.")
    return None


def _look_closer(driver: Driver) -> str:
    if not is_of_ray(driver.url):
        return f"Look closer: `orchestrator doctor --testbed {driver.url}`."
    return (
        "Look closer on a machine of the Ray cluster: `ray status` says whether a unit of joulebed_testbed is free, "
        f"and `ray list actors` (of ray[default]) where {driver.url.removeprefix(RAY_SCHEME)} is."
    )


def _paused(situation: Situation) -> list[Remark]:
    pause = situation.pause
    if pause is None:
        return []
    message = f"The campaign is {pause.words} ({told_since(pause.at, situation.now)})."
    advice = f"Let it go on: `orchestrator resume {shlex.quote(str(situation.folder))}`."
    return [Remark(Weight.WARNING, "paused", message, advice)]


def _gate(driver: Driver) -> str:
    if driver.temp_c is None or driver.idle_temp_c is None or driver.delta_c is None:
        return "No temperature has been read yet."
    limit_c = driver.idle_temp_c + driver.delta_c
    wants = f"wants at most {limit_c:.1f} °C (idle {driver.idle_temp_c:.1f} °C + {driver.delta_c:g})"
    steady = "; low enough, but it still changes" if driver.temp_c <= limit_c else ""
    return f"The hottest sensor has {driver.temp_c:.1f} °C and the gate {wants}{steady}."


def _undriven(situation: Situation) -> Remark:
    """Runs are left, and nobody is at work on them."""
    now = situation.now
    last = next(iter(situation.drivers), None)
    attempts = [attempt for row in situation.rows for attempt in row.attempts]
    if last is None and not attempts:
        return Remark(Weight.NOTE, "not_begun", "No orchestrator has begun with it yet.", _start(None))
    if last is None:
        newest = max(attempts, key=lambda attempt: attempt.updated_at)
        message = (
            f"No orchestrator drives this experiment: the last sign of life came at "
            f"{told_time(newest.updated_at, now)}, of {_who(situation, newest.owner)}."
        )
        return Remark(Weight.PROBLEM, "undriven", message, f"To continue: {_start(None)}")
    who = _who(situation, last.owner)
    if last.condition is not Condition.ENDED:
        seen_at = _seen_at(situation, last)
        message = (
            f"No orchestrator drives this experiment: {who} is gone without a word (killed, or the machine was "
            f"restarted). Its last sign of life was at {told_time(seen_at, now)}, "
            f"{told_span((now - seen_at).total_seconds())} ago."
        )
        return Remark(Weight.PROBLEM, "undriven", message, f"To continue: {_start(last)}")
    ended = f"at {told_time(last.since, now)}, {told_span((now - last.since).total_seconds())} ago"
    if last.ending == "stopped":
        message = f"A person stopped {who} {ended}."
        return Remark(Weight.NOTE, "stopped", message, f"To continue: {_start(last)}")
    details = [last.message]
    if last.last_answer_at is not None and last.ending == "unreachable":
        details.append(f"The testbed's last answer came at {told_time(last.last_answer_at, now)}.")
    message = f"No orchestrator drives this experiment: {who} gave up {ended}."
    advice = f"When that is mended: {_start(last)}"
    return Remark(Weight.PROBLEM, last.ending or "undriven", message, advice, tuple(details))


def _gave_up_on_server(situation: Situation) -> Remark | None:
    """Its end could not be written into the run table: it is in the experiment's folder."""
    outage = situation.outage
    if outage is None or not outage.is_over:
        return None
    last = next((each for each in situation.drivers if each.owner == outage.owner), None)
    if last is None or any(each.seen_at > outage.until for each in situation.drivers):
        return None
    message = f"No orchestrator drives this experiment. {outage.words(situation.now)}"
    advice = f"The run table's server answers again. To continue: {_start(last)}"
    return Remark(Weight.PROBLEM, "run_table_away", message, advice, (outage.message,))


def _held(situation: Situation, active: set[str]) -> list[Remark]:
    """Attempts whose driver is no longer active, but whose lease is."""
    remarks = []
    for attempt in open_attempts(situation.rows):
        if attempt.owner in active or attempt.lease_until is None:
            continue
        is_elsewhere = situation.process_state(attempt.owner) is ProcessState.ELSEWHERE
        if is_elsewhere and attempt.lease_until > situation.now:
            message = (
                f"Attempt {attempt.attempt_id} is held by {_who(situation, attempt.owner)} until "
                f"{told_time(attempt.lease_until, situation.now)}; then any orchestrator takes it up."
            )
            remarks.append(Remark(Weight.NOTE, "held", message))
    return remarks


def _disks(situation: Situation, active: Sequence[Driver]) -> list[Remark]:
    remarks = []
    if situation.disk.is_scarce:
        weight = Weight.PROBLEM if situation.disk.is_too_little else Weight.WARNING
        message = f"The disk of {situation.folder} on this machine is {situation.disk.told}."
        remarks.append(Remark(weight, "disk", message, _ROOM))
    for driver in active or situation.drivers[:1]:
        if driver.testbed_disk_free_bytes is None or not driver.testbed_disk_total_bytes:
            continue
        disk = DiskSpace(driver.testbed_disk_free_bytes, driver.testbed_disk_total_bytes)
        if disk.is_scarce:
            weight = Weight.PROBLEM if disk.is_too_little else Weight.WARNING
            message = f"The disk of the testbed {driver.testbed} is {disk.told}, when it was last asked."
            remarks.append(Remark(weight, "testbed_disk", message, _ROOM_THERE))
    return remarks


def _clock(situation: Situation) -> list[Remark]:
    for driver in situation.drivers:
        if driver.owner != situation.drivers[0].owner:
            break
        offset_s = driver.clock_offset_s
        if offset_s is not None and abs(offset_s) > _LARGEST_CLOCK_DIFFERENCE_S:
            message = (
                f"Clock skew of {offset_s:+.0f} s: the clock of the testbed {driver.testbed} against the "
                "orchestrator's, when the campaign began."
            )
            advice = "Durations and energies are not touched by it, times of day in logs are. Set both clocks by NTP."
            return [Remark(Weight.WARNING, "clock_skew", message, advice)]
    return []


def _failures(folder: Path, rows: Sequence[RunRow]) -> list[Remark]:
    """The newest attempts all failed alike, for more than one run."""
    ended = sorted(
        ((attempt.finished_at, attempt) for row in rows for attempt in row.attempts if attempt.finished_at is not None),
        key=lambda pair: pair[0],
        reverse=True,
    )
    alike: list[AttemptRow] = []
    for _, attempt in ended:
        if attempt.state not in _FAILED or attempt.error is None:
            break
        if alike and alike[0].error is not None and attempt.error.code != alike[0].error.code:
            break
        alike.append(attempt)
    if len(alike) < _FAILURES or len({attempt.run_id for attempt in alike}) < 2 or alike[0].error is None:
        return []
    error = alike[0].error
    message = f"The last {len(alike)} attempts all failed with {error.code}."
    advice = f"See what one of them said: `orchestrator story {shlex.quote(str(folder))} {alike[0].run_id}`."
    return [Remark(Weight.PROBLEM, "failing", message, advice, (error.message,))]


def _seen_at(situation: Situation, driver: Driver) -> datetime:
    """The last sign of life: of its own, or of the attempt whose lease it renews."""
    return max(driver.seen_at, situation.signs.get(driver.owner, driver.seen_at))


def _who(situation: Situation, owner: str) -> str:
    host, pid = host_of(owner), pid_of(owner)
    where = "this machine" if host == situation.host else host
    return f"process {pid} on {where}" if pid is not None else f"the orchestrator {owner!r}"


def _start(driver: Driver | None) -> str:
    return f"`{driver.command}`." if driver is not None and driver.command else "`orchestrator run CONFIG.py ...`."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]

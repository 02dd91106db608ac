"""Looks at what a campaign left: is anything lost, there twice, or other than in an undisturbed one?"""

import csv
import hashlib
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from contract.trial_result import TrialResult
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord

VARYING = frozenset(
    {
        "attempt_id",  # drawn anew for each attempt
        "reasons",  # of the accepted attempt: none
        "start_temp_c",  # of this machine, now
        "idle_temp_c",
        "cooldown_s",
        "thermal_gate",
    }
)
"""Columns of the run table that no two campaigns share."""

MEASURED = frozenset({"J", "s", "1/s", "W", "degC", "MHz"})
"""Units of columns that are measured, and so differ from run to run of one machine: filled in both, or in neither."""

_REQUEST_KEYS = ("item_id", "prompt_sha256", "n_prompt_tokens", "n_output_tokens", "finish_reason", "answer")
"""What a request's record must repeat; its times need not."""


@dataclass(frozen=True)
class Table:
    """What of a campaign's result must not depend on what happened to it.

    Attributes:
        rows: run id -> column -> cell of run_table.csv; a measured cell is only told to be filled or empty.
        answers: run id -> SHA-256 of everything that was asked and answered in its accepted attempt.
        domains: run id -> what was measured.
    """

    rows: Mapping[str, Mapping[str, str]]
    answers: Mapping[str, str]
    domains: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        n_runs: planned.
        n_attempts: executed.
        ends: state of an attempt -> how many.
        lost: runs that are not DONE, or whose evidence is not there.
        duplicated: runs with more than one accepted attempt, or attempts that are in two places.
        overlaps: pairs of trials of one testbed that were executed at the same time.
        wrong: everything else that should not be, in words.
        n_windows: trials whose times were compared.
    """

    n_runs: int
    n_attempts: int
    ends: Mapping[str, int]
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    overlaps: tuple[str, ...]
    wrong: tuple[str, ...]
    n_windows: int

    @property
    def problems(self) -> list[str]:
        """All of them, in words."""
        named = {"lost": self.lost, "duplicated": self.duplicated, "at the same time": self.overlaps}
        return [f"{what}: {each}" for what, found in named.items() for each in found] + list(self.wrong)


def read_table(experiment: Path) -> Table:
    """The comparable part of a campaign's result.

    Args:
        experiment: its folder, after the end.
    """
    described = json.loads((experiment / "run_table.columns.json").read_text())
    units = {column["name"]: column.get("unit", "") for column in described["columns"]}
    rows = {}
    with (experiment / "run_table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["__run_id"]] = {
                name: ("filled" if cell.strip() else "empty") if units.get(name) in MEASURED else cell
                for name, cell in row.items()
                if name not in VARYING
            }
    answers, domains = {}, {}
    for run_id, attempt_id, result in accepted(experiment):
        answers[run_id] = _answers(experiment / "runs" / run_id / attempt_id)
        domains[run_id] = tuple(result.summary.domains) if result.summary else ()
    return Table(rows, answers, domains)


def differences(disturbed: Table, undisturbed: Table) -> list[str]:
    """Where two tables differ, in words."""
    found = []
    for run_id in sorted({*disturbed.rows, *undisturbed.rows}):
        here, there = disturbed.rows.get(run_id, {}), undisturbed.rows.get(run_id, {})
        for column in sorted({*here, *there}):
            if here.get(column) != there.get(column):
                found.append(f"{run_id}, {column}: {here.get(column)!r}, undisturbed {there.get(column)!r}")
        if disturbed.answers.get(run_id) != undisturbed.answers.get(run_id):
            found.append(f"{run_id}: other answers than undisturbed")
        if disturbed.domains.get(run_id) != undisturbed.domains.get(run_id):
            found.append(f"{run_id}: measured {disturbed.domains.get(run_id)}, not {undisturbed.domains.get(run_id)}")
    if list(disturbed.rows) != list(undisturbed.rows):
        found.append("the rows are in another order")
    return found


def accepted(experiment: Path) -> list[tuple[str, str, TrialResult]]:
    """Run, attempt and result of all accepted attempts."""
    with closing(sqlite3.connect(experiment / "run_table.sqlite")) as connection:
        rows = connection.execute("SELECT run_id, attempt_id, result FROM attempt WHERE accepted").fetchall()
    return [(run_id, attempt_id, TrialResult.model_validate_json(text)) for run_id, attempt_id, text in rows]


def audit(experiment: Path, n_runs: int, *, n_testbeds: int = 1) -> Audit:
    """Look at everything.

    Args:
        experiment: the campaign's folder, after its end.
        n_runs: that were planned.
        n_testbeds: more than one may well run trials at the same time.
    """
    with closing(sqlite3.connect(experiment / "run_table.sqlite")) as connection:
        states = dict(connection.execute("SELECT run_id, state FROM run ORDER BY position").fetchall())
        attempts = connection.execute("SELECT attempt_id, run_id, state, accepted, finished_at FROM attempt").fetchall()
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        foreign = connection.execute("PRAGMA foreign_key_check").fetchall()
    lost = [f"{run_id} is {state}" for run_id, state in states.items() if state != "DONE"]
    lost += [f"only {len(states)} of {n_runs} runs are in the table"] * (len(states) != n_runs)
    duplicated = [
        f"{run_id} has {n} accepted attempts"
        for run_id, n in Counter(row[1] for row in attempts if row[3]).items()
        if n > 1
    ]
    lost += [f"{run_id} has no accepted attempt" for run_id in set(states) - {row[1] for row in attempts if row[3]}]
    wrong = [] if integrity == "ok" and not foreign else [f"the database: {integrity} {foreign}"]
    wrong += [f"{row[0]} has no end" for row in attempts if row[4] is None]
    for run_id, attempt_id, result in accepted(experiment):
        lost += _missing(experiment / "runs" / run_id / attempt_id, result)
        if (result.run_id, result.attempt_id) != (run_id, attempt_id):
            duplicated.append(f"{attempt_id} holds the result of {result.attempt_id}")
    known = {row[0] for row in attempts}
    for path in experiment.glob("runs/*/*"):
        if path.name not in known:
            wrong.append(f"runs/{path.parent.name}/{path.name} belongs to no attempt of the table")
    windows = _windows(experiment)
    return Audit(
        n_runs=len(states),
        n_attempts=len(attempts),
        ends=dict(Counter(row[2] for row in attempts)),
        lost=tuple(lost),
        duplicated=tuple(duplicated),
        overlaps=tuple(_overlaps(windows)) if n_testbeds == 1 else (),
        wrong=tuple(wrong),
        n_windows=len(windows),
    )


def _answers(folder: Path) -> str:
    digest = hashlib.sha256()
    for line in (folder / attempt_folder.REQUESTS).read_bytes().splitlines():
        record = json.loads(line)
        digest.update(json.dumps([record[key] for key in _REQUEST_KEYS]).encode())
    return digest.hexdigest()


def _missing(folder: Path, result: TrialResult) -> list[str]:
    """What of an accepted attempt's evidence is not there, or not what its result lists."""
    found = []
    for artifact in result.artifacts:
        path = folder / artifact.name
        data = path.read_bytes() if path.exists() else b""
        if len(data) != artifact.size_bytes or hashlib.sha256(data).hexdigest() != artifact.sha256:
            found.append(f"{folder.name}/{artifact.name} is not what its result lists")
    stored = folder / "result.json"
    if not stored.exists() or TrialResult.model_validate_json(stored.read_bytes()) != result:
        found.append(f"{folder.name}/result.json is not the result of the run table")
    if not result.artifacts or not (folder / attempt_folder.REQUESTS).exists():
        found.append(f"{folder.name} has no evidence")
    found += [f"{folder.name}/{path.name} is a half" for path in folder.glob("*.part")]
    return found


def _windows(experiment: Path) -> list[tuple[float, float, str]]:
    """When each trial was executed, from its own marks: start and end in monotonic seconds, attempt."""
    windows = []
    for path in experiment.glob(f"runs/*/*/{attempt_folder.RECORD}"):
        record = ChildRecord.model_validate_json(path.read_bytes())
        if record.phases:
            end_s = max(phase.start_s + phase.duration_s for phase in record.phases)
            windows.append((record.origin_s, record.origin_s + end_s, path.parent.name))
    return sorted(windows)


def _overlaps(windows: list[tuple[float, float, str]]) -> list[str]:
    return [
        f"{first[2]} ended {first[1] - second[0]:.3f} s after {second[2]} began"
        for first, second in itertools.pairwise(windows)
        if second[0] < first[1]
    ]

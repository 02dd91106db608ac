"""The serving study's table as text, CSV and JSON."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from analysis.serving import FIGURES, PolicyRow, ServingCase
from analysis.statistics import MeanInterval

_HEAD = (
    "Policy",
    "Role",
    "Seeds",
    "Met/kJ",
    "SLO %",
    "J/request",
    "J (study)",
    "J (whole)",
    "Mean s",
    "P99 s",
    "Req/s",
    "Batch",
    "Lost %",
    "Saving %",
)

_TOKEN_HEAD = ("Policy", "Role", "TTFT in time %", "TTFT P99 s", "TPOT in time %", "TPOT P99 s")


def serving_text(cases: Sequence[ServingCase]) -> str:
    """The tables for people, with what must be known to read them."""
    lines: list[str] = []
    for case in cases:
        objective = "" if case.slo_s is None else f" (SLO {case.slo_s:g} s)"
        lines += [f"{case.name}{objective}", ""]
        lines += _table(_HEAD, [_cells(row) for row in case.rows])
        with_tokens = [row for row in case.rows if row.mean("ttft_p99_s") is not None]
        if with_tokens:
            lines += ["", *_table(_TOKEN_HEAD, [_token_cells(row) for row in with_tokens])]
        lines += [f"{row.policy}: {row.problem}" for row in case.rows if row.problem]
        lines += [*case.withheld, ""]
    return "\n".join([*lines, *_notes(cases)]) + "\n"


def serving_csv(cases: Sequence[ServingCase]) -> str:
    """One row per case and policy, in full precision; an empty cell is "not measured"."""
    factors = list(dict.fromkeys(name for case in cases for name in case.levels))
    columns = [f"{name}{part}" for name in FIGURES for part in ("", "_sd", "_half_width")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["policy", "role", "n_planned", "n_seeds", "n_requests", "is_simulated", "continuous"]
    writer.writerow([*factors, *head, *columns, "saving", "saving_half_width", "problem"])
    for case in cases:
        for row in case.rows:
            means = [part for name in FIGURES for part in _parts(row.means[name])]
            told = [row.policy, row.role, row.n_planned, len(row.seeds), row.n_requests, row.is_simulated]
            saving = _parts(row.saving)[::2] if row.saving is not None else (None, None)
            levels = [case.levels.get(name) for name in factors]
            writer.writerow([*levels, *told, row.continuous, *means, *saving, row.problem])
    return text.getvalue()


def seeds_csv(cases: Sequence[ServingCase]) -> str:
    """One row per case, policy and seed."""
    factors = list(dict.fromkeys(name for case in cases for name in case.levels))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*factors, "policy", "role", "arrival_seed", *FIGURES])
    for case in cases:
        for row in case.rows:
            for seed in row.seeds:
                values = [row.by_seed[name].get(seed) for name in FIGURES]
                writer.writerow([*(case.levels.get(name) for name in factors), row.policy, row.role, seed, *values])
    return text.getvalue()


def serving_json(cases: Sequence[ServingCase]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "case": dict(case.levels),
            "slo_s": case.slo_s,
            "withheld": list(case.withheld),
            "policies": [
                {
                    "policy": row.policy,
                    "role": row.role,
                    "n_planned": row.n_planned,
                    "seeds": list(row.seeds),
                    "n_requests": row.n_requests,
                    "is_simulated": row.is_simulated,
                    "continuous": row.continuous,
                    "problem": row.problem or None,
                    "settings": dict(row.settings),
                    "figures": {name: vars(row.means[name]) for name in FIGURES},
                    "saving": None if row.saving is None else vars(row.saving),
                }
                for row in case.rows
            ],
        }
        for case in cases
    ]


def _parts(interval: MeanInterval) -> tuple[float | None, float | None, float | None]:
    return interval.mean, interval.sd, interval.half_width


def _cells(row: PolicyRow) -> tuple[str, ...]:
    saving = "" if row.saving is None else _cell(row.saving, 100, 1)
    return (
        row.policy,
        row.role,
        f"{len(row.seeds)}",
        _cell(row.means["efficiency_per_kj"], 1, 2),
        _cell(row.means["slo_share"], 100, 2),
        _cell(row.means["service_energy_per_request_j"], 1, 1),
        _cell(row.means["study_energy_per_request_j"], 1, 0),
        _cell(row.means["energy_per_request_j"], 1, 1),
        _cell(row.means["latency_mean_s"], 1, 2),
        _cell(row.means["latency_p99_s"], 1, 2),
        _cell(row.means["throughput_per_s"], 1, 3),
        _cell(row.means["mean_batch"], 1, 1, interval=False),
        _cell(row.means["lost_share"], 100, 2, interval=False),
        saving,
    )


def _token_cells(row: PolicyRow) -> tuple[str, ...]:
    return (
        row.policy,
        row.role,
        _cell(row.means["ttft_share"], 100, 1),
        _cell(row.means["ttft_p99_s"], 1, 2),
        _cell(row.means["tpot_share"], 100, 1),
        _cell(row.means["tpot_p99_s"], 1, 3),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return [_line(head, widths), rule, *(_line(row, widths) for row in rows)]


def _cell(value: MeanInterval, scale: float, digits: int, *, interval: bool = True) -> str:
    if value.mean is None:
        return "-"
    half = f" ± {scale * value.half_width:.{digits}f}" if interval and value.half_width is not None else ""
    return f"{scale * value.mean:.{digits}f}{half}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    rest = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*first, *rest]).rstrip()


def _notes(cases: Sequence[ServingCase]) -> list[str]:
    rows = [row for case in cases for row in case.rows if row.seeds]
    notes = [
        "± is the 95 % interval of the mean over seeds (Student's t). Latency counts from the true arrival. SLO %: "
        "requests served in time, of those served, lost, and left when their deadline had passed.",
        "J/request: energy of a batch divided over it. J (study): every request charged with its whole batch, as the "
        "study counted; nobody can save it. J (whole): all energy of the phase, idling and switching included, over "
        "requests served. Met/kJ: requests in time per kilojoule of that. Saving: J (whole) against static_high on the "
        "same arrivals.",
    ]
    if any(row.is_simulated for row in rows):
        notes.insert(0, "SIMULATED: times and powers are those of a table; nothing was measured.")
    if any(len(row.seeds) < 10 for row in rows):
        notes.append("Fewer than ten seeds: intervals are wide, and small differences between policies say nothing.")
    return notes

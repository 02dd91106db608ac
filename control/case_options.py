"""A serving case from the command line, and from the folder of an earlier training."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.errors import UsageError
from control.serving_case import ServingCase
from testbed.simulation.arrivals import ArrivalSpec
from testbed.simulation.service_table import ServiceTable, read_service_table

CASE = "case.json"
TABLE = "table.csv"


def case_of(
    table: ServiceTable,
    *,
    slo_s: float,
    rate_per_s: float,
    cv: float | None = None,
    duration_s: float = 3600.0,
    wait_s: float | None = 1.0,
    switch_s: float = 0.05,
    switch_energy_j: float | None = None,
    idle_power_w: float = 0.0,
    queue_limit: int = 100,
    max_batch: int | None = None,
) -> ServingCase:
    """A case of Poisson arrivals, or of bursts where `cv` is given; arguments as of `ServingCase`."""
    arrivals = (
        ArrivalSpec("poisson", rate_per_s) if cv is None or cv == 1.0 else ArrivalSpec("gamma", rate_per_s, cv=cv)
    )
    return ServingCase(
        table,
        slo_s,
        arrivals,
        duration_s=duration_s,
        switch_s=switch_s,
        switch_energy_j=switch_energy_j,
        idle_power_w=idle_power_w,
        queue_limit=queue_limit,
        wait_s=wait_s,
        max_batch=max_batch,
    )


def keep_case(folder: Path, case: ServingCase, slo_share: float) -> None:
    """Write what a training is of; the table too, so that the folder needs nothing else.

    Raises:
        UsageError: the folder has another training, or cannot be written.
    """
    stored = _stored(case, slo_share)
    path = folder / CASE
    try:
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before != stored:
                changed = sorted(name for name in stored if stored[name] != before.get(name))
                raise UsageError(
                    f"{folder} has a training of another case ({', '.join(changed) or 'other arguments'} differ). "
                    "Give another folder: --out."
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_text(case.table.to_csv(), encoding="utf-8")
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used ({error}). Give another folder: --out.") from error


def kept_case(folder: Path, table: ServiceTable | None = None, **changed: Any) -> tuple[ServingCase, float]:
    """The case of a training and the share that it wants.

    Args:
        folder: of the training.
        table: in place of its own: a run on another model.
        **changed: arguments of `case_of` in place of its own; None: its own.

    Raises:
        UsageError: there is no training in it.
    """
    try:
        stored = json.loads((folder / CASE).read_text(encoding="utf-8"))
        own = table or replace(read_service_table(folder / TABLE), source=stored["table"])
        arguments = {**stored["arguments"], **{name: value for name, value in changed.items() if value is not None}}
        return case_of(own, **arguments), float(stored["slo_share"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} has no training that can be read ({error}). Make one: "
            f"python -m control train TABLE --out {folder}"
        ) from error


def named_files(given: Sequence[str]) -> dict[str, Path]:
    """`LABEL=FILE` of the command line.

    Raises:
        UsageError: one has no label, or its file is not there.
    """
    found = {}
    for text in given:
        label, mark, name = text.partition("=")
        if not (label and mark and name):
            raise UsageError(f"--ablation {text}: give a label and a policy file, such as 'no RL=FILE'.")
        if not Path(name).is_file():
            raise UsageError(
                f"--ablation {text}: {name} is no file. `train` writes seed_N.safetensors and checkpoints."
            )
        found[label] = Path(name)
    return found


def _stored(case: ServingCase, slo_share: float) -> dict[str, Any]:
    return {
        "arguments": {
            "slo_s": case.slo_s,
            "rate_per_s": case.arrivals.rate_per_s,
            "cv": case.arrivals.cv,
            "duration_s": case.duration_s,
            "wait_s": case.wait_s,
            "switch_s": case.switch_s,
            "switch_energy_j": case.switch_energy_j,
            "idle_power_w": case.idle_power_w,
            "queue_limit": case.queue_limit,
            "max_batch": case.max_batch,
        },
        "table": case.table.source,
        "table_sha256": case.table.sha256,
        "slo_share": slo_share,
    }

"""A note in an exported folder: which of its rows were measured here. Experiment Runner never looks at it."""

import json
from pathlib import Path
from typing import Any

from contract.errors import ConfigError

MARKS = "joulebed.json"
_MEASURED = "measured_by_joulebed"


def encode_marks(experiment: str, plan_sha256: str, measured: list[str], imported: list[str], told: Any) -> bytes:
    """The note as bytes.

    Args:
        experiment: its name here.
        plan_sha256: of its plan.
        measured: run ids whose row was measured here.
        imported: run ids whose row Experiment Runner measured.
        told: data column -> the column of ours that fills it.
    """
    document = {
        "experiment": experiment,
        "plan_sha256": plan_sha256,
        _MEASURED: measured,
        "measured_by_experiment_runner": imported,
        "column_sources": told,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def measured_here(folder: Path) -> frozenset[str]:
    """Run ids of a folder whose row was measured here; none without a note.

    Raises:
        ConfigError: the note is damaged.
    """
    path = folder / MARKS
    try:
        return frozenset(map(str, json.loads(path.read_text(encoding="utf-8"))[_MEASURED]))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}). Remove it: all DONE rows count as Experiment "
            "Runner's then."
        ) from error

"""Rows of single devices, of trials that ran on several at the same time: cut at each device's own marks."""

from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from analysis.columns import DEVICE_COLUMNS, polars_type
from analysis.experiment import Experiment, runs_frame
from contract.trial_result import DeviceResult, EnergyMethod, TrialResult

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]

WHOLE = "all"
"""Begins the name of the whole, of which its devices are parts."""

_SAME = ("n_requests", "n_output_tokens", "tokens_per_s", "duration_s", "energy_j", "energy_net_j", "baseline_power_w")
_CONDITIONS = ("start_temp_c", "max_temp_c", "memory_peak_bytes", "gpu_memory_peak_bytes", "throttled_share")


def named_devices(spec: JsonValue) -> list[str]:
    """Names of the devices of a stored spec; empty where it names none."""
    devices = spec.get("devices") if isinstance(spec, dict) else None
    if not isinstance(devices, list):
        return []
    return [str(each["name"]) for each in devices if isinstance(each, dict) and "name" in each]


def whole_name(names: list[str]) -> str:
    """Name of several devices taken together."""
    return f"{WHOLE}: {' + '.join(names)}"


def device_rows(row: Row, spec: JsonValue, result: TrialResult | None) -> list[Row]:
    """One row for the whole and one for each device; none where the trial names no devices.

    Args:
        row: of the run.
        spec: as it is stored.
        result: of the run; None: it has none.
    """
    names = named_devices(spec)
    if not names:
        return []
    measured = {each.device: each for each in result.devices} if result is not None else {}
    whole = {**row, "device": whole_name(names)}
    return [whole, *(_device_row(row, name, measured.get(name)) for name in names)]


def _device_row(row: Row, name: str, found: DeviceResult | None) -> Row:
    # What belongs to the run stays, what was measured of the whole does not.
    kept = {key: value for key, value in row.items() if key not in _OF_THE_WHOLE}
    kept["device"] = name
    if found is None:
        return kept
    rise_c = None
    if found.max_temp_c is not None and found.start_temp_c is not None:
        rise_c = found.max_temp_c - found.start_temp_c
    return {
        **kept,
        **{field: getattr(found, field) for field in (*_SAME, *_CONDITIONS)},
        "temp_rise_c": rise_c,
        "energy_method": found.energy_method.value if found.energy_method else None,
        "energy_source": found.energy_source or None,
        "energy_domains": name if found.energy_method not in (None, EnergyMethod.ESTIMATE) else None,
        "energy_notes": found.energy_note,
        "kind": found.kind,
        "tail_s": found.tail_s,
        "tail_energy_j": found.tail_energy_j,
    }


_OF_THE_WHOLE = frozenset(
    {
        *_SAME,
        *_CONDITIONS,
        "temp_rise_c",
        "cpu_energy_j",
        "gpu_energy_j",
        "dram_energy_j",
        "prefill_energy_j",
        "decode_energy_j",
        "unassigned_energy_j",
        "load_energy_j",
        "uncertainty_j",
        "energy_method",
        "energy_source",
        "energy_domains",
        "energy_notes",
        "n_gaps",
        "n_wraps",
        "n_prompt_tokens",
        "n_items",
        "n_correct",
        "n_abstained",
        "accuracy",
        "chance_accuracy",
        "load_s",
        "engine",
        "model_revision",
        "sampler_cpu_s",
    }
)


def device_frame(experiment: Experiment) -> "pl.DataFrame | None":
    """The rows of all devices, in the columns of `Experiment.runs` and of `DEVICE_COLUMNS`; None where there are none.

    Args:
        experiment: from `load_runs`.
    """
    import polars as pl

    if not experiment.devices:
        return None
    extra = [
        pl.Series(name, [row.get(name) for row in experiment.devices], dtype=polars_type(column.kind))
        for name, column in DEVICE_COLUMNS.items()
    ]
    return runs_frame(experiment.devices, experiment.factors).with_columns(extra)

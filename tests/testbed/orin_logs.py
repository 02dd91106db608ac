"""Grid logs of a made-up Orin whose times, powers and temperatures follow known formulas."""

import csv
import math
from pathlib import Path

from testbed.simulation.orin_thermal import ThermalModel

JETSON = Path(__file__).resolve().parents[3] / "shared" / "data" / "jetson"

BATCHES = (1, 7, 13, 16, 19, 25, 31)
TRUTH = ThermalModel(ambient_c=50.0, resistance_on_c_per_w=0.5, resistance_off_c_per_w=2.0, capacity_j_per_c=600.0)
GAP_S = 0.3
COLUMNS = (
    "prefill_freq_bin",
    "decode_freq_bin",
    "effective_batch_size",
    "energy",
    "inference_time",
    "temperature",
    "prefill_power_w",
    "decode_power_w",
    "prefill_time",
    "decode_time",
    "num_prompt_tokens",
    "num_decode_tokens",
)

Row = dict[str, float]


def row(prefill_bin: int, decode_bin: int, batch: int, temp_c: float = 60.0) -> Row:
    """Linear in bins and batch, so that what is interpolated is known."""
    prefill_s, decode_s = 0.2 - 0.01 * prefill_bin + 0.005 * batch, 6.0 - 0.2 * decode_bin + 0.1 * batch
    prefill_w, decode_w = 15 + 0.5 * prefill_bin + 0.1 * batch, 16 + decode_bin + 0.1 * batch
    values = (
        prefill_bin,
        decode_bin,
        batch,
        prefill_s * prefill_w + decode_s * decode_w,
        prefill_s + decode_s + GAP_S,
        temp_c,
        prefill_w,
        decode_w,
        prefill_s,
        decode_s,
        16 * batch,
        100 * batch,
    )
    return dict(zip(COLUMNS, map(float, values), strict=True))


def mean_power_w(each: Row) -> float:
    return each["energy"] / (each["prefill_time"] + each["decode_time"])


def fan_on_rows() -> list[Row]:
    rows = [row(p, d, b) for p in range(11) for d in range(11) for b in BATCHES]
    for each in rows:
        each["temperature"] = float(TRUTH.end_c(mean_power_w(each), True))
    return rows


def fan_off_rows() -> list[Row]:
    """Heating from 60 deg C, in order."""
    temp_c, rows = 60.0, []
    for number in range(120):
        each = row(number % 11, 2 + number % 5, BATCHES[number % len(BATCHES)])
        # Each temperature is that at the row's end: the first is the start.
        if number:
            end_c = float(TRUTH.end_c(mean_power_w(each), False))
            temp_c = end_c + (temp_c - end_c) * math.exp(-each["inference_time"] / TRUTH.time_constant_s(False))
        each["temperature"] = temp_c
        rows.append(each)
    return rows


def write_log(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for each in rows:
            writer.writerow(
                {k: int(v) if k.endswith(("bin", "size")) or k.startswith("num_") else repr(v) for k, v in each.items()}
            )
    return path

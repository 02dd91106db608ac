"""Profiles that are known exactly: a made-up device with the physics of a real one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from control.profile_table import ProfileCell

SHARED = Path(__file__).parents[3] / "shared" / "data" / "a100"
CLOCKS = (705, 810, 900, 1005, 1110, 1200, 1290, 1410)
BATCHES = (1, 2, 4, 8, 16, 32)


def latency_s(clock_mhz: float, batch: int) -> float:
    """Work of the cores, which the clock shortens, beside waiting for the memory."""
    return (3.0 + 0.06 * batch) * 1000 / clock_mhz + 2.0 + 0.05 * batch


def power_w(clock_mhz: float, batch: int) -> float:
    """Leakage, and switching at a voltage that rises with the clock."""
    return 60.0 + (40.0 + 0.5 * batch) * (clock_mhz / 1000) ** 3


def made_up_cells(
    noise: float = 0.0, seed: int = 0, clocks: Sequence[int] = CLOCKS, batches: Sequence[int] = BATCHES
) -> list[ProfileCell]:
    """The device's cells, with a relative noise of both quantities."""
    draw = np.random.default_rng(seed)
    return [
        ProfileCell(
            float(clock),
            batch,
            100,
            50,
            latency_s(clock, batch) * float(np.exp(noise * draw.standard_normal())),
            power_w(clock, batch) * float(np.exp(noise * draw.standard_normal())),
        )
        for clock in clocks
        for batch in batches
    ]


def write_shared(path: Path, cells: Sequence[ProfileCell]) -> Path:
    """As the tables that others share, with lengths."""
    lines = ["gpu_frequency_mhz,batch_size,input_len,output_len,latency_s,power_w"]
    lines += [
        f"{cell.clock_mhz:g},{cell.batch_size},{cell.n_input_tokens},{cell.n_output_tokens},{cell.latency_s!r},"
        f"{cell.power_w!r}"
        for cell in cells
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

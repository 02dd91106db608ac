"""A small edge case on the made-up Orin of `tests.testbed.orin_logs`."""

from pathlib import Path

from testbed.edge_control.case import EdgeCase, make_case
from testbed.simulation.orin import SimulatedOrin
from testbed.simulation.orin_grid import OrinGrid, read_orin_grid
from tests.testbed.orin_logs import TRUTH, fan_on_rows, write_log


def made_up_grid(folder: Path) -> OrinGrid:
    return read_orin_grid(write_log(folder / "fan_on.csv", fan_on_rows()))


def small_case(grid: OrinGrid, **settings: object) -> EdgeCase:
    return make_case(SimulatedOrin.of(grid, TRUTH), **settings)  # type: ignore[arg-type]

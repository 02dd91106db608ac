"""A board that never was, of the AGX Orin's clocks: to try things out where no grid log is at hand."""

import numpy as np

from testbed.simulation.orin import SimulatedOrin
from testbed.simulation.orin_grid import CLOCKS_MHZ, OrinTable
from testbed.simulation.orin_thermal import ThermalModel

SOURCE = "made up, of no device"

_BATCHES = (1, 2, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 32)
_PROMPT, _OUTPUT = 16.0, 100.0


def made_up_orin() -> SimulatedOrin:
    """Times fall with the clock and rise with the batch, powers rise with both; the size of it is an Orin's."""
    bins = np.arange(len(CLOCKS_MHZ))
    speed = np.array(CLOCKS_MHZ) / CLOCKS_MHZ[-1]
    batch = np.array(_BATCHES, dtype=float)
    prefill, decode = speed[:, None, None], speed[None, :, None]
    shape = (bins.size, bins.size, batch.size)
    full = np.ones(shape)
    values = {
        # Reading the weights does not go with the clock: half of the decode's time stays.
        "prefill_s": full * (0.02 + 0.004 * batch) / prefill,
        "decode_s": full * (2.4 + 0.03 * batch) * (0.5 + 0.5 / decode),
        "prefill_power_w": full * (12 + 18 * prefill**2 + 0.1 * batch),
        "decode_power_w": full * (11 + 14 * decode**2 + 0.15 * batch),
        "n_prompt_tokens": full * _PROMPT * batch,
        "n_output_tokens": full * _OUTPUT * batch,
    }
    table = OrinTable(bins, bins, np.array(_BATCHES), values, SOURCE)
    thermal = ThermalModel(
        ambient_c=57.0, resistance_on_c_per_w=0.25, resistance_off_c_per_w=1.7, capacity_j_per_c=800.0
    )
    return SimulatedOrin(table, thermal, (_PROMPT, _OUTPUT), gap_s=0.3)

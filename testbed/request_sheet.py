"""request_energy.csv: the joules of each measured request, one row each, in workload order.

| column | unit | |
|---|---|---|
| index, item_id | | place in the workload, and the item |
| prefill_s, decode_s | s | submission to first token; first to last token |
| prefill_energy_j, decode_energy_j, energy_j | J | by tokens in flight, see `energy.request_energy` |
| cpu_energy_j, gpu_energy_j, dram_energy_j, system_energy_j | J | parts of energy_j |
| n_prompt_tokens, n_output_tokens | | |
| method | | counter, sampled or estimate: the weakest among the summed domains |
| resolution_s | s | sampling period: what is shorter is interpolated |
| device | | which of the trial's devices answered; no such column where it names none |

An empty cell is not measured, or not to be told apart.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np

from contract.trial_result import EnergyMethod
from energy.request_energy import EnergySplit, RequestTiming
from testbed.attempt_folder import RequestRecord

_COMPONENTS = ("cpu", "gpu", "dram", "system")

COLUMNS = (
    "index",
    "item_id",
    "prefill_s",
    "decode_s",
    "prefill_energy_j",
    "decode_energy_j",
    "energy_j",
    *(f"{component}_energy_j" for component in _COMPONENTS),
    "n_prompt_tokens",
    "n_output_tokens",
    "method",
    "resolution_s",
)

DEVICE = "device"


def timing(record: RequestRecord) -> RequestTiming:
    """When a request was worked on."""
    return RequestTiming(
        submitted_s=record.submitted_s,
        token_s=np.array(record.token_s, dtype=np.float64),
        finished_s=record.finished_s,
        n_prompt_tokens=record.n_prompt_tokens,
        n_output_tokens=record.n_output_tokens,
    )


def request_sheet(records: Sequence[RequestRecord], split: EnergySplit, method: EnergyMethod) -> str:
    """The file's text; floats in full precision.

    Args:
        records: the requests.
        split: with one share for each.
        method: of the sum.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_devices = any(record.device is not None for record in records)
    writer.writerow([*COLUMNS, *([DEVICE] if has_devices else [])])
    for index, (record, share) in enumerate(zip(records, split.requests, strict=True)):
        writer.writerow(
            [
                index,
                record.item_id,
                share.prefill_s,
                share.decode_s,
                share.prefill_energy_j,
                share.decode_energy_j,
                share.energy_j,
                *(share.component_energy_j.get(component) for component in _COMPONENTS),
                record.n_prompt_tokens,
                record.n_output_tokens,
                method.value,
                split.resolution_s,
                *([record.device] if has_devices else []),
            ]
        )
    return text.getvalue()

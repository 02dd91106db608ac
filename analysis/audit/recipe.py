"""Recipes that reproduce the columns others have published, errors included: to compare, never to use."""

from dataclasses import dataclass

import numpy as np

from analysis.experiment_runner import RunFolder, read_prompt_sheet
from contract.errors import LogFormatError
from energy.energibridge_log import read_energibridge_log

RECIPES = ("published",)


@dataclass(frozen=True)
class PublishedRow:
    """The columns of the public LLaMA study's raw table, named as there.

    Attributes:
        run_id: of the run.
        duration_ms: last `Time` less first, of the rows from the first prompt's start to the last one's end.
        cpu_joules: steps of PACKAGE_ENERGY over these rows, added; a step down counts as the reading after it, which
            loses what was used up to the wrap.
        gpu_joules: sum of GPU power x 200 ms over these rows, plus cpu_joules: the CPU is in it already.
        energy_consumption_total_joules: gpu_joules + cpu_joules, so that the CPU counts twice.
    """

    run_id: str
    duration_ms: int
    cpu_joules: float
    gpu_joules: float
    energy_consumption_total_joules: float


def published(run: RunFolder) -> PublishedRow:
    """Compute the study's columns as it did.

    Raises:
        LogFormatError: log or prompt sheet is missing or cannot be read, or lacks what the study used.
    """
    if run.log is None or run.prompt_sheet is None:
        missing = "EnergiBridge log" if run.log is None else "prompt sheet"
        raise LogFormatError(f"{run.path} holds no {missing}.", file=str(run.path))
    log = read_energibridge_log(run.log)
    sheet = read_prompt_sheet(run.prompt_sheet)
    package = next((trace for trace in log.traces if trace.component == "cpu"), None)
    gpu = next((trace for trace in log.traces if trace.component == "gpu"), None)
    if package is None or gpu is None:
        raise LogFormatError(f"{run.log}: the recipe needs a package counter and a GPU.", file=str(run.log))
    # Whole milliseconds, as in the file: a sample on the edge must not be lost to rounding.
    time_ms = np.rint(package.time_s * 1e3).astype(np.int64)
    inside = (time_ms >= round(sheet.start_s[0] * 1e3)) & (time_ms <= round(sheet.end_s[-1] * 1e3))
    if not inside.any():
        raise LogFormatError(f"{run.log} has no sample between the first and the last prompt.", file=str(run.log))
    counter_j = package.values[inside]
    steps_j = np.diff(counter_j)
    down = steps_j < 0
    cpu_j = float(steps_j[~down].sum() + counter_j[1:][down].sum())
    gpu_j = float(gpu.values[inside].sum()) * 0.2 + cpu_j
    span_ms = int(time_ms[inside][-1] - time_ms[inside][0])
    return PublishedRow(run.run_id, span_ms, cpu_j, gpu_j, gpu_j + cpu_j)

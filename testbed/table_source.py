"""Service tables of a trial: they travel in the spec, or lie in the testbed's own folder."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import JsonValue, ValidationError

from contract.errors import InvalidOptionError
from contract.serving import TableSpec
from testbed.data_folder import SERVICE_TABLES, named_file
from testbed.simulation.service_table import ServiceTable, read_service_table


def service_table(
    given: TableSpec | JsonValue,
    env: Mapping[str, str],
    *,
    folder: Path | None = None,
    is_clock_left_alone: bool = False,
) -> ServiceTable:
    """The table that a spec means.

    Args:
        given: a `TableSpec`, the same as JSON, or the name of a file in the testbed's folder `service_tables`.
        env: of the process.
        folder: in place of that folder.
        is_clock_left_alone: one clock will do, see `ServiceTable`.

    Raises:
        InvalidOptionError: no such file, or it is neither.
        ServiceTableError: it has holes, or a figure that is none.
    """
    if isinstance(given, str):
        path = named_file(SERVICE_TABLES, given, env, folder=folder)
        return read_service_table(path, is_clock_left_alone=is_clock_left_alone)
    if not isinstance(given, TableSpec):
        try:
            given = TableSpec.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidOptionError(
                f"The table of the trial is none ({where}: {first['msg']}): give the name of a file in the testbed's "
                f"folder {SERVICE_TABLES}, or clock_mhz, batch_sizes, latency_s, power_w and source."
            ) from error
    lengths = {len(row) for row in (*given.latency_s, *given.power_w)}
    if lengths != {len(given.batch_sizes)}:
        raise InvalidOptionError(
            f"The table {given.source!r} of the trial has rows of {sorted(lengths)} cells for {len(given.batch_sizes)} "
            "batch sizes: each clock needs a cell for each of them."
        )
    return ServiceTable(
        clock_mhz=np.array(given.clock_mhz),
        batch_sizes=np.array(given.batch_sizes, dtype=np.int64),
        latency_s=np.array(given.latency_s),
        power_w=np.array(given.power_w),
        source=given.source,
        n_input_tokens=given.n_input_tokens,
        n_output_tokens=given.n_output_tokens,
        is_clock_left_alone=is_clock_left_alone,
    )

"""Files that a request may name: by their name alone, in a folder of the testbed's own."""

import re
from collections.abc import Mapping
from pathlib import Path

from contract.errors import InvalidOptionError
from testbed.reclaim import MARK

REQUEST_TRACES = "request_traces"
"""Requests in the one JSONL form: see `testbed.workloads.request_trace`."""
SERVICE_TABLES = "service_tables"
"""CSV files: see `testbed.simulation.service_table`."""
ORIN_GRIDS = "orin_grids"
"""Grid logs of a Jetson: see `testbed.simulation.orin_grid`."""
POLICIES = "policies"
"""Planned and learned policies."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def named_file(kind: str, name: str, env: Mapping[str, str], *, folder: Path | None = None) -> Path:
    """The path of a file that a request names. Nothing outside the folder is ever opened, links included.

    Args:
        kind: `REQUEST_TRACES`, `SERVICE_TABLES`, `ORIN_GRIDS` or `POLICIES`: the folder in the testbed's data folder.
        name: of the file, as the request has it.
        env: of the process; a child knows its testbed's data folder by it.
        folder: in place of that one.

    Raises:
        InvalidOptionError: no such file, or a name that is a path. The message has the names that are there.
    """
    if folder is None and not env.get(MARK):
        raise InvalidOptionError(f"There is no testbed here to look up {name!r} in: it has the folder {kind}.")
    home = (folder or Path(env[MARK]) / kind).resolve()
    if not _NAME.fullmatch(name):
        raise InvalidOptionError(
            f"{name!r} is no name of a file: give the bare name of one in the testbed's folder {kind}.", name=name
        )
    path = (home / name).resolve()
    if path.parent != home or not path.is_file():
        there = sorted(each.name for each in home.iterdir()) if home.is_dir() else []
        raise InvalidOptionError(
            f"The testbed has no file {name!r} in {home}. There is: {', '.join(there) or 'nothing'}. Copy it there.",
            name=name,
        )
    return path

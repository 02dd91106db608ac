"""Watches a campaign's files for the moment at which an attempt goes from one state to the next."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed import attempt_folder
from tests.faults.plan import Moment

_LOOK_S = 0.004


@dataclass(frozen=True)
class Traces:
    """Where a campaign leaves its traces.

    Attributes:
        data_dir: of the testbed.
        experiment: the folder under results/.
    """

    data_dir: Path
    experiment: Path

    @property
    def run_table(self) -> Path:
        """The SQLite file."""
        return self.experiment / "run_table.sqlite"

    def n_done(self) -> int:
        """Runs that are DONE; 0 where there is no table yet."""
        return self._count("SELECT COUNT(*) FROM run WHERE state = 'DONE'")

    def n_left(self) -> int | None:
        """Runs that are not ended; None where there is no table yet."""
        if not self._count("SELECT COUNT(*) FROM run"):
            return None
        return self._count("SELECT COUNT(*) FROM run WHERE state IN ('TODO', 'RUNNING')")

    def passed(self, moment: Moment) -> set[str]:
        """The attempts that have come as far as a moment, by id, or by number in the table."""
        return _PASSED[moment](self)

    def wait_for(self, moment: Moment, limit_s: float, is_over: Callable[[], bool]) -> bool:
        """Wait until one more attempt passes a moment; False when none did, or the campaign is over."""
        before = self.passed(moment)
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s and not is_over():
            if self.passed(moment) - before:
                return True
            time.sleep(_LOOK_S)
        return False

    def _count(self, query: str) -> int:
        try:
            with sqlite3.connect(f"file:{self.run_table}?mode=ro", uri=True, timeout=0.5) as connection:
                (number,) = connection.execute(query).fetchone()
        except sqlite3.Error:
            return 0
        else:
            connection.close()
            return int(number)

    def _counted(self, query: str) -> set[str]:
        return {str(number) for number in range(self._count(query))}

    def _on_testbed(self, name: str) -> set[str]:
        return {path.parent.name for path in self.data_dir.glob(f"attempts/*/{name}")}

    def _measuring(self) -> set[str]:
        found = set()
        for path in self.data_dir.glob(f"attempts/*/{attempt_folder.PROGRESS}"):
            if not path.with_name(attempt_folder.RECORD).exists() and b'"MEASURING"' in _bytes(path):
                found.add(path.parent.name)
        return found

    def _arrived(self, name: str) -> set[str]:
        return {path.name for path in self.experiment.glob("runs/*/*") if (path / name).exists()}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


_PASSED: Mapping[Moment, Callable[[Traces], set[str]]] = {
    "any": lambda traces: set(),
    "claimed": lambda traces: traces._counted("SELECT COUNT(*) FROM attempt"),
    "created": lambda traces: traces._on_testbed(attempt_folder.SPEC),
    "child": lambda traces: traces._on_testbed(attempt_folder.PROCESS),
    "measuring": lambda traces: traces._measuring(),
    "recorded": lambda traces: traces._on_testbed(attempt_folder.RECORD),
    "collected": lambda traces: traces._on_testbed(attempt_folder.RESULT),
    "transfer": lambda traces: traces._arrived("."),
    "transferred": lambda traces: traces._arrived("result.json"),
    "committed": lambda traces: traces._counted("SELECT COUNT(*) FROM attempt WHERE finished_at IS NOT NULL"),
    "acknowledged": lambda traces: traces._on_testbed(attempt_folder.ACKNOWLEDGED),
}

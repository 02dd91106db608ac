"""Files of a consumer study run by hand: a table of latencies, a table of energies, raw power logs, prompts, manifests.

Nothing is written, and what cannot be read is said in words: one bad line never hides the others.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import UsageError

_LATENCY_COLUMNS = {"timestamp", "run_id", "prompt_id", "latency_ms"}
_ENERGY_COLUMNS = {"timestamp", "energy_joules"}
_GADGET_POWER = re.compile(r"(?:Processor|Package) Power_\d+\(Watt\)")
_GADGET_ENERGY = re.compile(r"Cumulative (?:Processor|Package) Energy_\d+\(Joules\)")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})[:.](\d{1,3})")
_PROMPT_NOTE = re.compile(r"prompt=(\S+)")
_ENTRY = re.compile(r"^\s*-\s+id:\s*([^\s#]+)")
_KEY = re.compile(r"^\s+(\w+):\s*([^#]*)")


@dataclass(frozen=True)
class Request:
    """One answered prompt, as the table of latencies has it.

    Attributes:
        run_id: the arm.
        backend: `cpu` or `gpu`, as it says.
        prompt_id: which prompt.
        end_s: unix seconds of the stamp, which is written when the answer is there.
        latency_s: as it says.
        n_tokens: as it says; None where it does not.
    """

    run_id: str
    backend: str
    prompt_id: str
    end_s: float
    latency_s: float
    n_tokens: int | None

    @property
    def start_s(self) -> float:
        """When the stopwatch began."""
        return self.end_s - self.latency_s


@dataclass(frozen=True)
class EnergyRow:
    """One figure of the table of energies.

    Attributes:
        at_s: unix seconds of its stamp, which is written when the sampling is over.
        backend: as it says.
        energy_j: as it says.
        prompt_id: from its note; empty where it has none.
    """

    at_s: float
    backend: str
    energy_j: float
    prompt_id: str


@dataclass(frozen=True)
class RawPower:
    """A raw power log.

    Attributes:
        path: the file.
        component: `cpu` (Intel Power Gadget) or `gpu`.
        time_s: unix seconds; of Power Gadget, which stamps local time without a date, seconds since midnight.
        has_date: whether `time_s` is unix seconds.
        power_w: one per sample.
        utilisation: of the processor, 0 to 1; empty where it was not logged.
        counter_j: last reading of its own cumulative counter; None where there is none.
        counter_s: what that reading covers.
    """

    path: Path
    component: str
    time_s: tuple[float, ...]
    has_date: bool
    power_w: tuple[float, ...]
    utilisation: tuple[float, ...] = ()
    counter_j: float | None = None
    counter_s: float | None = None


@dataclass(frozen=True)
class ConsumerFiles:
    """A study's folder.

    Attributes:
        folder: that was read.
        requests: of the table of latencies, in its order.
        energies: of the table of energies, in its order.
        raw: power logs.
        prompts: id -> text.
        manifest: arm -> option -> value, as text.
        problems: what could not be read, in words.
    """

    folder: Path
    requests: tuple[Request, ...]
    energies: tuple[EnergyRow, ...] = ()
    raw: tuple[RawPower, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    manifest: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def is_consumer_study(folder: Path) -> bool:
    """Whether a folder holds a table of latencies of this kind."""
    return folder.is_dir() and any(columns >= _LATENCY_COLUMNS for _, columns in _headers(folder))


def read_consumer_files(folder: Path) -> ConsumerFiles:
    """Read a study's folder.

    Args:
        folder: with a CSV that has the columns timestamp, run_id, prompt_id and latency_ms.

    Raises:
        UsageError: there is no such table in it, or it has no row that can be read.
    """
    problems: list[str] = []
    requests: list[Request] = []
    energies: list[EnergyRow] = []
    raw: list[RawPower] = []
    for path, columns in _headers(folder):
        if columns >= _LATENCY_COLUMNS:
            requests += _requests(path, problems)
        elif columns >= _ENERGY_COLUMNS:
            energies += _energies(path, problems)
        elif {"timestamp", "power_w"} <= columns:
            raw += _gpu_log(path, problems)
        elif any(_GADGET_POWER.fullmatch(name) for name in columns):
            raw += _gadget_log(path, problems)
    if not requests:
        raise UsageError(
            f"{folder} has no table of latencies that can be read: a CSV with the columns "
            f"{', '.join(sorted(_LATENCY_COLUMNS))}.{' ' + problems[0] if problems else ''}"
        )
    return ConsumerFiles(
        folder=folder,
        requests=tuple(requests),
        energies=tuple(energies),
        raw=tuple(raw),
        prompts=_prompts(folder, problems),
        manifest=_manifest(folder),
        problems=tuple(problems),
    )


def _headers(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield path, {name.strip() for name in next(csv.reader(file), [])}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        names = [name.strip() for name in next(reader, [])]
        for number, cells in enumerate(reader, start=2):
            if len(cells) > 1:
                yield number, dict(zip(names, (cell.strip() for cell in cells), strict=False))


def _requests(path: Path, problems: list[str]) -> Iterator[Request]:
    for number, row in _rows(path):
        try:
            tokens = row.get("tokens_generated", "")
            yield Request(
                run_id=row["run_id"],
                backend=row.get("backend", ""),
                prompt_id=row["prompt_id"],
                end_s=_unix_s(row["timestamp"]),
                latency_s=float(row["latency_ms"]) / 1e3,
                n_tokens=int(float(tokens)) if tokens else None,
            )
        except (KeyError, ValueError) as error:
            problems.append(f"{path.name}, line {number} cannot be read ({error}): it is left out.")


def _energies(path: Path, problems: list[str]) -> Iterator[EnergyRow]:
    for number, row in _rows(path):
        try:
            note = _PROMPT_NOTE.search(row.get("notes", ""))
            yield EnergyRow(
                at_s=_unix_s(row["timestamp"]),
                backend=row.get("backend", ""),
                energy_j=float(row["energy_joules"]),
                prompt_id=note[1] if note else "",
            )
        except (KeyError, ValueError) as error:
            problems.append(f"{path.name}, line {number} cannot be read ({error}): it is left out.")


def _gpu_log(path: Path, problems: list[str]) -> list[RawPower]:
    samples = []
    for number, row in _rows(path):
        try:
            samples.append((_unix_s(row["timestamp"]), float(row["power_w"])))
        except (KeyError, ValueError) as error:
            problems.append(f"{path.name}, line {number} cannot be read ({error}): it is left out.")
    if len(samples) < 2:
        problems.append(f"{path.name} has fewer than two power readings: it is left out.")
        return []
    times, watts = zip(*samples, strict=True)
    return [RawPower(path, "gpu", times, True, watts)]


def _gadget_log(path: Path, problems: list[str]) -> list[RawPower]:
    times, watts, shares, joules, elapsed = [], [], [], [], []
    for number, row in _rows(path):
        power = next((name for name in row if _GADGET_POWER.fullmatch(name)), None)
        clock = _CLOCK.fullmatch(row.get("System Time", ""))
        if power is None or clock is None:
            continue  # the summary at the end
        try:
            watts.append(float(row[power]))
            hours, minutes, seconds, ms = (int(part) for part in clock.groups())
            times.append(3600.0 * hours + 60 * minutes + seconds + ms / 1e3)
            energy = next((name for name in row if _GADGET_ENERGY.fullmatch(name)), None)
            joules.append(float(row[energy]) if energy else None)
            elapsed.append(float(row["Elapsed Time (sec)"]) if row.get("Elapsed Time (sec)") else None)
            if row.get("CPU Utilization(%)"):
                shares.append(float(row["CPU Utilization(%)"]) / 100)
        except (KeyError, ValueError) as error:
            problems.append(f"{path.name}, line {number} cannot be read ({error}): it is left out.")
    if len(times) < 2 or len(times) != len(watts):
        problems.append(f"{path.name} has fewer than two power readings: it is left out.")
        return []
    return [RawPower(path, "cpu", tuple(times), False, tuple(watts), tuple(shares), joules[-1], elapsed[-1])]


def _prompts(folder: Path, problems: list[str]) -> dict[str, str]:
    prompts = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                each = json.loads(line)
                prompts[str(each["id"])] = str(each["text"])
            except (ValueError, KeyError, TypeError):
                problems.append(f"{path.name}, line {number} is no prompt: it is left out.")
    return prompts


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    """Arms of the manifests: `- id: NAME` and the keys below it. The first value of a key holds no less than others."""
    arms: dict[str, dict[str, str]] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        current: dict[str, str] | None = None
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            entry, key = _ENTRY.match(line), _KEY.match(line)
            if entry:
                current = arms.setdefault(entry[1].strip("'\""), {"file": path.name})
            elif line and not line[0].isspace():
                current = None
            elif key and current is not None:
                current[key[1]] = key[2].strip().strip("'\"")
    return arms


def _unix_s(text: str) -> float:
    """A stamp without a zone is taken as UTC: only differences matter."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def span_text(values: Sequence[float], unit: str) -> str:
    """`1.0 to 2.5 s`, or one value."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"

"""Results folders of GreenLab's Experiment Runner: run table, run folders, EnergiBridge logs and prompt sheets.

Nothing is written. What a folder lacks is None, or said in words; only a folder without any log is an error.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import LogFormatError, UsageError

_RUN_FOLDER = re.compile(r"run_(\d+)_repetition_(\d+)")
_LOG_HEADER = re.compile(
    rb"(?:(?:PACKAGE|CPU|DRAM|PP0|PP1|CORE\d+)_ENERGY \(J\)|GPU\d+_POWER \(mWatts\)|(?:CPU|SYSTEM)_POWER \(Watts\))"
)
_TABLE_SUFFIXES = (".csv", ".tsv")
_DEPTH = 4
_HEADER_BYTES = 65536
_STARTS = ("start", "start_time", "started", "begin", "start_timestamp")
_ENDS = ("end", "end_time", "ended", "stop", "finish", "end_timestamp")
_ANSWERS = ("response", "output", "answer", "completion", "generated_text")
_PROMPTS = ("prompt", "input", "question")
_TOKENS = ("response_tokens", "output_tokens", "completion_tokens", "n_tokens", "tokens")
# Experiment Runner's own columns; of the published tables, what stands for them.
_RUN_COLUMNS = ("run",)
_REPETITION_COLUMNS = ("repetition", "rep")


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files are.

    Attributes:
        run_id: name of the folder; with the log's name where a folder holds several.
        path: the folder.
        log: EnergiBridge's; None where there is none.
        prompt_sheet: one line per prompt with its start and end; None where there is none.
        summary: what EnergiBridge said at the end; None where it was not kept.
    """

    run_id: str
    path: Path
    log: Path | None
    prompt_sheet: Path | None
    summary: Path | None


@dataclass(frozen=True)
class PromptSheet:
    """When each prompt was sent, and what came back.

    Attributes:
        start_s: unix seconds, one per prompt.
        end_s: unix seconds.
        resolution_s: of the stamps: 1 where all are whole seconds.
        prompts: empty where they were not kept.
        answers: empty where they were not kept.
        n_tokens: of all answers; None where it was not counted.
        n_broken: lines without a readable start and end; they are left out.
        tokens: of each answer; empty where any was not counted.
    """

    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    resolution_s: float
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    n_tokens: int | None
    n_broken: int
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunTableFile:
    """A table with one row per run, as text.

    Attributes:
        path: the file.
        columns: names, in order.
        rows: cells as they stand in the file, stripped.
        run_ids: of each row, `run_{i}_repetition_{j}` or what the table says.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    run_ids: tuple[str, ...]

    def factors(self) -> tuple[str, ...]:
        """Columns that are the same in all repetitions of a run, as factors are; a column that is the same in all
        rows tells nothing and is left out.

        Without repetitions, of Experiment Runner's own layout, where factors come first: the first columns that
        together tell the runs apart.
        """
        levels: dict[str, dict[str, set[str]]] = {}
        for run_id, row in zip(self.run_ids, self.rows, strict=True):
            for name, cell in row.items():
                levels.setdefault(name, {}).setdefault(run_number(run_id), set()).add(cell)
        has_repetitions = len(self.rows) > len({run_number(run_id) for run_id in self.run_ids})
        if not has_repetitions:
            return self._leading_factors()
        return tuple(
            name
            for name, by_run in levels.items()
            if name.lower() not in ("__run_id", "__done", *_RUN_COLUMNS, *_REPETITION_COLUMNS)
            and all(len(cells) == 1 for cells in by_run.values())
            and len(set().union(*by_run.values())) > 1
        )

    def _leading_factors(self) -> tuple[str, ...]:
        varying = [name for name in self.columns[2:] if len({row[name] for row in self.rows}) > 1]
        if self.columns[:2] == ("__run_id", "__done"):
            for n in range(1, len(varying) + 1):
                if len({tuple(row[name] for name in varying[:n]) for row in self.rows}) == len(self.rows):
                    return tuple(varying[:n])
        return ()


def run_number(run_id: str) -> str:
    """The part of a run's name that its repetitions share."""
    match = _RUN_FOLDER.fullmatch(run_id)
    return match.group(1) if match else run_id


def run_order(run_id: str) -> tuple[int, int, str]:
    """Sorts `run_2_repetition_0` before `run_10_repetition_0`."""
    match = _RUN_FOLDER.fullmatch(run_id)
    return (int(match.group(1)), int(match.group(2)), "") if match else (1 << 30, 0, run_id)


def find_run_folders(folder: Path) -> list[RunFolder]:
    """All runs under a folder, sorted by their number.

    A run is a folder with an EnergiBridge log, whatever the log is called, or one named as Experiment Runner names
    them.

    Raises:
        UsageError: the folder is not there, or there is no log in it.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Give the folder that holds run_table.csv or the run folders.")
    runs: list[RunFolder] = []
    for each in _folders(folder, _DEPTH):
        runs += _runs_in(each)
    if not any(run.log for run in runs):
        raise UsageError(
            f"There is no EnergiBridge log under {folder}. A log is a CSV with the columns Time and, such as, "
            f"PACKAGE_ENERGY (J) or GPU0_POWER (mWatts)."
        )
    return sorted(runs, key=lambda run: run_order(run.run_id))


def has_run_folder(folder: Path) -> bool:
    """Whether any run is under a folder, with or without its log."""
    return any(_runs_in(each) for each in _folders(folder, _DEPTH))


def find_run_tables(folder: Path) -> list[Path]:
    """Files under a folder with a row per run: run_table.csv first, then the others by path."""
    found = [
        path
        for each in _folders(folder, 2)
        if not _RUN_FOLDER.fullmatch(each.name)
        for path in sorted(each.iterdir())
        if path.suffix.lower() in _TABLE_SUFFIXES and path.is_file() and _is_run_table(_header(path))
    ]
    return sorted(found, key=lambda path: (path.name != "run_table.csv", str(path)))


def read_run_table(path: Path) -> RunTableFile:
    """Read a run table, whatever its separator.

    Raises:
        UsageError: it has no column that names the run.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    header = text.partition("\n")[0].rstrip("\r")
    reader = csv.DictReader(text.splitlines(), delimiter=_separator(header))
    columns = tuple(reader.fieldnames or ())
    if not _is_run_table(columns):
        raise UsageError(f"{path} has neither a column __run_id nor the columns run and repetition.")
    rows = tuple({name: (row.get(name) or "").strip() for name in columns} for row in reader)
    return RunTableFile(path, columns, rows, tuple(_run_id(row) for row in rows))


def read_prompt_sheet(path: Path) -> PromptSheet:
    """Read when each prompt was sent; seconds, milliseconds, micro- or nanoseconds of the unix clock, or ISO 8601
    (taken as UTC where it names no zone).

    Raises:
        LogFormatError: there is no line with a start and an end.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline().rstrip("\r\n")
            file.seek(0)
            # An answer may be longer than csv's default limit.
            csv.field_size_limit(1 << 30)
            rows = list(csv.reader(file, delimiter="\t" if "\t" in header else _separator(header)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LogFormatError(f"{path} cannot be read: {error}.", file=str(path)) from error
    names = [name.strip().lower() for name in rows[0]] if rows else []
    start, end = _first(names, _STARTS), _first(names, _ENDS)
    if start is None or end is None:
        raise LogFormatError(f"{path}, line 1: there are no columns start and end.", file=str(path), line=1)
    answer, prompt, tokens = _first(names, _ANSWERS), _first(names, _PROMPTS), _first(names, _TOKENS)
    starts_s: list[float] = []
    ends_s: list[float] = []
    kept = []
    n_broken = 0
    for row in rows[1:]:
        if not any(map(str.strip, row)):
            continue
        start_s, end_s = (_unix_s(row[index]) if index < len(row) else None for index in (start, end))
        if start_s is None or end_s is None or end_s < start_s:
            n_broken += 1
            continue
        starts_s.append(start_s)
        ends_s.append(end_s)
        kept.append(row)
    if not kept:
        raise LogFormatError(f"{path}: no line has a readable start and end.", file=str(path))
    is_whole = all(map(float.is_integer, (*starts_s, *ends_s)))
    counts = _counts(_cells(kept, tokens))
    return PromptSheet(
        tuple(starts_s),
        tuple(ends_s),
        1.0 if is_whole else 0.001,
        _cells(kept, prompt),
        _cells(kept, answer),
        sum(counts) if counts else None,
        n_broken,
        counts,
    )


def number(text: str) -> tuple[float | None, bool]:
    """A cell as a number, and whether it was written with a decimal comma."""
    try:
        return float(text), False
    except ValueError:
        pass
    if re.fullmatch(r"-?\d+,\d+", text):
        return float(text.replace(",", ".")), True
    return None, False


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for each in sorted(folder.iterdir()):
            if each.is_dir() and not each.is_symlink() and not each.name.startswith("."):
                yield from _folders(each, depth - 1)


def _runs_in(folder: Path) -> list[RunFolder]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tables = [path for path in files if path.suffix.lower() in _TABLE_SUFFIXES]
    logs = [path for path in tables if _LOG_HEADER.search(_head(path))]
    # An empty log has no header: its name alone tells what it was to be.
    logs = logs or [path for path in tables if "energibridge" in path.name.lower()]
    if not logs and not _RUN_FOLDER.fullmatch(folder.name):
        return []
    sheets = [path for path in tables if path not in logs and _is_prompt_sheet(_header(path))]
    summaries = [path for path in files if path.suffix == ".txt" and "summary" in path.name.lower()]
    sheet, summary = (found[0] if found else None for found in (sheets, summaries))
    if len(logs) <= 1:
        return [RunFolder(folder.name, folder, logs[0] if logs else None, sheet, summary)]
    return [RunFolder(f"{folder.name}/{log.stem}", folder, log, None, None) for log in logs]


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.readline(_HEADER_BYTES)
    except OSError:
        return b""


def _header(path: Path) -> tuple[str, ...]:
    text = _head(path).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    return tuple(next(csv.reader([text], delimiter=_separator(text)), ()))


def _separator(header: str) -> str:
    # The most frequent one: a quoted name may hold another.
    return max(",;\t|", key=header.count)


def _is_run_table(header: tuple[str, ...]) -> bool:
    names = {name.strip().lower() for name in header}
    return "__run_id" in names or (not names.isdisjoint(_RUN_COLUMNS) and not names.isdisjoint(_REPETITION_COLUMNS))


def _is_prompt_sheet(header: tuple[str, ...]) -> bool:
    names = [name.strip().lower() for name in header]
    return _first(names, _STARTS) is not None and _first(names, _ENDS) is not None


def _run_id(row: dict[str, str]) -> str:
    cells = {name.strip().lower(): cell for name, cell in row.items()}
    if "__run_id" in cells:
        return cells["__run_id"]
    repetition = next(cells[name] for name in _REPETITION_COLUMNS if name in cells)
    return f"run_{cells['run']}_repetition_{repetition}"


def _first(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _cells(rows: list[list[str]], index: int | None) -> tuple[str, ...]:
    return () if index is None else tuple(row[index] if index < len(row) else "" for row in rows)


def _counts(cells: tuple[str, ...]) -> tuple[int, ...]:
    values = [number(cell.strip())[0] for cell in cells]
    known = [int(value) for value in values if value is not None]
    return tuple(known) if len(known) == len(values) else ()


def _unix_s(text: str) -> float | None:
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        try:
            stamp = datetime.fromisoformat(text)
        except ValueError:
            return None
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    if not 1e8 <= value < 1e20:
        return None
    # Between 1973 and 5138 the four units do not overlap.
    for limit, scale in ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6)):
        if value < limit:
            return value * scale
    return value * 1e-9

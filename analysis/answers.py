"""Every answer of an experiment, with its item, its gold label and what was read from it.

Two kinds of folder are read: results of JouleBed (`runs/RUN/ATTEMPT/requests.jsonl`) and of GreenLab's Experiment
Runner (`prompts_out.tsv` beside each log, gold labels in `prompts/*.jsonl`). Nothing is written.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from analysis.experiment_runner import find_run_folders, find_run_tables, number, read_run_table, run_number
from analysis.run_table import RUN_TABLE
from contract.errors import UsageError
from scoring.label import read_label
from scoring.task import LABELS, label_in_words

REQUESTS = "requests.jsonl"
PROMPTS = "prompts"
_PROMPT_COLUMNS = ("prompt", "input", "question")
_ANSWER_COLUMNS = ("response", "output", "answer", "completion", "generated_text")


@dataclass(frozen=True)
class Answer:
    """One answer to one item in one run.

    Attributes:
        run_id: planned row.
        treatment: factor -> level, as text.
        item_id: stable id of the item, such as `BoolQ-12`.
        task: one of `scoring.task.LABELS`, or what the item's id begins with.
        prompt: what was asked.
        answer: what the model wrote.
        gold_label: the right answer; None where it is not known.
        read_label: what the rules of `scoring` read; None: they abstained.
        published_score: the score beside the answer in the folder, whatever it is called accuracy for; None: none.
    """

    run_id: str
    treatment: Mapping[str, str]
    item_id: str
    task: str
    prompt: str
    answer: str
    gold_label: str | None
    read_label: str | None
    published_score: float | None = None


@dataclass(frozen=True)
class AnswerSet:
    """All answers of a folder.

    Attributes:
        name: of the folder.
        path: of the folder.
        factors: in the order of the run table.
        answers: by run, then as they were asked.
        notes: what was left out, in sentences.
    """

    name: str
    path: Path
    factors: tuple[str, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()


def read_answers(folder: Path, prompts: Path | None = None) -> AnswerSet:
    """Read the answers of an experiment of either kind.

    Args:
        folder: `results/EXPERIMENT`, or a folder of Experiment Runner.
        prompts: of Experiment Runner: folder with the gold labels; None: `prompts/` in the folder.

    Raises:
        UsageError: there are no answers, or no gold labels for them.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Give results/EXPERIMENT, or a folder of Experiment Runner.")
    found = _joulebed(folder) if (folder / RUN_TABLE).is_file() else _experiment_runner(folder, prompts)
    if not found.answers:
        raise UsageError(f"{folder} holds no answers yet. {' '.join(found.notes)}".strip())
    return found


class _Request(BaseModel):
    """The columns of requests.jsonl that are read here."""

    item_id: str
    messages: list[dict[str, str]]
    answer: str
    gold_label: str | None
    predicted_label: str | None
    device: str | None = None


def _joulebed(folder: Path) -> AnswerSet:
    from analysis.load import load_runs

    experiment = load_runs(folder)
    answers: list[Answer] = []
    missing = []
    for run in experiment.runs.to_dicts():
        if not run["counted"]:
            continue
        path = folder / "runs" / run["run_id"] / run["attempt_id"] / REQUESTS
        treatment = {name: str(run[name]) for name in experiment.factors}
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            missing.append(run["run_id"])
            continue
        for at, line in enumerate(lines, start=1):
            try:
                request = _Request.model_validate_json(line)
            except ValidationError as error:
                raise UsageError(f"{path}, line {at} is not a request ({error.errors()[0]['msg']}).") from error
            answers.append(
                Answer(
                    run["run_id"],
                    treatment,
                    # Several devices may answer one item, each in its own words.
                    f"{request.item_id}@{request.device}" if request.device else request.item_id,
                    request.item_id.rpartition("-")[0] or request.item_id,
                    next((each["content"] for each in reversed(request.messages) if each.get("role") == "user"), ""),
                    request.answer,
                    request.gold_label,
                    request.predicted_label,
                )
            )
    notes = []
    if missing:
        notes.append(f"{len(missing)} counted runs have no {REQUESTS} ({', '.join(missing[:4])}): not in here.")
    if experiment.excluded:
        notes.append(f"{len(experiment.excluded)} planned runs are not counted: not in here.")
    return AnswerSet(experiment.name, folder, experiment.factors, tuple(answers), tuple(notes))


@dataclass(frozen=True)
class _Item:
    item_id: str
    task: str
    gold_label: str | None
    fields: Mapping[str, str]


def _experiment_runner(folder: Path, prompts: Path | None) -> AnswerSet:
    items = _items(prompts or folder / PROMPTS)
    tables = find_run_tables(folder)
    table = read_run_table(tables[0]) if tables else None
    factors = table.factors() if table else ()
    rows = dict(zip(table.run_ids, table.rows, strict=True)) if table else {}
    answers: list[Answer] = []
    read: dict[tuple[str, str], str | None] = {}
    unknown = 0
    for run in find_run_folders(folder):
        if run.prompt_sheet is None:
            continue
        row = rows.get(run.run_id, {})
        treatment = {name: row[name] for name in factors if name in row} or {"run": run_number(run.run_id)}
        asked: Counter[str] = Counter()
        for prompt, answer, score in _sheet(run.prompt_sheet):
            key = _squeezed(prompt)
            if key not in items:
                unknown += 1
                continue
            # A data set may hold an item twice: the first time it was asked is the first item.
            item = items[key][asked[key] % len(items[key])]
            asked[key] += 1
            # Repetitions often repeat to the byte, and reading is slow.
            if (item.item_id, answer) not in read:
                read[item.item_id, answer] = read_label(item.task, answer, item.fields)
            label = read[item.item_id, answer]
            answers.append(
                Answer(run.run_id, treatment, item.item_id, item.task, prompt, answer, item.gold_label, label, score)
            )
    notes = (f"{unknown:,} answers belong to no prompt with a gold label: not in here.",) if unknown else ()
    return AnswerSet(folder.name, folder, factors or ("run",), tuple(answers), notes)


def _items(folder: Path) -> dict[str, list[_Item]]:
    """Prompt, with its white space squeezed, -> its items: one, but for duplicates in the data set."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise UsageError(
            f"There are no gold labels: {folder} has no JSONL file with prompt, task_type, idx and label per line. "
            "Give the folder that has them with --prompts."
        )
    items: dict[str, list[_Item]] = {}
    for path in files:
        for at, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                raw = json.loads(line)
                prompt, task, idx = str(raw["prompt"]), str(raw["task_type"]), str(raw["idx"])
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}, line {at} has no prompt, task_type and idx ({error!r}).") from error
            if task not in LABELS:
                continue
            original = raw.get("original_data")
            fields = dict(_texts(original if isinstance(original, dict) else {}))
            label = original.get("label") if isinstance(original, dict) else None
            gold = label_in_words(LABELS[task], raw.get("label") if label is None else label)
            items.setdefault(_squeezed(prompt), []).append(_Item(f"{task}-{idx}", task, gold, fields))
    return items


def _texts(original: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # WSC's spans are nested in SuperGLUE's own schema.
    for name, value in original.items():
        if isinstance(value, dict):
            yield from _texts(value)
        elif isinstance(value, str | int) and name not in ("label", "idx"):
            yield name, str(value)


def _sheet(path: Path) -> Iterator[tuple[str, str, float | None]]:
    """(prompt, answer, score beside it) of each line."""
    csv.field_size_limit(1 << 30)  # an answer may be longer than csv's default limit
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        names = reader.fieldnames or ()
        prompt, answer = (
            next((name for name in wanted if name in names), None) for wanted in (_PROMPT_COLUMNS, _ANSWER_COLUMNS)
        )
        if prompt is None or answer is None:
            return
        for row in reader:
            yield row[prompt] or "", row[answer] or "", number((row.get("accuracy") or "").strip())[0]


def _squeezed(text: str) -> str:
    return " ".join(text.split())

"""The sheet that a person labels: a CSV out, with an empty column, and back in."""

import csv
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.answers import Answer
from contract.errors import UsageError
from scoring.task import LABELS

COLUMNS = ("run_id", "item_id", "task", "prompt", "answer", "human_label")
NO_ANSWER = "no_answer"
"""What a person writes where the answer gives no label: a blank is not labelled yet."""

Key = tuple[str, str]
"""Run and item."""


def draw_sample(answers: Iterable[Answer], n: int, seed: int) -> list[Answer]:
    """A sample stratified by treatment, which holds task and model.

    Strata get the same number, but for the remainder and for those that have fewer; which answers, and which strata
    get one more, is drawn. Answers with the same text to the same item are one.

    Args:
        answers: of an experiment; those without a gold label are left out.
        n: how many; fewer where there are not so many.
        seed: of the draw.
    """
    draw = random.Random(seed)
    strata: dict[tuple[tuple[str, str], ...], list[Answer]] = {}
    seen = set()
    for each in answers:
        if each.gold_label is None or (each.item_id, each.answer) in seen:
            continue
        seen.add((each.item_id, each.answer))
        strata.setdefault((*each.treatment.items(), ("task", each.task)), []).append(each)
    pools = [draw.sample(pool, len(pool)) for pool in strata.values()]
    draw.shuffle(pools)
    chosen: list[Answer] = []
    while len(chosen) < n and any(pools):
        for pool in pools:
            if pool and len(chosen) < n:
                chosen.append(pool.pop())
    return sorted(chosen, key=lambda each: (each.task, each.item_id, each.run_id))


def write_sheet(path: Path, answers: Iterable[Answer]) -> int:
    """Write a sheet to label; the gold label and what the rules read are not on it.

    Returns:
        How many answers are on it.

    Raises:
        UsageError: a file is there, which may hold labels already, or it cannot be written.
    """
    rows = [(each.run_id, each.item_id, each.task, each.prompt, each.answer, "") for each in answers]
    try:
        # utf-8-sig: spreadsheet programs take a CSV without the mark for another encoding.
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    except FileExistsError as error:
        raise UsageError(f"{path} is there already and may hold labels. Give another name, or move it away.") from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}). Give a file in a folder you may write to."
        ) from error
    return len(rows)


@dataclass(frozen=True)
class LabelSheet:
    """A sheet that was read back.

    Attributes:
        labels: (run, item) -> the human's label, or `no_answer`.
        n_blank: rows without a label.
    """

    labels: Mapping[Key, str]
    n_blank: int


def read_sheet(path: Path) -> LabelSheet:
    """Read a labelled sheet; only run_id, item_id, task and human_label are needed.

    Raises:
        UsageError: no such file, a column is missing, or a label is none of the task's; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no sheet {path}. Write one with --out-sheet, fill in the column human_label, and give it here."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}). Save the sheet as a CSV in UTF-8.") from error
    csv.field_size_limit(1 << 30)
    header = text.partition("\n")[0]
    # Spreadsheet programs of some countries write a semicolon.
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=max(",;\t", key=header.count))
    missing = {"run_id", "item_id", "task", "human_label"} - set(reader.fieldnames or ())
    if missing:
        raise UsageError(
            f"{path} lacks the columns {', '.join(sorted(missing))}. Keep the header that --out-sheet wrote."
        )
    labels: dict[Key, str] = {}
    n_blank = 0
    for row in reader:
        label = (row["human_label"] or "").strip().lower()
        if not label:
            n_blank += 1
            continue
        allowed = (*LABELS.get(row["task"], ("yes", "no")), NO_ANSWER)
        if label not in allowed:
            raise UsageError(
                f"{path}, line {reader.line_num}: {label!r} is no label of {row['task']}. Write one of "
                f"{', '.join(allowed)}, or leave it blank."
            )
        key = (row["run_id"], row["item_id"])
        if labels.setdefault(key, label) != label:
            raise UsageError(f"{path}, line {reader.line_num}: {' '.join(key)} is labelled twice, and differently.")
    return LabelSheet(labels, n_blank)

"""Where SuperGLUE items come from: a folder of JSONL files, the Hugging Face hub, or the sample in this package.

All three give the same rows, SuperGLUE's own; they are checked once, in `read_row`.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from contract.errors import WorkloadNotFoundError
from contract.units import sha256_of
from testbed.workloads.superglue_task import SuperGlueTask

HUB_REPOSITORY = "aps/super_glue"
HUB_REVISION = "refs/convert/parquet"
"""The hub no longer runs loading scripts; this revision holds what they made, as Parquet."""

WAYS_OUT = 'Pass `testbed serve --superglue-dir DIR`, or set the workload option source to "sample".'

LoadDataset = Callable[..., Iterable[Mapping[str, Any]]]
"""`datasets.load_dataset`, or a stand-in."""


@dataclass(frozen=True)
class SuperGlueRow:
    """One labelled item.

    Attributes:
        idx: its id within the task.
        fields: text columns, and the positions of the spans as text.
        label: in the task's own words.
    """

    idx: str
    fields: Mapping[str, str]
    label: str


@dataclass(frozen=True)
class ItemSet:
    """All items of one task from one source.

    Attributes:
        rows: in the source's order.
        origin: where they came from, in words.
        revision: what pins them: a hash of the file, or the hub's revision with a hash of the rows.
    """

    rows: tuple[SuperGlueRow, ...]
    origin: str
    revision: str


def read_folder(task: SuperGlueTask, folder: Path) -> ItemSet:
    """Items from `TASK.jsonl`, or `TASK/val.jsonl` as in the official archive; case of the names does not matter.

    Raises:
        WorkloadNotFoundError: no such folder or file, or a line in it is wrong.
    """
    if not folder.is_dir():
        raise WorkloadNotFoundError(f"There is no folder {folder}. {WAYS_OUT}", task=task.name)
    path = _find(folder, f"{task.name}.jsonl")
    if path is None and (inner := _find(folder, task.name)) is not None and inner.is_dir():
        path = _find(inner, "val.jsonl")
    if path is None:
        raise WorkloadNotFoundError(
            f"{folder} has neither {task.name}.jsonl nor {task.name}/val.jsonl. Put SuperGLUE's file there, or set "
            'the workload option source to "sample".',
            task=task.name,
        )
    return _read_jsonl(task, path.read_bytes(), str(path), f"SuperGLUE folder, file {path.relative_to(folder)}")


def read_sample(task: SuperGlueTask) -> ItemSet:
    """Items in SuperGLUE's schema that were written for this project."""
    name = f"{task.name}.jsonl"
    content = resources.files("testbed.workloads").joinpath("superglue_sample", name).read_bytes()
    items = _read_jsonl(task, content, name, "")
    return ItemSet(
        items.rows,
        f"sample of {len(items.rows)} items written for JouleBed; not SuperGLUE itself",
        items.revision,
    )


def read_hub(task: SuperGlueTask, revision: str = HUB_REVISION, *, load_dataset: LoadDataset | None = None) -> ItemSet:
    """The validation split (the test split has no public labels) from the Hugging Face hub.

    Args:
        task: which.
        revision: branch, tag, commit or `refs/convert/parquet`.
        load_dataset: what fetches; None: the package `datasets`.

    Raises:
        WorkloadNotFoundError: the hub cannot be reached, the package is missing, or a row is wrong.
    """
    load = load_dataset or _import_load_dataset()
    # In a Parquet conversion a configuration is a folder without a name of its own; elsewhere it has a name.
    where = {"data_dir": task.hub_config} if revision.startswith("refs/convert/") else {"name": task.hub_config}
    try:
        raw_rows = list(load(HUB_REPOSITORY, revision=revision, split="validation", **where))
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkloadNotFoundError(
            f"{task.name} could not be had from the Hugging Face hub ({HUB_REPOSITORY}, revision {revision}): "
            f"{type(error).__name__}: {error}. {WAYS_OUT}",
            task=task.name,
        ) from error
    origin = f"Hugging Face hub, {HUB_REPOSITORY}, {task.hub_config}, validation"
    rows = _checked(task, ((f"{origin}, row {i}", row) for i, row in enumerate(raw_rows)))
    return ItemSet(rows, origin, f"{revision}, rows sha256:{rows_sha256(rows)}")


def rows_sha256(rows: Iterable[SuperGlueRow]) -> str:
    """Hash of items in order: equal hashes mean equal items, wherever they came from."""
    return sha256_of([[row.idx, dict(row.fields), row.label] for row in rows])


def read_row(task: SuperGlueTask, raw: object, place: str, default_idx: str) -> SuperGlueRow:
    """Check one item.

    Args:
        task: what it is an item of.
        raw: the decoded JSON object.
        place: file and line, for messages.
        default_idx: id of an item that has none.

    Raises:
        WorkloadNotFoundError: it lacks a column, or its label is not one of the task's.
    """
    if not isinstance(raw, Mapping):
        raise _wrong(place, f"is not a JSON object but {type(raw).__name__}", task)
    # WSC's spans are nested in the official files and flat on the hub.
    target = raw.get("target")
    columns = {**raw, **target} if isinstance(target, Mapping) else dict(raw)
    missing = [name for name in task.columns if not isinstance(columns.get(name), str) or not columns[name].strip()]
    if missing:
        raise _wrong(place, f"lacks {', '.join(missing)} (a text that is not empty)", task)
    fields = {name: str(columns[name]) for name in task.columns}
    if task.name == "COPA" and fields["question"] not in ("cause", "effect"):
        raise _wrong(place, f'has question {fields["question"]!r}; it must be "cause" or "effect"', task)
    if task.name == "WSC":
        at = columns.get("span2_index")
        if not isinstance(at, int) or isinstance(at, bool) or at < 0:
            raise _wrong(place, "lacks span2_index (the pronoun's position, counted in words from 0)", task)
        fields["span2_index"] = str(at)
    label = task.label_in_words(columns.get("label"))
    if label is None:
        found = repr(columns["label"]) if "label" in columns else "no label"
        raise _wrong(place, f"has {found}; the labels of {task.name} are {', '.join(task.labels)}", task)
    idx = columns.get("idx")
    return SuperGlueRow(default_idx if idx is None else str(idx), fields, label)


def _read_jsonl(task: SuperGlueTask, content: bytes, path: str, origin: str) -> ItemSet:
    rows = _checked(task, _decoded(task, content, path))
    if not rows:
        raise WorkloadNotFoundError(f"{path} has no items. Put SuperGLUE's validation file there.", task=task.name)
    return ItemSet(rows, origin, f"sha256:{hashlib.sha256(content).hexdigest()}")


def _decoded(task: SuperGlueTask, content: bytes, path: str) -> Iterator[tuple[str, object]]:
    # Split on b"\n" alone: str.splitlines would also cut at separators that JSON allows inside a text.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            yield place, json.loads(line.decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise _wrong(place, f"is not JSON ({error})", task) from error


def _checked(task: SuperGlueTask, placed: Iterable[tuple[str, object]]) -> tuple[SuperGlueRow, ...]:
    seen: dict[str, str] = {}
    rows = []
    for count, (place, raw) in enumerate(placed):
        row = read_row(task, raw, place, default_idx=str(count))
        if row.idx in seen:
            raise _wrong(place, f"has the same idx {row.idx} as {seen[row.idx]}", task)
        seen[row.idx] = place
        rows.append(row)
    return tuple(rows)


def _wrong(place: str, what: str, task: SuperGlueTask) -> WorkloadNotFoundError:
    return WorkloadNotFoundError(f"{place} {what}. Mend the line, or take the file from SuperGLUE.", task=task.name)


def _find(folder: Path, name: str) -> Path | None:
    exact = folder / name
    if exact.exists():
        return exact
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()), None)


def _import_load_dataset() -> LoadDataset:
    try:
        datasets = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise WorkloadNotFoundError(
            f"Items from the Hugging Face hub need the package {error.name!r}: pip install 'joulebed[superglue]'. "
            f"Without it: {WAYS_OUT[0].lower()}{WAYS_OUT[1:]}",
            package=error.name,
        ) from error
    load: LoadDataset = datasets.load_dataset
    return load

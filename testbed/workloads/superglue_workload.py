"""A SuperGLUE task as a workload: a fixed choice of items, one prompt each, scored against gold labels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contract.errors import WorkloadNotFoundError
from contract.trial_result import TaskScore
from contract.units import sha256_of
from scoring.label import read_label
from scoring.task_score import score_labels
from testbed.options import PartOptions, parse_options
from testbed.workloads.base import PreparedWorkload, Verdict, WorkItem
from testbed.workloads.superglue_items import (
    HUB_REVISION,
    WAYS_OUT,
    ItemSet,
    LoadDataset,
    SuperGlueRow,
    read_folder,
    read_hub,
    read_sample,
    rows_sha256,
)
from testbed.workloads.superglue_task import Template, find_task

FOLDER_VARIABLE = "JOULEBED_SUPERGLUE_DIR"
"""Set for the child by `testbed serve --superglue-dir`."""


class SuperGlueOptions(PartOptions):
    """Options of the SuperGLUE workload."""

    task: str
    """BoolQ, CB, COPA, RTE, WiC or WSC."""
    n_items: int = Field(default=80, gt=0)
    """How many items; where the source has fewer, all of them are taken and the record says so."""
    item_seed: int = Field(default=0, ge=0)
    """Which items, and in which order. Not the trial's seed: every repetition asks the same."""
    template: Template = "explain"
    """`explain` asks for reasons as well, `short` for the bare answer."""
    source: Literal["auto", "folder", "hub", "sample"] = "auto"
    """`folder`: the one that the testbed was started with (`--superglue-dir`); `auto`: that if there is one, else the
    hub. Never the sample unless it is asked for."""
    hub_revision: str = Field(default=HUB_REVISION, min_length=1)
    """Revision on the Hugging Face hub."""


@dataclass(frozen=True)
class SuperGlueItem(WorkItem):
    """A request that remembers the texts it was made from.

    Attributes:
        fields: the item's columns: an answer may quote a choice or name a noun instead of a label.
    """

    fields: Mapping[str, str] = field(default_factory=dict)


class SuperGlueWorkload:
    """See `Workload`.

    Items are drawn without replacement and not balanced by label: each gets a hash of seed and id, and the n
    smallest are taken in that order. So the choice depends neither on the order of the file nor on the version of
    Python, and fewer items are the beginning of more.

    Args:
        folder: of JSONL files; None: what the environment says. The testbed's to choose, never a spec's.
        environ: where the folder is looked up; None: the process's environment.
        load_dataset: what fetches from the hub; None: the package `datasets`.
        **options: see `SuperGlueOptions`.

    Raises:
        InvalidOptionError: an unknown, missing or impossible option.
        UnknownNameError: no such task.
    """

    name = "superglue"

    def __init__(
        self,
        *,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
        load_dataset: LoadDataset | None = None,
        **options: Any,
    ) -> None:
        self._options = parse_options("workload", self.name, SuperGlueOptions, options)
        self._task = find_task(self._options.task)
        self._folder = folder
        self._environ = os.environ if environ is None else environ
        self._load_dataset = load_dataset

    def prepare(self) -> PreparedWorkload:
        """See `Workload`."""
        options = self._options
        source, available = self._read()
        chosen = sorted(available.rows, key=self._lot)[: options.n_items]
        taken = f"{len(chosen)} of {len(available.rows)} items"
        if len(chosen) < options.n_items:
            taken += f"; {options.n_items} were asked for, there are no more"
        return PreparedWorkload(
            items=tuple(self._item(row) for row in chosen),
            source=f"{available.origin} ({taken})",
            settings={
                "task": options.task,
                "n_items": len(chosen),
                "n_items_wanted": options.n_items,
                "n_items_available": len(available.rows),
                "item_seed": options.item_seed,
                "template": options.template,
                "source": source,
                "source_revision": available.revision,
                "items_sha256": rows_sha256(chosen),
            },
        )

    def judge(self, item: WorkItem, answer: str) -> Verdict:
        """See `Workload`."""
        fields = item.fields if isinstance(item, SuperGlueItem) else {}
        label = read_label(self._task.name, answer, fields)
        return Verdict(predicted_label=label, is_correct=None if item.gold_label is None else label == item.gold_label)

    def score(self, items: Sequence[WorkItem], verdicts: Sequence[Verdict]) -> TaskScore | None:
        """See `Workload`."""
        return score_labels(
            [item.gold_label for item in items],
            [verdict.predicted_label for verdict in verdicts],
            n_labels=len(self._task.labels),
        )

    def _read(self) -> tuple[str, ItemSet]:
        wanted = self._options.source
        folder = self._folder or self._environ.get(FOLDER_VARIABLE)
        if wanted == "sample":
            return "sample", read_sample(self._task)
        if wanted == "folder" and not folder:
            raise WorkloadNotFoundError(
                f"Items were to come from a folder, and this testbed was given none. {WAYS_OUT}", task=self._task.name
            )
        if wanted != "hub" and folder:
            return "folder", read_folder(self._task, Path(folder))
        return "hub", read_hub(self._task, self._options.hub_revision, load_dataset=self._load_dataset)

    def _lot(self, row: SuperGlueRow) -> str:
        return sha256_of([self._task.name, self._options.item_seed, row.idx])

    def _item(self, row: SuperGlueRow) -> SuperGlueItem:
        return SuperGlueItem(
            item_id=f"{self._task.name}-{row.idx}",
            messages=({"role": "user", "content": self._task.prompt(row.fields, self._options.template)},),
            gold_label=row.label,
            fields=row.fields,
        )

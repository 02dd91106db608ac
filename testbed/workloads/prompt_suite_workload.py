"""Prompts without a right answer, by suite: what people ask a small model for on their own machine."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import InvalidOptionError, WorkloadNotFoundError
from contract.trial_result import TaskScore
from contract.units import sha256_of
from testbed.options import PartOptions, parse_options
from testbed.workloads.base import PreparedWorkload, Verdict, WorkItem

SUITES_DIR = Path(__file__).parent / "prompt_suites"
"""The project's own suites, one JSONL file each."""


class PromptSuiteOptions(PartOptions):
    """Options of the prompt suites."""

    suite: str
    """`short_dialogue`, `analytical_reasoning` or `narrative`; with `prompts`, what the record calls it."""
    n_items: int | None = Field(default=None, gt=0)
    """So many from the beginning of the suite; None: all."""
    prompts: list[str] | None = Field(default=None, min_length=1)
    """In place of a suite of ours. They travel in the plan, so nobody has to copy a file, or can change it."""


class _Line(BaseModel):
    """One prompt of a file; what else stands in it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)


@dataclass(frozen=True)
class Suite:
    """A suite as it was read.

    Attributes:
        name: of it.
        prompts: (id, text), in the order of the file.
        source: in words.
    """

    name: str
    prompts: tuple[tuple[str, str], ...]
    source: str


def suite_names() -> tuple[str, ...]:
    """The suites that come with JouleBed."""
    return tuple(sorted(path.stem for path in SUITES_DIR.glob("*.jsonl")))


class PromptSuiteWorkload:
    """See `Workload`. Every repetition asks the same prompts in the same order; nothing is scored.

    Args:
        **options: see `PromptSuiteOptions`.

    Raises:
        InvalidOptionError: an unknown, missing or impossible option, or no such suite.
    """

    name = "prompt_suite"

    def __init__(self, **options: Any) -> None:
        self._options = parse_options("workload", self.name, PromptSuiteOptions, options)
        known = suite_names()
        if self._options.prompts is None and self._options.suite not in known:
            raise InvalidOptionError(
                f"There is no prompt suite {self._options.suite!r}. There is: {', '.join(known)}. For prompts of your "
                "own give option 'prompts', a list of texts.",
                workload=self.name,
            )

    def prepare(self) -> PreparedWorkload:
        """See `Workload`."""
        options = self._options
        if options.prompts is None:
            suite = read_suite(options.suite, SUITES_DIR / f"{options.suite}.jsonl")
        else:
            numbered = tuple((f"{options.suite}-{i}", text) for i, text in enumerate(options.prompts))
            suite = Suite(options.suite, numbered, "the plan's suite")
        prompts = suite.prompts[: options.n_items]
        taken = f"{len(prompts)} of {len(suite.prompts)} prompts"
        if options.n_items is not None and options.n_items > len(prompts):
            taken += f"; {options.n_items} were asked for, there are no more"
        return PreparedWorkload(
            items=tuple(
                WorkItem(item_id=each_id, messages=({"role": "user", "content": text},), gold_label=None)
                for each_id, text in prompts
            ),
            source=f"{suite.source} {suite.name} ({taken})",
            settings={
                "suite": suite.name,
                "n_items": len(prompts),
                "n_items_available": len(suite.prompts),
                "items_sha256": sha256_of([list(each) for each in prompts]),
            },
        )

    def judge(self, item: WorkItem, answer: str) -> Verdict:
        """See `Workload`: there is nothing to be right about."""
        return Verdict(predicted_label=None, is_correct=None)

    def score(self, items: Sequence[WorkItem], verdicts: Sequence[Verdict]) -> TaskScore | None:
        """See `Workload`: no gold labels."""
        return None


def read_suite(name: str, path: Path) -> Suite:
    """Read a suite.

    Args:
        name: of the suite.
        path: a JSONL file: one object a line, with `id` and `text`.

    Raises:
        WorkloadNotFoundError: it is not there, or a line of it is no prompt; the message names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadNotFoundError(
            f"The prompts {path} cannot be read ({error}). Install joulebed again on the testbed.",
            path=str(path),
        ) from error
    prompts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = _Line.model_validate(json.loads(line))
        except (ValueError, ValidationError) as error:
            raise WorkloadNotFoundError(
                f'{path}, line {number} is no prompt: write {{"id": "x-1", "text": "..."}}.',
                path=str(path),
                line=number,
            ) from error
        if prompt.id in prompts:
            raise WorkloadNotFoundError(
                f"{path}, line {number}: the id {prompt.id!r} is there twice. Give each prompt its own.",
                path=str(path),
                line=number,
            )
        prompts[prompt.id] = prompt.text
    if not prompts:
        raise WorkloadNotFoundError(f"{path} holds no prompt. Add one a line.", path=str(path))
    return Suite(name, tuple(prompts.items()), "JouleBed's own suite")

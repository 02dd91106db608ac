"""Prompt suites: fixed prompts, the same in every repetition, nothing to score."""

from pathlib import Path

import pytest

from contract.errors import InvalidOptionError, WorkloadNotFoundError
from testbed.workloads.base import Verdict
from testbed.workloads.prompt_suite_workload import read_suite, suite_names
from testbed.workloads.registry import WORKLOADS

SUITES = ("analytical_reasoning", "narrative", "short_dialogue")


def test_the_three_suites_are_shipped() -> None:
    assert suite_names() == SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_is_fixed_and_well_formed(suite: str) -> None:
    prepared = WORKLOADS.create("prompt_suite", suite=suite).prepare()
    assert prepared == WORKLOADS.create("prompt_suite", suite=suite).prepare()
    assert len(prepared.items) >= 8
    assert len({item.messages[0]["content"] for item in prepared.items}) == len(prepared.items)
    assert len({item.item_id for item in prepared.items}) == len(prepared.items)
    assert all(item.gold_label is None and len(item.messages) == 1 for item in prepared.items)


def test_the_suites_have_no_prompt_in_common() -> None:
    texts = [
        item.messages[0]["content"]
        for suite in SUITES
        for item in WORKLOADS.create("prompt_suite", suite=suite).prepare().items
    ]
    assert len(set(texts)) == len(texts)


def test_fewer_items_are_the_beginning_of_more() -> None:
    few = WORKLOADS.create("prompt_suite", suite="narrative", n_items=3).prepare()
    assert few.items == WORKLOADS.create("prompt_suite", suite="narrative").prepare().items[:3]
    many = WORKLOADS.create("prompt_suite", suite="narrative", n_items=1000).prepare()
    assert "1000 were asked for, there are no more" in many.source


def test_nothing_is_scored() -> None:
    workload = WORKLOADS.create("prompt_suite", suite="narrative")
    items = workload.prepare().items
    verdicts = [workload.judge(item, "Once upon a time") for item in items]
    assert set(verdicts) == {Verdict(predicted_label=None, is_correct=None)}
    assert workload.score(items, verdicts) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "option 'suite' is missing"),
        ({"suite": "poems"}, "no prompt suite 'poems'.*analytical_reasoning, narrative, short_dialogue"),
        ({"suite": "narrative", "n_items": 0}, "n_items"),
        ({"suite": "narrative", "colour": "red"}, "no option 'colour'"),
    ],
)
def test_a_wrong_option_is_refused_when_built(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        WORKLOADS.create("prompt_suite", **options)


def test_prompts_of_ones_own() -> None:
    prepared = WORKLOADS.create("prompt_suite", suite="mine", prompts=["One?", "Two?"]).prepare()
    asked = [(item.item_id, item.messages[0]["content"]) for item in prepared.items]
    assert asked == [("mine-0", "One?"), ("mine-1", "Two?")]
    assert "the plan's suite mine (2 of 2 prompts)" in prepared.source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no prompt"),
        ('{"id": "a"}', "line 1 is no prompt"),
        ('{"id": "a", "text": "x"}\nnot json', "line 2 is no prompt"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "line 2: the id 'a' is there twice"),
    ],
)
def test_a_bad_file_is_told_by_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(WorkloadNotFoundError, match=words):
        read_suite("mine", path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadNotFoundError, match=r"none\.jsonl cannot be read"):
        read_suite("mine", tmp_path / "none.jsonl")

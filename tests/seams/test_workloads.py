"""One behaviour suite over every workload."""

import math
from collections.abc import Callable

import pytest

from contract.errors import InvalidOptionError, UnknownNameError
from testbed.workloads.base import Verdict, Workload
from testbed.workloads.registry import WORKLOADS

TASKS = ("BoolQ", "CB", "COPA", "RTE", "WiC", "WSC")

Build = Callable[..., Workload]


def _builders() -> dict[str, Build]:
    builders: dict[str, Build] = {"fake": lambda **options: WORKLOADS.create("fake", **{"n_items": 12, **options})}
    for task in TASKS:
        for template in ("explain", "short"):
            builders[f"superglue-{task}-{template}"] = lambda task=task, template=template, **options: WORKLOADS.create(
                "superglue",
                **{"task": task, "template": template, "source": "sample", "n_items": 12, **options},
            )
    return builders


BUILDERS = _builders()


@pytest.fixture(params=list(BUILDERS))
def build(request: pytest.FixtureRequest) -> Build:
    return BUILDERS[request.param]


def test_every_registered_workload_is_tested() -> None:
    # Those without a right answer have no labels to read: tests/testbed/test_prompt_suite.py, test_length_sweep.py,
    # test_open_loop.py.
    unscored = {"prompt_suite", "length_sweep", "open_loop"}
    assert {name.partition("-")[0] for name in BUILDERS} | unscored == set(WORKLOADS.names)


def test_the_same_options_give_the_same_items(build: Build) -> None:
    first = build().prepare()
    assert first == build().prepare()
    workload = build()
    assert workload.prepare() == workload.prepare() == first


def test_another_seed_gives_other_items_or_another_order(build: Build) -> None:
    prompts = {tuple(str(item.messages) for item in build(item_seed=seed).prepare().items) for seed in range(4)}
    assert len(prompts) == 4


def test_items_are_well_formed(build: Build) -> None:
    prepared = build().prepare()
    assert len(prepared.items) == 12
    assert len({item.item_id for item in prepared.items}) == 12
    assert prepared.source
    assert prepared.settings["n_items"] == 12
    for item in prepared.items:
        (message,) = item.messages
        assert set(message) == {"role", "content"}
        assert message["role"] == "user"
        assert message["content"].strip()


def test_n_items_is_a_prefix(build: Build) -> None:
    few, many = build(n_items=5).prepare().items, build(n_items=12).prepare().items
    assert few == many[:5]


def test_the_gold_label_in_words_is_judged_correct(build: Build) -> None:
    workload = build()
    for item in workload.prepare().items:
        assert item.gold_label is not None
        for answer in (item.gold_label, item.gold_label.capitalize() + ".", f"**{item.gold_label}**"):
            assert workload.judge(item, answer) == Verdict(predicted_label=item.gold_label, is_correct=True), answer


def test_another_label_is_judged_wrong(build: Build) -> None:
    workload = build()
    items = workload.prepare().items
    labels = {item.gold_label for item in items}
    for item in items:
        for other in labels - {item.gold_label}:
            assert workload.judge(item, str(other)) == Verdict(predicted_label=other, is_correct=False)


@pytest.mark.parametrize("answer", ["", "  \n", "I'm sorry, but I can't help with that.", "The weather was fine."])
def test_it_abstains_rather_than_guesses(build: Build, answer: str) -> None:
    workload = build()
    for item in workload.prepare().items:
        assert workload.judge(item, answer) == Verdict(predicted_label=None, is_correct=False)


def test_the_score_sums_up(build: Build) -> None:
    workload = build()
    items = workload.prepare().items
    answers = [str(item.gold_label) if i < 7 else "" for i, item in enumerate(items)]
    verdicts = [workload.judge(item, answer) for item, answer in zip(items, answers, strict=True)]
    score = workload.score(items, verdicts)
    assert score is not None
    assert (score.n_items, score.n_correct, score.n_abstained) == (12, 7, 5)
    assert score.accuracy == pytest.approx(7 / 12)
    assert score.chance_accuracy is not None
    p, q = score.chance_accuracy, 1 - score.chance_accuracy
    assert score.chance_p_value == pytest.approx(sum(math.comb(12, k) * p**k * q ** (12 - k) for k in range(7, 13)))


def test_verdicts_and_items_must_pair_up(build: Build) -> None:
    workload = build()
    with pytest.raises(ValueError, match="zip"):
        workload.score(workload.prepare().items, [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_items": 0}, "n_items"),
        ({"n_items": -3}, "n_items"),
        ({"n_items": "many"}, "many"),
        ({"n_items": 2.5}, "2.5"),
        ({"item_seed": -1}, "item_seed"),
        ({"colour": "red"}, "no option 'colour'"),
    ],
)
def test_a_wrong_option_is_refused_when_built(build: Build, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words) as caught:
        build(**options)
    assert "Known options" in caught.value.message


def test_an_unknown_workload_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"superglue, .*fake"):
        WORKLOADS.create("glue")


def test_the_fake_prompt_has_the_length_asked_for() -> None:
    for n_words in (5, 40):
        for item in WORKLOADS.create("fake", n_items=3, prompt_words=n_words).prepare().items:
            assert len(item.messages[0]["content"].split()) == n_words

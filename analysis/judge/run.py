"""Judging an experiment: verdicts are kept at once and not asked for again; equal answers are asked about once."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from analysis.answers import Answer
from analysis.judge.endpoint import JudgeEndpoint, RefusedRequestError, Reply
from analysis.judge.question import PROMPT_VERSION, Outcome, Question, again
from analysis.judge.store import Judgement, JudgementStore, utc_now
from analysis.statistics import wilson_interval

ENERGY_NOTE = "The energy of judging is not part of any trial."


@dataclass(frozen=True)
class JudgedTask:
    """What the judge found in the answers to one task.

    Attributes:
        task: SuperGLUE's name.
        n_judged: answers with a verdict, equal ones counted each.
        n_correct: among them.
        n_incorrect: among them.
        n_no_answer: among them; wrong, as an abstention is.
        n_invalid: answers for which the judge gave no usable verdict; in no share.
        accuracy: n_correct / n_judged; None without verdicts.
        n_items: different items among the judged answers.
        interval: 95 % Wilson over items (see `label_accuracy`); None without verdicts.
        label_accuracy: of the same answers, by the rules of `scoring`; None without verdicts.
    """

    task: str
    n_judged: int
    n_correct: int
    n_incorrect: int
    n_no_answer: int
    n_invalid: int
    accuracy: float | None
    n_items: int
    interval: tuple[float, float] | None
    label_accuracy: float | None


@dataclass(frozen=True)
class Judged:
    """What a judging left.

    Attributes:
        n_answers: with a gold label.
        n_without_gold: left out.
        n_distinct: different questions among them.
        n_cached: of those, judged before.
        n_asked: judged now.
        n_left: not judged yet: over the limit.
        n_prompt_tokens: of all verdicts used; None where the endpoint does not count.
        n_output_tokens: the same.
        endpoint_model: what the endpoint has behind the name.
        tasks: by task.
        verdicts: of each answer with a gold label, in order; None: not judged yet.
        energy_note: what these figures are no part of.
    """

    n_answers: int
    n_without_gold: int
    n_distinct: int
    n_cached: int
    n_asked: int
    n_left: int
    n_prompt_tokens: int | None
    n_output_tokens: int | None
    endpoint_model: str
    tasks: tuple[JudgedTask, ...]
    verdicts: tuple[Judgement | None, ...]
    energy_note: str = ENERGY_NOTE


def judge_answers(
    answers: Iterable[Answer],
    endpoint: JudgeEndpoint,
    store: JudgementStore,
    *,
    seed: int = 0,
    limit: int | None = None,
    workers: int = 4,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Judged:
    """Judge what is not judged yet.

    Args:
        answers: of an experiment.
        endpoint: the judge.
        store: where verdicts are kept.
        seed: of the endpoint; part of a verdict's key.
        limit: ask about so many at most; None: about all.
        workers: chats at a time.
        on_progress: called with how many of the wanted are judged.

    Raises:
        EndpointError: the endpoint refuses or is away; what was judged until then is kept.
    """
    every = list(answers)
    asked = [(answer, question) for answer in every if (question := Question.of(answer)) is not None]
    endpoint_model = endpoint.model_id()
    keys = [question.key(model=endpoint.model, endpoint_model=endpoint_model, seed=seed) for _, question in asked]
    distinct = dict(zip(reversed(keys), reversed(asked), strict=True))  # of equal ones, the first
    found = store.find(distinct)
    n_cached = len(found)
    # In the order of their hashes, so that a limit takes some of every task and run.
    todo = [
        (key, *asked_of) for key, asked_of in sorted(distinct.items(), key=lambda each: each[0]) if key not in found
    ]
    wanted = todo if limit is None else todo[:limit]
    on_progress(0, len(wanted))

    def ask(key: str, answer: Answer, question: Question) -> Judgement:
        return _judgement(key, answer, question, endpoint, endpoint_model, seed)

    def keep(judgement: Judgement) -> None:
        store.add(judgement)
        found[judgement.key] = judgement
        on_progress(len(found) - n_cached, len(wanted))

    _in_threads(ask, wanted, keep, workers=workers, stop=endpoint.stop)
    verdicts = tuple(found.get(key) for key in keys)
    used = [found[key] for key in distinct if key in found]
    return Judged(
        n_answers=len(asked),
        n_without_gold=len(every) - len(asked),
        n_distinct=len(distinct),
        n_cached=n_cached,
        n_asked=len(wanted),
        n_left=len(todo) - len(wanted),
        n_prompt_tokens=_sum(each.n_prompt_tokens for each in used),
        n_output_tokens=_sum(each.n_output_tokens for each in used),
        endpoint_model=endpoint_model,
        tasks=judged_tasks([answer for answer, _ in asked], verdicts),
        verdicts=verdicts,
    )


def judged_tasks(answers: list[Answer], verdicts: Iterable[Judgement | None]) -> tuple[JudgedTask, ...]:
    """Counts and shares by task, of answers and their verdicts in the same order."""
    by_task: dict[str, list[tuple[Answer, Judgement]]] = {}
    for answer, verdict in zip(answers, verdicts, strict=True):
        if verdict is not None:
            by_task.setdefault(answer.task, []).append((answer, verdict))
    return tuple(_judged_task(task, pairs) for task, pairs in sorted(by_task.items()))


def _judged_task(task: str, pairs: list[tuple[Answer, Judgement]]) -> JudgedTask:
    counts = Counter(verdict.outcome for _, verdict in pairs)
    valid = [(answer, verdict) for answer, verdict in pairs if verdict.outcome != "invalid"]
    by_item: dict[str, list[bool]] = {}
    for answer, verdict in valid:
        by_item.setdefault(answer.item_id, []).append(verdict.outcome == "correct")
    share = sum(sum(right) / len(right) for right in by_item.values())
    return JudgedTask(
        task=task,
        n_judged=len(valid),
        n_correct=counts["correct"],
        n_incorrect=counts["incorrect"],
        n_no_answer=counts["no_answer"],
        n_invalid=counts["invalid"],
        accuracy=counts["correct"] / len(valid) if valid else None,
        n_items=len(by_item),
        interval=wilson_interval(share, len(by_item)),
        label_accuracy=sum(a.read_label == a.gold_label for a, _ in valid) / len(valid) if valid else None,
    )


def _judgement(
    key: str, answer: Answer, question: Question, endpoint: JudgeEndpoint, endpoint_model: str, seed: int
) -> Judgement:
    """Ask, once more where the reply is no verdict, and give up then."""
    messages = question.messages()
    replies: list[Reply] = []
    outcome: Outcome = "invalid"
    label, reason = None, ""
    for _ in range(2):
        try:
            replies.append(endpoint.chat(messages, question.schema()))
        except RefusedRequestError as error:
            reason = error.message
            break
        try:
            verdict = question.parse(replies[-1].content)
        except ValueError as error:
            reason = str(error)
            messages = again(question, replies[-1].content, reason)
            continue
        outcome, label, reason = verdict.verdict, verdict.answered_label, verdict.reason
        break
    return Judgement(
        key=key,
        prompt_version=PROMPT_VERSION,
        model=endpoint.model,
        endpoint_model=endpoint_model,
        endpoint=endpoint.url,
        seed=seed,
        item_id=answer.item_id,
        task=answer.task,
        gold_label=question.gold_label,
        outcome=outcome,
        answered_label=label,
        reason=reason,
        n_asked=len(replies),
        n_prompt_tokens=_sum(reply.n_prompt_tokens for reply in replies),
        n_output_tokens=_sum(reply.n_output_tokens for reply in replies),
        judged_at=utc_now(),
    )


def _in_threads(
    ask: Callable[..., Judgement],
    wanted: list[tuple[Any, ...]],
    keep: Callable[[Judgement], None],
    *,
    workers: int,
    stop: Callable[[], None],
) -> None:
    """Ask in threads, keep in this one. The first failure stops the others; what they had got by then is kept."""
    rest = iter(wanted)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        running: set[Future[Judgement]] = {pool.submit(ask, *each) for each in islice(rest, workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                failed = [future for future in done if future.exception() is not None]
                for future in done - set(failed):
                    keep(future.result())
                if failed:
                    failed[0].result()
                running |= {pool.submit(ask, *each) for each in islice(rest, len(done))}
        except BaseException:
            stop()
            for future in wait(running).done:
                if future.exception() is None:
                    keep(future.result())
            raise


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum, or None where a part is not known."""
    parts = list(values)
    return sum(part for part in parts if part is not None) if parts and None not in parts else None

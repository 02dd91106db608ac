"""What was asked and answered, on disk, judged and summed up."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from contract.trial_result import TaskScore, WorkloadReport
from contract.trial_spec import TrialSpec
from contract.units import sha256_of
from testbed import attempt_folder
from testbed.attempt_folder import RequestRecord
from testbed.device_group.group import DeviceGroup
from testbed.engines.base import Completion
from testbed.open_loop_drive import Served
from testbed.workloads.base import PreparedWorkload, Verdict, WorkItem, Workload

Answers = tuple[str | None, Sequence[Completion]]
"""Device, None where the trial names none, and what it answered."""


def write_answers(
    spec: TrialSpec,
    workload: Workload,
    prepared: PreparedWorkload,
    answers: Sequence[Answers],
    out_dir: Path,
    *,
    group: DeviceGroup | None,
    served: Served | None,
) -> WorkloadReport:
    """Write requests.jsonl, one `RequestRecord` for each answer.

    Args:
        spec: of the trial.
        workload: reads and scores the answers.
        prepared: its items.
        answers: of each device, or of the one engine.
        out_dir: the attempt's folder.
        group: is told the score of each device; None: the trial names none.
        served: arrivals and batches of an open loop; None: it was none.

    Returns:
        What the result tells of the workload.
    """
    answered = []
    for device, completions in answers:
        known = {done.request_id: done for done in completions}
        answered += [(device, item, known[item.item_id]) for item in prepared.items if item.item_id in known]
    verdicts = [workload.judge(item, done.text) for _, item, done in answered]
    records = [
        RequestRecord(
            item_id=item.item_id,
            prompt_sha256=done.prompt_sha256,
            n_prompt_tokens=done.n_prompt_tokens,
            n_output_tokens=done.n_output_tokens,
            finish_reason=done.finish_reason,
            submitted_s=done.submitted_ns / 1e9,
            first_token_s=done.token_ns[0] / 1e9 if done.token_ns else None,
            finished_s=done.finished_ns / 1e9,
            token_s=[ns / 1e9 for ns in done.token_ns],
            engine_prefill_s=done.engine_prefill_s,
            engine_decode_s=done.engine_decode_s,
            messages=[dict(message) for message in item.messages],
            answer=done.text,
            gold_label=item.gold_label,
            predicted_label=verdict.predicted_label,
            is_correct=verdict.is_correct,
            device=device,
            arrival_s=served.arrival_s[item.item_id] if served is not None else None,
            batch=served.batch_of.get(item.item_id) if served is not None else None,
            token_exit_layer=None if done.token_exit_layer is None else list(done.token_exit_layer),
            token_entropy_nats=None if done.token_entropy_nats is None else list(done.token_entropy_nats),
        )
        for (device, item, done), verdict in zip(answered, verdicts, strict=True)
    ]
    lines = "".join(record.model_dump_json() + "\n" for record in records)
    attempt_folder.write_whole(out_dir / attempt_folder.REQUESTS, lines)
    return WorkloadReport(
        name=spec.workload.name,
        source=prepared.source,
        prompt_sha256=sha256_of([record.prompt_sha256 for record in records]),
        n_requests=len(records),
        n_planned=len(prepared.items) * len(answers),
        n_prompt_tokens=sum(record.n_prompt_tokens for record in records),
        n_output_tokens=sum(record.n_output_tokens for record in records),
        score=_score(workload, group, answers, answered, verdicts),
        exit_layer=_mean(record.token_exit_layer for record in records),
        entropy_nats=_mean(record.token_entropy_nats for record in records),
    )


def _mean(values: Iterable[Sequence[float] | None]) -> float | None:
    """Over all tokens; None where some answer does not tell, as a mean of the others would not be the run's."""
    found: list[float] = []
    for each in values:
        if each is None:
            return None
        found += each
    return fmean(found) if found else None


def _score(
    workload: Workload,
    group: DeviceGroup | None,
    answers: Sequence[Answers],
    answered: Sequence[tuple[str | None, WorkItem, Completion]],
    verdicts: Sequence[Verdict],
) -> TaskScore | None:
    """The score of each device, and of the trial: the same items asked on two devices are not twice the evidence."""
    by_device: dict[str | None, list[tuple[WorkItem, Verdict]]] = {device: [] for device, _ in answers}
    for (device, item, _), verdict in zip(answered, verdicts, strict=True):
        by_device[device].append((item, verdict))
    scores = {
        device: workload.score([item for item, _ in judged], [verdict for _, verdict in judged])
        for device, judged in by_device.items()
    }
    if group is not None:
        group.note_scores(scores)
    labels = [[verdict.predicted_label for _, verdict in judged] for judged in by_device.values()]
    return scores[answers[0][0]] if all(each == labels[0] for each in labels) else None

"""The open-loop workload: the same requests from the same seed, and files in one form."""

from pathlib import Path

import pytest

from contract.errors import InvalidOptionError, WorkloadNotFoundError
from testbed.workloads.open_loop import OpenLoopWorkload
from testbed.workloads.request_trace import TracedRequest, length_bucket, write_trace

POISSON = {"kind": "poisson", "rate_per_s": 0.8}
FIXED = {"duration_s": 600.0, "arrivals": POISSON, "arrival_seed": 3, "n_input_tokens": 20, "n_output_tokens": 30}


def test_all_arrivals_are_drawn_before_the_clock_starts_from_the_seed() -> None:
    one, other = OpenLoopWorkload(**FIXED).prepare(), OpenLoopWorkload(**FIXED).prepare()
    assert one == other
    times_s = [item.arrival_s for item in one.items]
    assert None not in times_s and times_s == sorted(times_s, key=lambda at: at or 0.0)
    assert (times_s[0] or 0.0) >= 0 and (times_s[-1] or 0.0) < 600.0 == one.duration_s
    assert len(times_s) == pytest.approx(480, abs=110)  # five standard deviations
    another = OpenLoopWorkload(**{**FIXED, "arrival_seed": 4}).prepare()
    assert [item.arrival_s for item in another.items] != times_s


def test_lengths_are_met_and_no_two_prompts_begin_alike() -> None:
    items = OpenLoopWorkload(**FIXED).prepare().items
    texts = [item.messages[0]["content"] for item in items]
    assert {len(text.split()) for text in texts} == {20}
    assert len({text.split()[0] for text in texts}) == len(texts)
    assert {(item.n_input_tokens, item.n_output_tokens) for item in items} == {(20, 30)}
    # Made exactly so long by the loaded model's own tokenizer, unless placeholders are wanted.
    assert OpenLoopWorkload(**FIXED).prepare().n_padded_tokens == 20
    assert OpenLoopWorkload(**FIXED, prompt_words=5).prepare().n_padded_tokens is None
    short = OpenLoopWorkload(**FIXED, prompt_words=5).prepare().items
    assert {len(item.messages[0]["content"].split()) for item in short} == {5}
    assert {item.n_input_tokens for item in short} == {20}


def test_bursts_and_recorded_arrivals() -> None:
    bursts = OpenLoopWorkload(**{**FIXED, "arrivals": {"kind": "gamma", "rate_per_s": 0.8, "cv": 3.0}}).prepare()
    assert bursts.settings["cv"] == 3.0
    recorded = {"kind": "trace", "trace_s": [1.0, 1.5, 9.0]}
    items = OpenLoopWorkload(**{**FIXED, "arrivals": recorded, "duration_s": 5.0}).prepare().items
    assert [item.arrival_s for item in items] == [1.0, 1.5]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"arrivals": {"kind": "poisson"}}, "rate"),
        ({"arrivals": {"kind": "gamma", "rate_per_s": 1.0}}, "cv"),
        ({"n_output_tokens": None}, "n_output_tokens"),
        ({"bucket": "short-long"}, "trace"),
        ({"surprise": 1}, "surprise"),
        ({"trace": "../secret", "n_input_tokens": None}, "trace"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidOptionError, match=named):
        OpenLoopWorkload(**{**FIXED, **changes})


def traced(folder: Path, *lengths: tuple[int | None, int | None]) -> Path:
    path = folder / "chats.jsonl"
    write_trace(
        path,
        [
            TracedRequest(
                conversation_id=f"c{i}", prompt=f"prompt {i}", n_input_tokens=n, n_output_tokens=m, source="sharegpt"
            )
            for i, (n, m) in enumerate(lengths)
        ],
    )
    return path


def from_trace(folder: Path, **options: object) -> OpenLoopWorkload:
    given = {"duration_s": 100.0, "arrivals": POISSON, "arrival_seed": 0, "trace": "chats.jsonl", **options}
    return OpenLoopWorkload(folder=folder, **given)


def test_requests_of_a_file_keep_their_lengths_and_a_bucket_chooses(tmp_path: Path) -> None:
    traced(tmp_path, (10, 20), (2000, 50), (300, 400))
    items = from_trace(tmp_path).prepare().items
    assert {(item.n_input_tokens, item.n_output_tokens) for item in items} == {(10, 20), (2000, 50), (300, 400)}
    only = from_trace(tmp_path, bucket="medium-long", max_output_tokens=128).prepare()
    assert {(item.n_input_tokens, item.n_output_tokens) for item in only.items} == {(300, 128)}
    assert len({item.item_id for item in only.items}) == len(only.items)
    assert "1 of 3 requests" in only.source and only.settings["trace_sha256"]


def test_a_file_without_lengths_needs_one_given(tmp_path: Path) -> None:
    traced(tmp_path, (None, None))
    with pytest.raises(WorkloadNotFoundError, match="--tokenizer"):
        from_trace(tmp_path).prepare()
    items = from_trace(tmp_path, n_output_tokens=7).prepare().items
    assert {item.n_output_tokens for item in items} == {7}


def test_a_broken_line_is_named_and_so_is_a_missing_file(tmp_path: Path) -> None:
    path = traced(tmp_path, (1, 2), (3, 4))
    path.write_text(path.read_text() + '{"conversation_id": "x"}\n')
    with pytest.raises(WorkloadNotFoundError, match=r"chats\.jsonl, line 3"):
        from_trace(tmp_path).prepare()
    with pytest.raises(InvalidOptionError, match=r"There is: chats\.jsonl"):
        from_trace(tmp_path, trace="other.jsonl").prepare()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "request_traces"
    folder.mkdir()
    traced(tmp_path, (1, 2))
    (folder / "chats.jsonl").symlink_to(tmp_path / "chats.jsonl")
    with pytest.raises(InvalidOptionError, match="no file"):
        from_trace(folder).prepare()


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [((256, 100), "short-short"), ((257, 101), "medium-medium"), ((1025, 351), "long-long"), ((1, 9999), "short-long")],
)
def test_length_buckets(lengths: tuple[int, int], bucket: str) -> None:
    assert length_bucket(*lengths) == bucket

"""Public collections of conversations in their own schemas; the files are of our own writing."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from contract.errors import InvalidOptionError, WorkloadNotFoundError
from testbed.cli import app
from testbed.workloads.chat_source import Passed, read_conversations
from testbed.workloads.request_trace import read_trace

DATA = Path(__file__).parent / "data"


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("source", "file", "ids", "passed"),
    [
        ("sharegpt", "sharegpt.json", ["own1_0", "own2_0"], Passed(n_without_turns=2, n_empty=1)),
        ("lmsys", "lmsys.jsonl", ["0a1", "0a2"], Passed()),
        ("wildchat", "wildchat.jsonl", ["f00d"], Passed(n_empty=1)),
    ],
)
def test_each_source_is_read_in_its_own_schema(source: str, file: str, ids: list[str], passed: Passed) -> None:
    counted = Passed()
    requests = list(read_conversations(source, DATA / file, counted, words))
    assert [request.conversation_id for request in requests] == ids and counted == passed
    assert all(request.source == source for request in requests)
    assert all(request.n_input_tokens == words(request.prompt) for request in requests)


def test_the_first_exchange_is_taken_and_a_system_prompt_is_no_part_of_it() -> None:
    first, second = read_conversations("sharegpt", DATA / "sharegpt.json", Passed(), words)
    assert (first.prompt, first.n_output_tokens) == ("How does a lighthouse turn its lamp?", 9)
    assert (second.prompt, second.n_output_tokens) == ("Name a river.", 2)


def test_without_a_tokenizer_lengths_are_not_known() -> None:
    for request in read_conversations("lmsys", DATA / "lmsys.jsonl", Passed()):
        assert request.n_input_tokens is None and request.n_output_tokens is None


def test_parquet_is_read_like_json_lines(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (DATA / "lmsys.jsonl").read_text().splitlines()]
    kept = [{name: row[name] for name in ("conversation_id", "model", "conversation")} for row in rows]
    pl.DataFrame(kept).write_parquet(tmp_path / "lmsys.parquet")
    lines = list(read_conversations("lmsys", DATA / "lmsys.jsonl", Passed(), words))
    assert list(read_conversations("lmsys", tmp_path / "lmsys.parquet", Passed(), words)) == lines
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "lmsys.parquet").read_bytes()[:100])
    with pytest.raises(WorkloadNotFoundError, match=r"cut\.parquet"):
        list(read_conversations("lmsys", tmp_path / "cut.parquet", Passed()))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"conversation_id": "a", "conversation": []}\n{"conversation_id": "b", "conv', 2),
        ('\n\n{"conversation_id": "a"}\n', 3),
        ('{"conversation_id": "a", "conversation": [{"role": "user"}, {"content": "x"}]}\n', 1),
        ('{"conversation_id": "a", "conversation": []}\n[1, 2]\n', 2),
        ('[\n{"conversation_id": "a", "conversation": []},\n{"conversation_id": "b", ]', 3),
        ('[\n{"conversation_id": "a", "conversation": []},\n', 3),
    ],
)
def test_a_broken_line_is_named_with_its_file(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(text)
    with pytest.raises(WorkloadNotFoundError, match=rf"broken\.jsonl, line {line} "):
        list(read_conversations("lmsys", path, Passed()))


def test_an_unknown_source_and_a_wrong_one_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="sharegpt, lmsys, wildchat"):
        list(read_conversations("reddit", DATA / "lmsys.jsonl", Passed()))
    with pytest.raises(WorkloadNotFoundError, match="line 1 "):
        list(read_conversations("wildchat", DATA / "lmsys.jsonl", Passed()))


def test_the_command_converts_to_the_one_form(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(app, ["traces", "convert", "sharegpt", str(DATA / "sharegpt.json"), str(out)])
    assert result.exit_code == 0, result.output
    assert "2 requests" in result.output and "2 without" in result.output and "1 empty" in result.output
    trace = read_trace(out)
    assert [request.conversation_id for request in trace.requests] == ["own1_0", "own2_0"]
    again = CliRunner().invoke(
        app, ["traces", "convert", "sharegpt", str(DATA / "sharegpt.json"), str(out), "--limit", "1"]
    )
    assert "1 requests" in again.output

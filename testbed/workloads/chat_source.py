"""Public collections of conversations, read in their own schemas: ShareGPT, LMSYS-Chat-1M, WildChat.

| source | files | conversation | turn |
|---|---|---|---|
| sharegpt | JSON array or JSON lines | `id`, `conversations` | `from`: human, gpt, ...; `value` |
| lmsys | JSON lines or Parquet | `conversation_id`, `conversation` | `role`: user, assistant; `content` |
| wildchat | JSON lines or Parquet | `conversation_hash`, `conversation` | the same |

Of each conversation the first person's turn and the answer to it are taken: a request without history. Conversations
that have none, such as those that begin with the model, are passed over and counted. A line that is no conversation at
all is an error that names file and line: half a download must not pass for a data set.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import InvalidOptionError, WorkloadNotFoundError
from testbed.workloads.request_trace import TracedRequest

CountTokens = Callable[[str], int]
"""Tokens of a text, without special ones."""


@dataclass(frozen=True)
class _Schema:
    id: str
    turns: str
    who: str
    text: str
    person: frozenset[str]
    model: frozenset[str]


_OPENAI = {"who": "role", "text": "content", "person": frozenset({"user"}), "model": frozenset({"assistant"})}
_GPT = frozenset({"gpt", "chatgpt", "bing", "bard"})
_SCHEMAS = {
    "sharegpt": _Schema(
        "id",
        "conversations",
        "from",
        "value",
        frozenset({"human", "user"}),
        frozenset({"gpt", "chatgpt", "bing", "bard"}),
    ),
    "lmsys": _Schema("conversation_id", "conversation", **_OPENAI),  # type: ignore[arg-type]
    "wildchat": _Schema("conversation_hash", "conversation", **_OPENAI),  # type: ignore[arg-type]
}
SOURCES = tuple(_SCHEMAS)


@dataclass
class Passed:
    """What was passed over.

    Attributes:
        n_without_turns: conversations without a person's turn that is answered.
        n_empty: those whose prompt or answer is empty, or has no token.
    """

    n_without_turns: int = 0
    n_empty: int = 0


def read_conversations(
    source: str, path: Path, passed: Passed, count_tokens: CountTokens | None = None
) -> Iterator[TracedRequest]:
    """The requests of a file, in its order.

    Args:
        source: one of `SOURCES`.
        path: of the file; `.parquet`, else JSON.
        passed: counts what is passed over.
        count_tokens: of the model that is to serve them; None: lengths stay unknown.

    Raises:
        InvalidOptionError: no such source.
        WorkloadNotFoundError: the file cannot be read, or a line is no conversation; the message names file and line.
    """
    if source not in _SCHEMAS:
        raise InvalidOptionError(f"There is no source {source!r}. Choose one of: {', '.join(SOURCES)}.")
    schema = _SCHEMAS[source]
    rows = _parquet_rows(path, schema) if path.suffix == ".parquet" else _json_rows(path)
    for line, row in rows:
        turns, name = _turns(row, schema, path, line)
        pair = _first_exchange(turns, schema)
        if pair is None:
            passed.n_without_turns += 1
            continue
        prompt, answer = pair
        n_input = count_tokens(prompt) if count_tokens else None
        n_output = count_tokens(answer) if count_tokens else None
        if not prompt.strip() or not answer.strip() or 0 in (n_input, n_output):
            passed.n_empty += 1
            continue
        yield TracedRequest(
            conversation_id=name, prompt=prompt, n_input_tokens=n_input, n_output_tokens=n_output, source=source
        )


def hugging_face_counter(folder: str) -> CountTokens:
    """Counts with a tokenizer of `transformers`.

    Args:
        folder: with the tokenizer's files, or the hub's name of it.

    Raises:
        WorkloadNotFoundError: `transformers` is not installed, or there is no tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise WorkloadNotFoundError(
            "Counting tokens needs transformers: pip install 'joulebed[transformers]'; or leave --tokenizer out."
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise WorkloadNotFoundError(f"There is no tokenizer in {folder} ({error}).") from error
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _turns(row: Any, schema: _Schema, path: Path, line: int) -> tuple[Sequence[Mapping[str, Any]], str]:
    turns = row.get(schema.turns) if isinstance(row, dict) else None
    name = row.get(schema.id) if isinstance(row, dict) else None
    is_fine = isinstance(name, str | int) and isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
    if not is_fine or not str(name):
        raise _broken(path, line, f"it has no {schema.id!r} with a list {schema.turns!r} of turns")
    assert isinstance(turns, list)
    for turn in turns:
        if not isinstance(turn.get(schema.who), str) or not isinstance(turn.get(schema.text), str | None):
            raise _broken(path, line, f"a turn has no {schema.who!r} and {schema.text!r}")
    return turns, str(name)


def _first_exchange(turns: Sequence[Mapping[str, Any]], schema: _Schema) -> tuple[str, str] | None:
    """The first turn of a person and the answer right after it; a system prompt before them is no part of it."""
    for turn, following in itertools.pairwise(turns):
        if turn[schema.who] in schema.person:
            return (
                (str(turn[schema.text] or ""), str(following[schema.text] or ""))
                if following[schema.who] in schema.model
                else None
            )
    return None


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, object) of JSON lines, or of one array; the line is where an object begins."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadNotFoundError(f"{path} cannot be read ({error}).", path=str(path)) from error
    if text.lstrip().startswith("["):
        yield from _array_rows(path, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise _broken(path, number, f"it is no JSON: {error}") from error


def _array_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Object by object, so that a broken one is found where it is."""
    decoder, at, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        if at >= len(text):
            raise _broken(path, line, "the array does not end: the file was cut off")
        if text[at] == "]":
            return
        try:
            row, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise _broken(path, line, f"the object that begins here is no JSON: {error}") from error
        yield line, row


def _parquet_rows(path: Path, schema: _Schema) -> Iterator[tuple[int, Any]]:
    import polars as pl

    try:
        frame = pl.read_parquet(path, columns=[schema.id, schema.turns])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WorkloadNotFoundError(f"{path} cannot be read ({error}).", path=str(path)) from error
    yield from enumerate(frame.iter_rows(named=True), start=1)


def _broken(path: Path, line: int, why: str) -> WorkloadNotFoundError:
    return WorkloadNotFoundError(
        f"{path}, line {line} is no conversation: {why}. Download the file again, or name its source rightly.",
        path=str(path),
        line=line,
    )

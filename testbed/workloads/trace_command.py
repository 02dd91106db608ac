"""`testbed traces convert`: a public collection of conversations in the one form that `open_loop` reads."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Requests of public data sets, for open-loop serving.")


@app.callback()
def _traces() -> None:
    """Requests of public data sets, for open-loop serving."""


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="sharegpt, lmsys or wildchat.")],
    path: Annotated[Path, typer.Argument(help="File of the data set: JSON, JSON lines or Parquet.")],
    out: Annotated[Path, typer.Argument(help="JSONL file to write; goes into DATA_DIR/request_traces of a testbed.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of the served model's tokenizer; without it lengths stay unknown.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many requests at most.")] = None,
) -> None:
    """Convert a data set; what is passed over is counted."""
    from contract.errors import UsageError
    from testbed.workloads.chat_source import Passed, hugging_face_counter, read_conversations
    from testbed.workloads.request_trace import length_bucket, write_trace

    passed, buckets = Passed(), Counter[str]()
    count_tokens = hugging_face_counter(tokenizer) if tokenizer is not None else None
    requests = list(islice(read_conversations(source, path, passed, count_tokens), limit))
    try:
        n_requests = write_trace(out, requests)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error}).") from error
    typer.echo(
        f"{n_requests} requests of {source} in {out}; passed over: {passed.n_without_turns} without an answered turn "
        f"of a person, {passed.n_empty} empty."
    )
    for request in requests:
        if request.n_input_tokens is not None and request.n_output_tokens is not None:
            buckets[length_bucket(request.n_input_tokens, request.n_output_tokens)] += 1
    if buckets:
        typer.echo("Lengths (input-output): " + ", ".join(f"{name} {n}" for name, n in sorted(buckets.items())))
    else:
        typer.echo("No tokenizer has counted: give --tokenizer, or the workload option n_output_tokens.")

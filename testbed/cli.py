"""The testbed's command line: `testbed serve`, `testbed doctor`."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from contract.errors import JouleBedError, UsageError
from testbed.workloads.trace_command import app as traces

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Runs trials one at a time, and measures them.")
app.add_typer(traces, name="traces")

SUPERGLUE_VARIABLE = "JOULEBED_SUPERGLUE_DIR"
"""Environment variable that tells the children where SuperGLUE items are."""

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    data_dir: Annotated[Path, typer.Option(help="Where attempts are kept until they are acknowledged.")] = Path(
        "testbed-data"
    ),
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token. Else JOULEBED_TOKEN; else, on loopback, a new one.")
    ] = None,
    certfile: Annotated[Path | None, typer.Option(help="Certificate for TLS, PEM; with --keyfile.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its private key, PEM, without a passphrase.")] = None,
    meter: Annotated[str, typer.Option(help="What the meter name `auto` stands for.")] = "auto",
    superglue_dir: Annotated[
        Path | None, typer.Option(help="Folder with SuperGLUE items: TASK/SPLIT.jsonl in SuperGLUE's schema.")
    ] = None,
    allow_model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model source that may be loaded, such as 'hf:meta-llama/*' or 'path:/models'; may be repeated. "
            "By default package:*, hf:* and fake:*."
        ),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once requests are answered: JSON with url and pid.")
    ] = None,
    log_level: Annotated[str, typer.Option(help=", ".join(_LOG_LEVELS))] = "info",
    log_format: Annotated[str, typer.Option(help="text, or json: an object per line.")] = "text",
) -> None:
    """Answer the orchestrator until SIGTERM or Ctrl-C; a running trial is cancelled then."""
    # Imported here: `--help` must not wait for a web framework.
    from contract.log_line import secret_values
    from testbed.allocator import give_back_large_blocks
    from testbed.log import configure_log
    from testbed.model_policy import DEFAULT, ModelPolicy
    from testbed.node import TestbedNode
    from testbed.server import TOKEN_VARIABLE, bind, choose_token, load_certificate, url_of
    from testbed.server import serve as serve_node

    if log_level not in _LOG_LEVELS:
        raise UsageError(f"There is no log level {log_level!r}. Choose one of: {', '.join(_LOG_LEVELS)}.")
    if log_format not in ("text", "json"):
        raise UsageError(f"There is no log format {log_format!r}. Choose one of: text, json.")
    secrets = secret_values(os.environ)
    configure_log(log_level, "json" if log_format == "json" else "text", secrets=secrets)
    # Results, logs and the token are their owner's: the children inherit this too.
    os.umask(0o077)
    give_back_large_blocks()
    child_env = {}
    if superglue_dir is not None:
        if not superglue_dir.is_dir():
            raise UsageError(f"There is no folder {superglue_dir}. Give --superglue-dir the one with TASK/*.jsonl.")
        child_env[SUPERGLUE_VARIABLE] = str(superglue_dir.resolve())
    token, token_path = choose_token(host, token_file, os.environ.pop(TOKEN_VARIABLE, None), data_dir)
    secrets.append(token)
    certificate = load_certificate(certfile, keyfile)
    bound = bind(host, port)
    try:
        # Until the server handles signals, they end the process by way of the clean-up below.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        node = TestbedNode.open(
            data_dir, default_meter=meter, child_env=child_env, models=ModelPolicy(tuple(allow_model or DEFAULT))
        )
        try:
            console = Console(stderr=True)
            console.print(
                f"Testbed on {url_of(bound, certificate)}, attempts in {data_dir}", highlight=False, soft_wrap=True
            )
            if token_path is not None:
                console.print(f"The orchestrator needs the token in {token_path}", highlight=False, soft_wrap=True)
            serve_node(node, bound, token, ready_file=ready_file, log_level=log_level, certificate=certificate)
        finally:
            node.close()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
    finally:
        bound.close()


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Where `testbed serve` is to keep attempts.")] = Path("testbed-data"),
) -> None:
    """Show what this machine can run and measure, and how to mend what it cannot. Exit code 1: its disk is full."""
    from testbed.composition import describe
    from testbed.doctor import checks, is_disk_full, print_node

    info = describe(data_dir)
    if as_json:
        typer.echo(info.model_dump_json(indent=1))
    else:
        print_node(Console(), info, checks(info))
    raise typer.Exit(1 if is_disk_full(info) else 0)


def _stop(number: int, frame: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Entry of the console command. Exit codes: 0 fine, 1 failed, 2 wrong usage."""
    try:
        app()
    except JouleBedError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(error.message)}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) or error.http_status == 422 else 1)

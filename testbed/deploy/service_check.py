"""Asks a testbed of this machine whether it answers, and whether it is at work.

`python -m testbed.deploy.service_check wait|idle URL --token-file FILE`
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from contract import routes
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from testbed.clock import Clock, SystemClock

_TIMEOUT_S = 10
_PAUSE_S = 0.3

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A testbed of this machine.")
_Url = Annotated[str, typer.Argument(help="Such as http://127.0.0.1:8765.")]
_Token = Annotated[Path, typer.Option(help="File with its token.")]


def ask_node(url: str, token: str) -> dict[str, Any] | None:
    """A testbed's description of itself.

    Args:
        url: where.
        token: the bearer token.

    Returns:
        None where nobody answers, or somebody who does not take this token.
    """
    request = urllib.request.Request(
        f"{url}{routes.NODE}", headers={"Authorization": f"Bearer {token}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    )
    # A proxy of the environment is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            found = json.load(answer)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return found if isinstance(found, dict) else None


def wait(url: str, token: str, limit_s: float, clock: Clock, *, pid: int | None = None) -> bool:
    """Wait until a testbed answers; False when it did not in time, or its process ended."""
    deadline_ns = clock.monotonic_ns() + round(limit_s * 1e9)
    while ask_node(url, token) is None:
        if clock.monotonic_ns() > deadline_ns or (pid is not None and not psutil.pid_exists(pid)):
            return False
        clock.sleep(_PAUSE_S)
    return True


@app.command(name="wait")
def wait_command(
    url: _Url,
    token_file: _Token,
    limit_s: Annotated[float, typer.Option(help="How long, in seconds.")] = 90.0,
    pid: Annotated[int | None, typer.Option(help="Its process: no need to wait longer than it lives.")] = None,
) -> None:
    """Wait until it answers. Exit code 1 when it does not."""
    start_s = time.monotonic()
    if not wait(url, token_file.read_text().strip(), limit_s, SystemClock(), pid=pid):
        waited_s = time.monotonic() - start_s
        typer.echo(f"Error: no testbed that takes {token_file} answers on {url} after {waited_s:.0f} s.", err=True)
        raise typer.Exit(1)
    typer.echo(f"    it answers on {url}, after {time.monotonic() - start_s:.1f} s")


@app.command()
def idle(url: _Url, token_file: _Token) -> None:
    """Exit code 0 when no trial runs: it answers and is idle, or does not answer; 3 when one does."""
    info = ask_node(url, token_file.read_text().strip()) if token_file.exists() else None
    running = info.get("running_attempt_id") if info else None
    if running:
        typer.echo(f"Attempt {running} is running.")
        raise typer.Exit(3)


if __name__ == "__main__":
    app()

"""Downloads SuperGLUE's validation items from the hub, as Parquet, and keeps them as TASK.jsonl.

`python -m testbed.deploy.superglue_download FOLDER`; then `testbed serve --superglue-dir FOLDER` needs no network.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from pydantic import Field, ValidationError

from contract.errors import JouleBedError, UsageError
from contract.units import WireModel
from testbed.attempt_folder import write_atomic
from testbed.deploy import hub
from testbed.workloads.superglue_items import HUB_REPOSITORY, HUB_REVISION, read_folder
from testbed.workloads.superglue_task import SuperGlueTask, find_task

TASKS = ("BoolQ", "CB", "COPA", "RTE", "WiC", "WSC")
ORIGIN = "origin.json"


class SuperGlueOrigin(WireModel):
    """Where the items of a folder came from."""

    repository: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit of the hub's Parquet conversion."""
    items: dict[str, str]
    """Task -> what pins its items, as a result names it."""


def read_origin(folder: Path) -> SuperGlueOrigin | None:
    """What an earlier download wrote down; None where there was none.

    Raises:
        UsageError: the file is not one of these.
    """
    path = folder / ORIGIN
    try:
        return SuperGlueOrigin.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}). Delete {folder} and run init_env.sh again.") from error


def download(folder: Path, say: Callable[[str], None]) -> SuperGlueOrigin:
    """The six tasks, at the commit of the first download; what is here and unchanged is not fetched again.

    Args:
        folder: takes TASK.jsonl and origin.json, all or nothing.
        say: takes one line for people per task.

    Raises:
        DownloadError: cut short; call again.
        WorkloadNotFoundError: an item is not as SuperGLUE's are.
    """
    known = read_origin(folder)
    if known is not None and known.items == _revisions(folder):
        return known
    revision = known.revision if known else hub.resolve(HUB_REPOSITORY, HUB_REVISION, kind="dataset")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        items = {}
        for task in map(find_task, TASKS):
            _write_jsonl(_parquet(task, revision), building / f"{task.name}.jsonl")
            checked = read_folder(task, building)
            items[task.name] = checked.revision
            say(f"{task.name}: {len(checked.rows)} items")
        origin = SuperGlueOrigin(repository=HUB_REPOSITORY, revision=revision, items=items)
        write_atomic(building / ORIGIN, origin)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return origin


def _revisions(folder: Path) -> dict[str, str] | None:
    try:
        return {task.name: read_folder(task, folder).revision for task in map(find_task, TASKS)}
    except JouleBedError:
        return None  # a file is gone or was edited: fetched again


def _parquet(task: SuperGlueTask, revision: str) -> pl.DataFrame:
    folder = f"{task.hub_config}/validation/"
    files = hub.list_files(HUB_REPOSITORY, revision, [f"{folder}*.parquet"], [], kind="dataset")
    if not files:
        raise hub.DownloadError(
            f"{HUB_REPOSITORY} at {revision} has no {folder}*.parquet. Take the files of SuperGLUE's own archive "
            "instead: `testbed serve --superglue-dir DIR`, with TASK/val.jsonl in it."
        )
    paths = [hub.fetch_small(HUB_REPOSITORY, revision, file, kind="dataset") for file in files]
    try:
        return pl.concat([pl.read_parquet(path) for path in paths])
    except pl.exceptions.PolarsError as error:
        raise hub.DownloadError(
            f"The items of {task.name} are not Parquet ({error}). Run the same command again."
        ) from error


def _write_jsonl(rows: pl.DataFrame, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows.iter_rows(named=True):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


app = typer.Typer(add_completion=False, help="SuperGLUE's validation items, as TASK.jsonl.")


@app.command()
def fetch(folder: Annotated[Path, typer.Argument(help="Takes the files.")]) -> None:
    """Download what is missing."""
    origin = download(folder, lambda line: typer.echo(f"    {line}"))
    typer.echo(f"    SuperGLUE at {origin.revision}: checked")


def main() -> None:
    """Entry of `python -m`. Exit codes: 0 fine, 1 failed, 2 cannot be done as asked."""
    try:
        app()
    except JouleBedError as error:
        typer.echo(f"Error: {error.message}", err=True)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error


if __name__ == "__main__":
    main()

"""Downloads models into the Hugging Face cache, each at one commit; a download cut short goes on where it stopped.

`python -m testbed.deploy.model_download check|fetch --pins FILE MODEL...`
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from contract.errors import JouleBedError, UsageError
from testbed.deploy import hub
from testbed.engines.model_source import HUB_FILES, HUB_LEFT_OUT
from testbed.model_pin import ModelPin, read_pins, write_pin

STUDY = "study"
"""Stands for all of `STUDY_MODELS`."""

STUDY_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "meta-llama/Llama-2-7b-chat-hf": "f5db02db724555f92da89c216ac04704f23d4590",
        "meta-llama/Meta-Llama-3-8B-Instruct": "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2",
        "meta-llama/Llama-3.1-8B-Instruct": "0e9e39f249a16976918f6564b8830bc894c89659",
        "meta-llama/Llama-3.2-1B-Instruct": "9213176726f574b556790deb65791e0c5aa438b6",
        "meta-llama/Llama-3.2-3B-Instruct": "0cb88a4f764b7a12671c53f0838cd831a0843b95",
    }
)
"""Repository -> commit. Each commit is the one that ten and more public projects name for that repository."""

MARGIN_BYTES = 2**30
"""Left free on the disk, beside the models."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class WantedModel:
    """A repository, and its commit where one is known.

    Attributes:
        repository: ORG/NAME.
        revision: 40 hex digits; None: what `main` is now, which is then written down.
    """

    repository: str
    revision: str | None


@dataclass(frozen=True)
class ModelPlan:
    """What a download will fetch.

    Attributes:
        repository: ORG/NAME.
        revision: its commit.
        files: all that an engine needs.
        missing_bytes: what is not on the disk yet.
    """

    repository: str
    revision: str
    files: tuple[hub.HubFile, ...]
    missing_bytes: int

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


def wanted_models(names: Sequence[str], pins: Mapping[str, ModelPin]) -> list[WantedModel]:
    """Which repositories are meant, and at which commits.

    Args:
        names: `study`, ORG/NAME, the last part of one of the study's names, or any of them with @COMMIT.
        pins: commits of earlier downloads; they win over the study's.

    Raises:
        UsageError: a name that is none of these.
    """
    wanted: dict[str, WantedModel] = {}
    for text in names:
        name, _, revision = text.partition("@")
        if revision and not _COMMIT.fullmatch(revision):
            raise UsageError(f"{text!r} has no commit after the @: give its 40 hex digits.")
        for repository in STUDY_MODELS if name == STUDY else [_full_name(name)]:
            pin = pins.get(repository)
            known = revision or (pin.revision if pin else STUDY_MODELS.get(repository))
            wanted[repository] = WantedModel(repository, known)
    return list(wanted.values())


def _full_name(name: str) -> str:
    for repository in STUDY_MODELS:
        if name in (repository, repository.partition("/")[2]):
            return repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(
            f"There is no model {name!r}. Write ORG/NAME as on the hub, `{STUDY}`, or one of: "
            f"{', '.join(repository.partition('/')[2] for repository in STUDY_MODELS)}."
        )
    return name


def plan(model: WantedModel, cache: hub.HubCache) -> ModelPlan:
    """Ask the hub for a model's files, and look which are here.

    Raises:
        DownloadError: the hub cannot be reached, knows no such model, or does not let this token have it.
    """
    revision = model.revision or hub.resolve(model.repository)
    hub.check_access(model.repository)
    files = hub.list_files(model.repository, revision, HUB_FILES, HUB_LEFT_OUT)
    if not any(file.path.endswith(".safetensors") for file in files):
        raise UsageError(f"{model.repository} has no .safetensors file. Choose a repository that has.")
    missing_bytes = sum(cache.missing_bytes(model.repository, revision, file) for file in files)
    return ModelPlan(model.repository, revision, files, missing_bytes)


def check_space(plans: Sequence[ModelPlan], folder: Path, *, also_bytes: int, free_bytes: int) -> None:
    """Refuse what will not fit, before the first byte.

    Args:
        plans: all that is to come.
        folder: where to; for the message.
        also_bytes: what else will go on the same disk.
        free_bytes: on it.

    Raises:
        UsageError: it will not fit.
    """
    needed_bytes = sum(each.missing_bytes for each in plans) + also_bytes
    if needed_bytes + MARGIN_BYTES <= free_bytes:
        return
    sizes = ", ".join(f"{each.repository} {_gb(each.missing_bytes)}" for each in plans if each.missing_bytes)
    also = f", and the packages {_gb(also_bytes)}" if also_bytes else ""
    raise UsageError(
        f"There is not enough space for the models: {_gb(needed_bytes)} are still to come ({sizes}{also}), and "
        f"{folder} has {_gb(free_bytes)} free, of which {_gb(MARGIN_BYTES)} are kept. Make room, choose fewer with "
        "--models, or another disk with the environment variable HF_HOME."
    )


def fetch(each: ModelPlan, cache: hub.HubCache, pins: Path, say: Callable[[str], None]) -> None:
    """Download what is missing, check it, and write the commit down.

    Args:
        each: what.
        cache: where to.
        pins: the file of commits; written when the model is whole.
        say: takes one line for people per file.

    Raises:
        DownloadError: cut short, or not what the hub announced. What arrived is kept: call again.
    """
    for file in each.files:
        if cache.missing_bytes(each.repository, each.revision, file):
            here = cache.partial_bytes(file)
            say(f"{each.repository}/{file.path}: {_gb(file.size_bytes)}" + (f", {_gb(here)} are here" if here else ""))
        cache.fetch(each.repository, each.revision, file)
    cache.finish(each.repository, each.revision)
    write_pin(pins, each.repository, ModelPin(revision=each.revision, n_bytes=each.n_bytes))


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Models in the Hugging Face cache, each at one commit."
)
_Pins = Annotated[Path, typer.Option(help="File with the commit of each model; kept from the first download on.")]
_Names = Annotated[list[str], typer.Argument(help=f"ORG/NAME[@COMMIT], or `{STUDY}`.")]


@app.command()
def check(
    models: _Names, pins: _Pins, also_gib: Annotated[float, typer.Option(help="Space that something else needs.")] = 0.0
) -> None:
    """See that the hub gives all models to this token, and that they fit on the disk. Downloads nothing."""
    cache = hub.HubCache()
    plans = _plans(models, pins, cache)
    check_space(plans, cache.folder, also_bytes=round(also_gib * 2**30), free_bytes=_free_bytes(cache.folder))


@app.command(name="fetch")
def fetch_command(models: _Names, pins: _Pins) -> None:
    """Download what is missing."""
    cache = hub.HubCache()
    plans = _plans(models, pins, cache)
    check_space(plans, cache.folder, also_bytes=0, free_bytes=_free_bytes(cache.folder))
    for each in plans:
        fetch(each, cache, pins, lambda line: typer.echo(f"    {line}"))
        typer.echo(f"    {each.repository} at {each.revision}: {_gb(each.n_bytes)}, checked")


def _plans(names: Sequence[str], pins_file: Path, cache: hub.HubCache) -> list[ModelPlan]:
    pins = read_pins(pins_file)
    plans = []
    for model in wanted_models(names, pins):
        pin = pins.get(model.repository)
        if pin is not None and pin.revision == model.revision and cache.has(model.repository, pin.revision):
            typer.echo(f"    {model.repository} at {pin.revision}: is here")
            continue
        plans.append(plan(model, cache))
    return plans


def main(**options: Any) -> None:
    """Entry of `python -m`. Exit codes: 0 fine, 1 failed, 2 cannot be done as asked."""
    try:
        app(**options)
    except JouleBedError as error:
        typer.echo(f"Error: {error.message}", err=True)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error


if __name__ == "__main__":
    main()

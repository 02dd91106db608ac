"""What is worked out once about a model's files and kept: hashes, and GGUF weights unpacked for vLLM."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from contract.errors import MissingPackageError, ModelLoadError
from contract.units import WireModel, sha256_of
from testbed.engines.model_source import ModelFiles

_RECIPE = 1
"""Part of the cache's key: raise it when the unpacked folder would come out differently."""
_BUILDING = ".building-"
_STALE_S = 86_400.0
# What determines a Hugging Face folder's answers.
_FOLDER_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


class _HashRecord(WireModel):
    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str


def cache_root(env: Mapping[str, str] | None = None) -> Path:
    """Folder of the caches: JOULEBED_CACHE, else ~/.cache/joulebed. Not created.

    Args:
        env: environment; None means this process's.
    """
    named = (os.environ if env is None else env).get("JOULEBED_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "joulebed"


def weights_revision(files: ModelFiles, cache: Path) -> str:
    """The exact version of the weights: a commit, or `sha256:` of a file, or of all files of a folder.

    Args:
        files: as found.
        cache: remembers hashes, so that a trial does not read gigabytes again.
    """
    if files.revision is not None:
        return files.revision
    if files.kind == "gguf":
        return f"sha256:{file_sha256(files.path, cache)}"
    named = {path for pattern in _FOLDER_FILES for path in files.path.glob(pattern)}
    return "sha256:" + sha256_of([[path.name, file_sha256(path, cache)] for path in sorted(named)])


def file_sha256(path: Path, cache: Path) -> str:
    """Hex SHA-256 of a file; read again only when its size or modification time has changed.

    Args:
        path: the file.
        cache: folder of the caches.
    """
    path = path.resolve()
    status = path.stat()
    note = cache / "sha256" / f"{sha256_of(str(path))}.json"
    try:
        known = _HashRecord.model_validate_json(note.read_bytes())
    except (FileNotFoundError, ValidationError):
        known = None
    if known and (known.path, known.size_bytes, known.mtime_ns) == (str(path), status.st_size, status.st_mtime_ns):
        return known.sha256
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = _HashRecord(path=str(path), size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=digest)
    note.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=note.parent, suffix=".tmp", delete=False) as draft:
        draft.write(record.model_dump_json())
    Path(draft.name).replace(note)
    return digest


def unpacked_gguf(gguf: Path, cache: Path) -> Path:
    """A Hugging Face folder with a GGUF file's weights as bfloat16, its tokenizer and its chat template.

    vLLM reads no GGUF. The numbers are those of the quantised file, unpacked; memory and speed are those of 16 bits.
    Built on the first call (seconds to minutes), then found by the file's hash. Any number of processes may call at
    once: each builds a folder of its own, and the first to finish gives it the final name.

    Args:
        gguf: the file.
        cache: folder of the caches.

    Raises:
        ModelLoadError: the file is damaged, or of an architecture that cannot be unpacked.
        MissingPackageError: a package that unpacks is not installed.
    """
    folder = cache / "unpacked" / f"{file_sha256(gguf, cache)}-{_RECIPE}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder.parent))
    try:
        _unpack(gguf, building)
        _sync(building)
        try:
            building.rename(folder)
        except OSError:
            # Another process was first, and its folder is equal; anything else is a real failure.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def require_unpacker(gguf: Path) -> None:
    """See that the packages that read GGUF for `unpacked_gguf` are installed, without importing them.

    Raises:
        MissingPackageError: the message names them.
    """
    # transformers reads GGUF only where both are installed.
    missing = [name for name in ("accelerate", "gguf") if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"To unpack {gguf.name} for vLLM, more packages are needed. On the testbed, run: "
            f"pip install {' '.join(missing)}",
            packages=missing,
        )


def _unpack(gguf: Path, target: Path) -> None:
    require_unpacker(gguf)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            trust_remote_code=False,
        )
    except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError) as error:
        raise ModelLoadError(
            f"{gguf} cannot be unpacked for vLLM ({type(error).__name__}: {error}). Check that the file is complete "
            "(fetch it again), or take a Hugging Face folder; the llama_cpp engine runs GGUF as it is.",
            path=str(gguf),
        ) from error
    # It would make vLLM look for quantised weights that are no longer there.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _sync(folder: Path) -> None:
    """Bytes before name: after a power cut, a folder of the final name is whole."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _remove_stale(parent: Path) -> None:
    """Remove what killed processes left half built."""
    for path in parent.glob(f"{_BUILDING}*"):
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue  # its builder has just finished
        if age_s > _STALE_S:
            shutil.rmtree(path, ignore_errors=True)

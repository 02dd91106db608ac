"""A copy of the attempts' files in a store that fsspec knows: S3 and the like, a folder of another machine, by URL.

The folder under `results/` stays the place that counts: an attempt is accepted from it, and this follows behind.
Layout: `URL/EXPERIMENT/runs/RUN_ID/ATTEMPT_ID/NAME`, `result.json` last: an attempt which has it has everything.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from contract.errors import ConfigError, JouleBedError, MissingPackageError
from contract.trial_result import ArtifactRef, TrialResult
from orchestrator.artifacts import RESULT, RUNS
from orchestrator.clients.artifact_file import ArtifactFile, holds
from orchestrator.durable_file import write_durably

_CHUNK_BYTES = 4 * 1024 * 1024
_WITHOUT_FOLDERS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf")
"""Stores where a name may hold slashes as it likes. To make a folder there would make a bucket of a mistyped name."""


_CONTAINER_AT_ACCOUNT = ("abfs", "abfss")
"""Azure's form has no user: `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER`."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}")
"""One store's: a chain such as `simplecache::s3` has URLs of its own behind it."""

_BY_OBSTORE = {"s3": "s3fs"}
"""Stores that `obstore` knows as well, each with fsspec's own package for it, which is taken where it is installed."""


class ArtifactStoreError(JouleBedError):
    """The store did not take a file, or does not give one; what is under `results/` is untouched."""

    code = "artifact_store"
    retryable = True


@dataclass(frozen=True)
class Uploaded:
    """What became of the attempts of an experiment.

    Attributes:
        n_attempts: that are in the store, with those that were there before.
        n_new_files: that were uploaded now.
        n_bytes: of these.
        failed: attempt id -> why it is not there.
    """

    n_attempts: int
    n_new_files: int
    n_bytes: int
    failed: dict[str, str]


def checked_url(url: str) -> str:
    """A store's URL, without a slash at its end.

    Raises:
        ConfigError: it is none, or a secret is in it.
    """
    # None of these repeats the URL: a secret may be in it, wherever it is wrong.
    scheme, colon, rest = url.partition("://")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise ConfigError(
            "That is no URL of a store. Give one, such as s3://bucket/folder or file:///mnt/archive; no chain of them."
        )
    if ("::" in rest and "://" in rest) or _may_hold_a_secret(url):
        raise ConfigError(
            f"A {scheme}:// URL of a store holds no user, password or options: it is kept with the results. "
            "Give credentials as the store's own tools take them: AWS_PROFILE, a role, or a file of fsspec's "
            "(~/.config/fsspec)."
        )
    return url.rstrip("/")


def _may_hold_a_secret(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return True  # what stands in the port's place may be a password
    # Names in a store may have an `@`, such as hf://datasets/ORG/NAME@REVISION. Behind `KEY:...` it ends a secret with
    # a slash in it, as those of S3 have.
    has_user = "@" in parts.netloc and not (parts.scheme in _CONTAINER_AT_ACCOUNT and ":" not in parts.netloc)
    is_user = has_user or (":" in parts.netloc and "@" in parts.path)
    return is_user or bool(parts.query or parts.fragment)


class ArtifactStore:
    """The files of one experiment in a store.

    Args:
        url: see `checked_url`.
        experiment: its name.

    Raises:
        ConfigError: the URL is wrong, or fsspec knows no such store.
        MissingPackageError: fsspec, or the store's package, is not installed.
    """

    def __init__(self, url: str, experiment: str) -> None:
        self.url = f"{checked_url(url)}/{experiment}"
        self._files, self._root = _opened(self.url)
        self._has_folders = urlsplit(self.url).scheme not in _WITHOUT_FOLDERS

    def upload(self, experiment: Path) -> Uploaded:
        """Bring the store to what is under `runs/` here. Idempotent: what is there with its size is left.

        An attempt that fails does not keep the others from going.

        Args:
            experiment: the experiment's folder.
        """
        n_attempts, n_files, n_bytes, failed = 0, 0, 0, dict[str, str]()
        there = self._results()
        for path in sorted((experiment / RUNS).glob(f"*/*/{RESULT}")):
            target = f"{self._root}/{path.relative_to(experiment)}"
            try:
                sizes = [] if there.get(target) == path.stat().st_size else self.upload_attempt(path.parent)
            except JouleBedError as error:
                failed[path.parent.name] = error.message
                continue
            n_attempts, n_files, n_bytes = n_attempts + 1, n_files + len(sizes), n_bytes + sum(sizes)
        return Uploaded(n_attempts, n_files, n_bytes, failed)

    def upload_attempt(self, folder: Path) -> list[int]:
        """Bring one attempt's files there, its result last.

        Args:
            folder: `runs/RUN_ID/ATTEMPT_ID`, with its result.

        Returns:
            The sizes of the files that were not there yet, in bytes.

        Raises:
            ArtifactStoreError: not all of it is there now.
        """
        try:
            content = (folder / RESULT).read_bytes()
            result = TrialResult.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise ArtifactStoreError(
                f"{folder / RESULT} cannot be read: its attempt is not copied. See `orchestrator repair`."
            ) from error
        target = f"{self._root}/{RUNS}/{result.run_id}/{result.attempt_id}"
        own = ArtifactRef(name=RESULT, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        if self._holds(f"{target}/{RESULT}", own):
            return []  # the last one: all others are there
        return [
            artifact.size_bytes
            for artifact in [*result.artifacts, own]
            if self._put(folder / artifact.name, artifact, f"{target}/{artifact.name}")
        ]

    def fetch(self, experiment: Path, run_ids: Sequence[str] = ()) -> Uploaded:
        """Bring the files of attempts back, verified by size and SHA-256. Idempotent.

        Args:
            experiment: the experiment's folder; what is there and verifies is left.
            run_ids: of these runs only; empty: all.
        """
        n_attempts, n_files, n_bytes, failed = 0, 0, 0, dict[str, str]()
        for attempt in self._attempts(run_ids):
            run_id, attempt_id = attempt.split("/")[-2:]
            try:
                sizes = self._fetch_attempt(attempt, experiment / RUNS / run_id / attempt_id)
            except JouleBedError as error:
                failed[attempt_id] = error.message
                continue
            n_attempts, n_files, n_bytes = n_attempts + 1, n_files + len(sizes), n_bytes + sum(sizes)
        return Uploaded(n_attempts, n_files, n_bytes, failed)

    def _results(self) -> dict[str, int]:
        """Path of each result in the store -> its size, in one listing."""
        with _in_words(f"{self.url} cannot be read"):
            self._files.invalidate_cache()
            try:
                found = self._files.find(f"{self._root}/{RUNS}", detail=True)
            except FileNotFoundError:
                return {}
            return {path: int(told["size"]) for path, told in found.items() if path.endswith(f"/{RESULT}")}

    def _attempts(self, run_ids: Sequence[str]) -> list[str]:
        attempts = [path.rpartition("/")[0] for path in sorted(self._results())]
        wanted = [each for each in attempts if not run_ids or each.split("/")[-2] in run_ids]
        missing = sorted(set(run_ids) - {each.split("/")[-2] for each in wanted})
        if missing or not wanted:
            what = f"run {missing[0]}" if missing else "attempt"
            raise ConfigError(f"There is no {what} in {self.url}. Check the URL and the experiment's name.")
        return wanted

    def _fetch_attempt(self, source: str, folder: Path) -> list[int]:
        with _in_words(f"{source} cannot be fetched from {self.url}"):
            content = bytes(self._files.cat_file(f"{source}/{RESULT}"))
            result = TrialResult.model_validate_json(content)
            folder.mkdir(parents=True, exist_ok=True)
            sizes = [
                artifact.size_bytes
                for artifact in result.artifacts
                if self._get(f"{source}/{artifact.name}", artifact, folder / artifact.name)
            ]
            if not (folder / RESULT).exists():
                write_durably(folder / RESULT, content)
                sizes.append(len(content))
            return sizes

    def _put(self, path: Path, artifact: ArtifactRef, target: str) -> bool:
        """Upload a file, unless it is there; whether it was."""
        if self._holds(target, artifact):
            return False
        if not holds(path, artifact):
            raise ArtifactStoreError(
                f"{path} is not what its result says any more: it is not copied. See `orchestrator repair`."
            )
        with _in_words(
            f"{path.name} of attempt {path.parent.name} could not be copied to {self.url}",
            "It is safe here, and is copied at the next start of the same command.",
        ):
            if self._has_folders:
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            # A file that is half there has another size, and is written again.
            self._files.put_file(str(path), target)
        if not self._holds(target, artifact):
            raise ArtifactStoreError(
                f"{self.url} took {path.name} of attempt {path.parent.name}, and has another size or SHA-256 now. The "
                "file here is safe; check the store, then run the same command again."
            )
        return True

    def _holds(self, target: str, artifact: ArtifactRef) -> bool:
        """Whether a file is there with its size; with its SHA-256 too where the store tells it."""
        with _in_words(f"{self.url} cannot be read"):
            self._files.invalidate_cache(target.rpartition("/")[0])
            try:
                told: dict[str, Any] = self._files.info(target)
            except FileNotFoundError:
                return False
        return told.get("size") == artifact.size_bytes and told.get("sha256") in (None, artifact.sha256)

    def _get(self, source: str, artifact: ArtifactRef, destination: Path) -> bool:
        if holds(destination, artifact):
            return False
        with ArtifactFile(destination, artifact) as file:
            file.restart()
            with self._files.open(source, "rb") as original:
                while chunk := original.read(_CHUNK_BYTES):
                    file.write(chunk)
            if not file.place():
                raise ArtifactStoreError(
                    f"{source} in {self.url} is not what its result says: size or SHA-256 differ. It was not taken."
                )
        return True


def _opened(url: str) -> tuple[Any, str]:
    """A file system, and the path on it."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingPackageError(f"fsspec is not installed: pip install 'joulebed[artifacts]'. ({error})") from error
    scheme = urlsplit(url).scheme
    if scheme in _BY_OBSTORE and find_spec(_BY_OBSTORE[scheme]) is None and find_spec("obstore") is not None:
        from obstore.fsspec import register

        register(scheme)
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        # It names the package, such as s3fs for s3://.
        raise MissingPackageError(f"{scheme}:// needs another package: {error}") from error
    except ValueError as error:
        raise ConfigError(f"fsspec knows no store {scheme}:// ({error}). Choose one of its own.") from error
    return files, str(path)


@contextmanager
def _in_words(what: str, advice: str = "Check that it is reachable, and its credentials.") -> Iterator[None]:
    """Every store raises errors of its own kinds: all of them become one that a person can act on."""
    try:
        yield
    except JouleBedError:
        raise
    except Exception as error:  # there is no root that their errors share
        why = " ".join(str(error).split())[:300]
        raise ArtifactStoreError(f"{what} ({type(error).__name__}: {why}). {advice}") from error

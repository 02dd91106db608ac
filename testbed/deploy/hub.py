"""The Hugging Face hub as the deployment needs it: sizes beforehand, checked files, and downloads that go on.

The hub's own client starts a file anew when its process ended in the middle (since its version 2), which for files of
5 GB is not what one wants. So large files are fetched here, under their hash, and put where that client looks.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from contract.errors import JouleBedError
from testbed.engines.model_source import HUB_FILES, HUB_LEFT_OUT, hub_token

RepositoryKind = Literal["model", "dataset"]

_PARTIAL = "joulebed-partial"


class DownloadError(JouleBedError):
    """Something did not arrive whole. What arrived is kept, and the same call goes on from there."""

    code = "download"


@dataclass(frozen=True)
class HubFile:
    """One file of a repository.

    Attributes:
        path: within it.
        size_bytes: as the hub announces.
        sha256: of large files; None for the small ones that the hub keeps in git.
    """

    path: str
    size_bytes: int
    sha256: str | None


def resolve(repository: str, revision: str = "main", *, kind: RepositoryKind = "model") -> str:
    """The commit that a branch is now.

    Raises:
        DownloadError: the hub does not tell.
    """
    from huggingface_hub import HfApi

    with _explained(repository):
        commit = HfApi(token=hub_token()).repo_info(repository, revision=revision, repo_type=kind).sha
    if not commit:
        raise DownloadError(
            f"The hub names no commit of {repository} at {revision}. Try again, or give ORG/NAME@COMMIT."
        )
    return commit


def check_access(repository: str) -> None:
    """See that the token of the environment may download a model.

    Raises:
        DownloadError: it may not, or there is none and the model is gated.
    """
    from huggingface_hub import HfApi

    with _explained(repository):
        HfApi(token=hub_token()).auth_check(repository)


def list_files(
    repository: str, revision: str, patterns: Sequence[str], left_out: Sequence[str], *, kind: RepositoryKind = "model"
) -> tuple[HubFile, ...]:
    """Files of a commit, with sizes and hashes.

    Args:
        repository: ORG/NAME.
        revision: commit.
        patterns: of files to take.
        left_out: of files not to take all the same.
        kind: of the repository.

    Raises:
        DownloadError: the hub does not tell.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _explained(repository):
        tree = HfApi(token=hub_token()).list_repo_tree(repository, recursive=True, revision=revision, repo_type=kind)
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
    taken = [entry for entry in entries if _fits(entry.path, patterns) and not _fits(entry.path, left_out)]
    return tuple(HubFile(each.path, each.size, each.lfs.sha256 if each.lfs else None) for each in taken)


class HubCache:
    """The hub's cache on this machine (`HF_HOME`), which engines read."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self.folder = Path(constants.HF_HUB_CACHE)

    def has(self, repository: str, revision: str) -> bool:
        """Whether a commit's folder is here; that its files are is what a pin says."""
        return (self._repository_folder(repository) / "snapshots" / revision).is_dir()

    def partial_bytes(self, file: HubFile) -> int:
        """How much of a large file arrived before it was cut."""
        path = self._partial(file)
        return path.stat().st_size if path is not None and path.exists() else 0

    def missing_bytes(self, repository: str, revision: str, file: HubFile) -> int:
        """How much of a file is still to come."""
        from huggingface_hub import try_to_load_from_cache

        if isinstance(try_to_load_from_cache(repository, file.path, revision=revision), str):
            return 0
        return max(file.size_bytes - self.partial_bytes(file), 1)

    def fetch(self, repository: str, revision: str, file: HubFile) -> Path:
        """See that a file is here, whole.

        Raises:
            DownloadError: it was cut short or does not have its hash.
        """
        from huggingface_hub import hf_hub_download

        with _explained(f"{repository}/{file.path}"):
            partial = self._partial(file)
            if partial is not None and self.missing_bytes(repository, revision, file):
                self._fetch_large(repository, revision, file, partial)
            # Finds a large file under its hash, and gives it its name; small ones it downloads.
            return Path(hf_hub_download(repository, file.path, revision=revision, token=hub_token()))

    def finish(self, repository: str, revision: str) -> None:
        """Let the client note what a whole copy is made of: from then on an engine loads it without the network.

        Raises:
            DownloadError: the hub does not tell.
        """
        from huggingface_hub import snapshot_download

        with _explained(repository):
            snapshot_download(
                repository,
                revision=revision,
                token=hub_token(),
                allow_patterns=HUB_FILES,
                ignore_patterns=HUB_LEFT_OUT,
            )

    def _fetch_large(self, repository: str, revision: str, file: HubFile, partial: Path) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get

        blob = self._repository_folder(repository) / "blobs" / str(file.sha256)
        if not blob.exists():
            partial.parent.mkdir(parents=True, exist_ok=True)
            # Appending: what arrived in an earlier process is the beginning.
            with partial.open("ab") as target:
                http_get(
                    hf_hub_url(repository, file.path, revision=revision),
                    target,
                    resume_size=target.tell(),
                    headers={"Authorization": f"Bearer {token}"} if (token := hub_token()) else {},
                    expected_size=file.size_bytes,
                )
                target.flush()
                os.fsync(target.fileno())
            with partial.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
            if found != file.sha256:
                partial.unlink()
                raise DownloadError(
                    f"{repository}/{file.path} arrived with another content than the hub announced (sha256 {found}, "
                    f"not {file.sha256}). It was thrown away; run the same command again."
                )
            blob.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(blob)

    def _partial(self, file: HubFile) -> Path | None:
        return self.folder / _PARTIAL / file.sha256 if file.sha256 else None

    def _repository_folder(self, repository: str) -> Path:
        return self.folder / f"models--{repository.replace('/', '--')}"


def _fits(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def fetch_small(repository: str, revision: str, file: HubFile, *, kind: RepositoryKind) -> Path:
    """See that a small file is in the cache.

    Raises:
        DownloadError: it did not arrive.
    """
    from huggingface_hub import hf_hub_download

    with _explained(f"{repository}/{file.path}"):
        return Path(hf_hub_download(repository, file.path, revision=revision, repo_type=kind, token=hub_token()))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the client's errors into ours, with what to do."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    # Which HTTP library the client is built on has changed before; its errors are OSErrors or have this base.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except GatedRepoError as error:
        token = "The token in HF_TOKEN may not have it" if hub_token() else "HF_TOKEN is not set"
        raise DownloadError(
            f"{what} is gated. {token}: accept its licence on its page at the hub, make a read token in the hub's "
            "settings, and run again with HF_TOKEN=... in the environment."
        ) from error
    except RepositoryNotFoundError as error:
        token = "or the token in HF_TOKEN may not see it" if hub_token() else "or it needs a token: set HF_TOKEN"
        raise DownloadError(f"The hub has no {what}, {token}. Check the name.") from error
    except (HFValidationError, OSError, http_error) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DownloadError(
            f"The download of {what} stopped ({reason}). What arrived is kept: run the same command again, and it goes "
            "on from there."
        ) from error

"""A file on its way: grows as NAME.part, is checked, and appears under its name all at once."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from contract.trial_result import ArtifactRef
from orchestrator.durable_file import begin_writing

_CHUNK_BYTES = 1024 * 1024


def holds(path: Path, artifact: ArtifactRef) -> bool:
    """Whether a file is there with the artifact's size and SHA-256."""
    try:
        if path.stat().st_size != artifact.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    except FileNotFoundError:
        return False


def place_together(contents: Mapping[str, bytes], artifacts: Sequence[ArtifactRef], folder: Path) -> set[str]:
    """Write files whose content is here already under their names, durably; only those that are what they must be.

    Args:
        contents: name -> bytes.
        artifacts: what is wanted.
        folder: where they go.

    Returns:
        The names that are in place.
    """
    written: dict[Path, Path] = {}
    with ExitStack() as stack:
        files = []
        for artifact in artifacts:
            content = contents.get(artifact.name)
            if content is None or len(content) != artifact.size_bytes:
                continue
            if hashlib.sha256(content).hexdigest() != artifact.sha256:
                continue
            destination = folder / artifact.name
            written[destination] = part = _part(destination)
            files.append(stack.enter_context(part.open("wb")))
            files[-1].write(content)
            files[-1].flush()
            begin_writing(files[-1].fileno())
        for file in files:
            os.fsync(file.fileno())
    for destination, part in written.items():
        part.replace(destination)
    return {destination.name for destination in written}


def _part(destination: Path) -> Path:
    return destination.with_name(destination.name + ".part")


class ArtifactFile:
    """A download that can be continued: what an earlier one left in NAME.part counts.

    Use as a context manager; without `place` the part stays, for the next try.

    Args:
        destination: where the file is to appear.
        artifact: what it must be.
    """

    def __init__(self, destination: Path, artifact: ArtifactRef) -> None:
        self._destination = destination
        self._artifact = artifact
        self._part = _part(destination)
        self._file: BinaryIO
        self._hash = hashlib.sha256()
        self.n_bytes = 0
        """Bytes that are here."""

    def __enter__(self) -> Self:
        self._file = self._part.open("a+b")
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            self._hash.update(chunk)
            self.n_bytes += len(chunk)
        if self.n_bytes > self._artifact.size_bytes:
            self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self.n_bytes == 0:
            self._part.unlink(missing_ok=True)

    @property
    def is_complete(self) -> bool:
        """Whether as many bytes are here as there should be, or more."""
        return self.n_bytes >= self._artifact.size_bytes

    def restart(self) -> None:
        """Throw away what is here."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.n_bytes = 0

    def write(self, chunk: bytes | memoryview) -> None:
        """Append."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.n_bytes += len(chunk)

    def place(self) -> bool:
        """Move the file under its name if it is what it must be; else throw it away.

        Returns:
            Whether it is in place.
        """
        if self.n_bytes != self._artifact.size_bytes or self._hash.hexdigest() != self._artifact.sha256:
            self.restart()
            return False
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._destination)
        return True

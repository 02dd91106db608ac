"""Fetches one file over HTTP and checks its SHA-256. Standard library only: runs before anything is installed.

`python -m testbed.deploy.archive_download URL FILE [--sha256 HEX]`
"""

import argparse
import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from pathlib import Path

_TIMEOUT_S = 60
_CHUNK_BYTES = 1 << 16


class ArchiveError(Exception):
    """The file could not be had, or is not the one that was meant; nothing is left of it."""


def fetch(url: str, target: Path) -> None:
    """Download a file of some megabytes; it has its name only when it is whole.

    Args:
        url: http, https or file.
        target: takes it.

    Raises:
        ArchiveError: not to be had, or cut short.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, partial.open("wb") as file:
            announced = answer.headers.get("Content-Length")
            n_bytes = 0
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                n_bytes += len(chunk)
        if announced is not None and n_bytes != int(announced):
            raise ArchiveError(f"{url} was cut after {n_bytes} of {announced} bytes. Run the same command again.")
        partial.replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ArchiveError(
            f"{url} could not be had ({reason}). Check the network, and run the same command again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def check(path: Path, sha256: str) -> None:
    """Compare a file with its hash.

    Raises:
        ArchiveError: it has another.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise ArchiveError(f"{path.name} has the wrong checksum: sha256 {found}, and {sha256.lower()} was expected.")


def main() -> int:
    """Entry of `python -m`. Exit codes: 0 fine, 1 failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--sha256")
    options = parser.parse_args()
    try:
        fetch(options.url, options.file)
        if options.sha256:
            try:
                check(options.file, options.sha256)
            except ArchiveError:
                options.file.unlink()
                raise
    except ArchiveError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

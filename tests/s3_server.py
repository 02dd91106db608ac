"""An S3 server of the tests' own on this machine: moto's, in an environment apart with other pins (`make s3`)."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.local_testbed import end_with_parent

START_S = 60.0
APART = Path(sys.prefix) / "s3" / "bin"
"""Programs of that environment, which has s3fs too."""


def why_not() -> str:
    """Why none can be started here; empty: one can."""
    return "" if (APART / "moto_server").exists() else "moto's S3 server is not installed: make s3"


@dataclass(frozen=True)
class S3Server:
    """One that runs.

    Attributes:
        url: where it is.
        bucket: there is one.
    """

    url: str
    bucket: str = "lab"

    @property
    def environment(self) -> dict[str, str]:
        """What its clients find in theirs."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server with an empty bucket that ends with the block; see `why_not`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [APART / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "PYTHONPATH": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent(),
    )
    server = S3Server(f"http://127.0.0.1:{port}")
    try:
        deadline_s = time.monotonic() + START_S
        while not _has_bucket(server):
            assert process.poll() is None and time.monotonic() < deadline_s, "it does not start"
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


def _has_bucket(server: S3Server) -> bool:
    try:
        return httpx.put(f"{server.url}/{server.bucket}", trust_env=False).is_success
    except httpx.TransportError:
        return False

"""The files of attempts in S3: written, read and verified through the product, against a real S3 server."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.artifact_store import ArtifactStore, ArtifactStoreError
from tests import s3_server
from tests.end_to_end.nodes import ROOT, running_testbed
from tests.orchestrator.test_artifact_store import attempt, tree
from tests.orchestrator.test_orchestrator_cli import command, words, write_config
from tests.s3_server import APART, S3Server, running_s3


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    pytest.importorskip("obstore")
    if reason := s3_server.why_not():
        pytest.skip(reason)
    with running_s3() as running:
        yield running


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


def test_a_campaign_whose_files_go_to_s3_and_come_back(s3: S3Server, tmp_path: Path) -> None:
    config = write_config(tmp_path, repetitions=1)
    url, results = f"s3://{s3.bucket}/joulebed", tmp_path / "results"
    with running_testbed(tmp_path / "box") as testbed:
        run = ("run", config, "--testbed", testbed.url, "--results", results, "--no-progress", "--artifacts")
        done = command(*run, url)
        assert done.returncode == 0, words(done)
        assert f"The files of 4 attempts are in {url}/e2e." in words(done)
    wanted = tree(results / "e2e" / "runs")

    back = tmp_path / "back" / "e2e"
    fetched = command("fetch", back, "--artifacts", url)
    assert fetched.returncode == 0, words(fetched)
    assert tree(back / "runs") == wanted

    # The same with fsspec's own package in place of obstore.
    theirs = tmp_path / "theirs" / "e2e"
    program = "from orchestrator.cli import main; main()"
    said = subprocess.run(
        [APART / "python", "-c", program, "fetch", theirs, "--artifacts", url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert tree(theirs / "runs") == wanted


def test_what_was_changed_in_the_store_is_not_taken(s3: S3Server, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "study"
    attempt(folder, "run_0_repetition_0")
    with pytest.raises(ArtifactStoreError, match="cannot be read"):
        ArtifactStore("s3://no-such-bucket/joulebed", "study").upload(folder)
    url = f"s3://{s3.bucket}/damaged"
    store = ArtifactStore(url, "study")
    assert store.upload(folder).failed == {}
    assert ArtifactStore(url, "study").upload(folder).n_new_files == 0
    (damaged,) = [path for path in store._files.find(store._root) if path.endswith("trace_fake.csv")]
    store._files.pipe_file(damaged, b"x" * 21)
    fetched = ArtifactStore(url, "study").fetch(tmp_path / "back" / "study")
    assert "is not what its result says" in next(iter(fetched.failed.values()))

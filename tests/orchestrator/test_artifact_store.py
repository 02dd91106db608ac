"""Copies of the attempts' files in a store: idempotent, verified, and never in the way of a run."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contract.attempt_state import RunState
from contract.errors import ConfigError, MissingPackageError
from contract.trial_result import ArtifactRef
from orchestrator.artifact_store import ArtifactStore, ArtifactStoreError, checked_url
from orchestrator.artifact_uploader import copied_to
from orchestrator.artifacts import RESULT, ArtifactFolder
from orchestrator.clients.fake_client import FakeClient
from tests.contract.examples import RESULT as EXAMPLE
from tests.end_to_end.nodes import running_testbed
from tests.orchestrator.campaigns import Campaign
from tests.orchestrator.test_orchestrator_cli import command, words, write_config

CONTENT = {"requests.jsonl": b"{}\n" * 100, "trace_fake.csv": b"time_s,power_w\n0,1\n", "empty.txt": b""}


def attempt(experiment: Path, run_id: str, number: int = 1) -> Path:
    """The files of one, as they are kept."""
    attempt_id = f"{run_id}-a{number}-0badcafe"
    folder = experiment / "runs" / run_id / attempt_id
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    refs = [
        ArtifactRef(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    ]
    changed = {"run_id": run_id, "attempt_id": attempt_id, "artifacts": refs}
    (folder / RESULT).write_text(EXAMPLE.model_copy(update=changed).model_dump_json())
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "study"
    for number in range(3):
        attempt(folder, f"run_{number}_repetition_0")
    return folder


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/archive"
        return
    fsspec = pytest.importorskip("fsspec")
    name = f"/bucket-{uuid4().hex}"
    yield f"memory:/{name}"
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


def test_what_is_copied_comes_back_as_it_was(url: str, experiment: Path, tmp_path: Path) -> None:
    first = ArtifactStore(url, "study").upload(experiment)
    assert (first.n_attempts, first.n_new_files, first.failed) == (3, 12, {})
    again = ArtifactStore(url + "/", "study").upload(experiment)
    assert (again.n_attempts, again.n_new_files) == (3, 0)
    back = tmp_path / "elsewhere" / "study"
    fetched = ArtifactStore(url, "study").fetch(back)
    assert (fetched.n_attempts, fetched.n_new_files, fetched.n_bytes) == (3, 12, first.n_bytes)
    assert tree(back) == tree(experiment)
    assert ArtifactStore(url, "study").fetch(back).n_new_files == 0


def test_only_the_runs_that_are_asked_for(url: str, experiment: Path, tmp_path: Path) -> None:
    store = ArtifactStore(url, "study")
    store.upload(experiment)
    assert store.fetch(tmp_path / "back", ["run_1_repetition_0"]).n_attempts == 1
    assert [path.name for path in (tmp_path / "back" / "runs").iterdir()] == ["run_1_repetition_0"]
    with pytest.raises(ConfigError, match="no run run_9_repetition_0"):
        store.fetch(tmp_path / "back", ["run_1_repetition_0", "run_9_repetition_0"])
    with pytest.raises(ConfigError, match=r"no attempt .*Check the URL"):
        ArtifactStore(url, "other").fetch(tmp_path / "back")


@pytest.mark.parametrize("n_before", range(4))
def test_an_upload_that_broke_off_goes_on(url: str, experiment: Path, n_before: int) -> None:
    """The files before are there, the one in hand is half there, and the result is not."""
    store = ArtifactStore(url, "study")
    folder = experiment / "runs/run_0_repetition_0/run_0_repetition_0-a1-0badcafe"
    target = f"{store._root}/runs/run_0_repetition_0/{folder.name}"
    store._files.makedirs(target, exist_ok=True)
    names = [*CONTENT, RESULT]
    for name in names[:n_before]:
        store._files.pipe_file(f"{target}/{name}", (folder / name).read_bytes())
    half = (folder / names[n_before]).read_bytes()
    store._files.pipe_file(f"{target}/{names[n_before]}", half[: len(half) // 2])
    store.upload(experiment)
    assert {name: store._files.cat_file(f"{target}/{name}") for name in names} == {
        name: (folder / name).read_bytes() for name in names
    }


def test_a_file_that_changed_here_is_not_copied_and_the_others_are(url: str, experiment: Path) -> None:
    (experiment / "runs/run_1_repetition_0/run_1_repetition_0-a1-0badcafe/requests.jsonl").write_bytes(b"other")
    done = ArtifactStore(url, "study").upload(experiment)
    assert done.n_attempts == 2
    assert "orchestrator repair" in done.failed["run_1_repetition_0-a1-0badcafe"]


def test_a_file_that_changed_there_is_not_taken(url: str, experiment: Path, tmp_path: Path) -> None:
    store = ArtifactStore(url, "study")
    store.upload(experiment)
    name = "runs/run_0_repetition_0/run_0_repetition_0-a1-0badcafe/requests.jsonl"
    store._files.pipe_file(f"{store._root}/{name}", CONTENT["requests.jsonl"][::-1])
    done = store.fetch(tmp_path / "back")
    assert "SHA-256 differ" in done.failed["run_0_repetition_0-a1-0badcafe"]
    assert not (tmp_path / "back" / name).exists()
    assert done.n_attempts == 2


class Broken:
    """A store that takes nothing, with an error of its own kind."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def put_file(self, *args: Any, **options: Any) -> None:
        raise LookupError("the bucket is on fire")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


def run(campaign: Campaign, url: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with copied_to(url, campaign.folder, told.append, is_quiet=False) as kept:
        artifacts = ArtifactFolder(campaign.folder, kept)
        monkeypatch.setattr("tests.orchestrator.campaigns.ArtifactFolder", lambda folder: artifacts)
        campaign.run(FakeClient())


def test_a_campaign_copies_while_it_goes_on(
    url: str, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    run(campaign, url, told, monkeypatch)
    assert campaign.states() == [RunState.DONE] * 3
    assert told == [f"The files of 3 attempts are in {url}/{campaign.folder.name}."]
    store = ArtifactStore(url, campaign.folder.name)
    store.fetch(tmp_path / "back")
    assert tree(tmp_path / "back" / "runs") == tree(campaign.folder / "runs")


def test_a_store_that_fails_costs_no_run_and_the_next_start_copies(
    url: str, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    import orchestrator.artifact_store as module

    opened = module._opened
    with monkeypatch.context() as broken:
        broken.setattr(module, "_opened", lambda url: (Broken(opened(url)[0]), opened(url)[1]))
        run(campaign, url, told, broken)
    assert campaign.states() == [RunState.DONE] * 3
    assert "on fire" in told[0]
    assert "The campaign goes on." in told[0]
    assert "3 attempts are not in" in told[1]
    assert "the same command copies them" in told[1]
    with copied_to(url, campaign.folder, told.append, is_quiet=True):
        pass  # as a start with nothing left to run
    assert told[2:] == [f"The files of 3 attempts are in {url}/{campaign.folder.name}."]


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2-hunter2@bucket/x",
        "s3://hunter2-hunter2@bucket",
        "s3://bucket/x?secret=hunter2-hunter2",
        "s3://bucket/x#hunter2-hunter2",
        "s3://key:hunter2/hunter2@bucket/x",
        "s3://key:22/hunter2@bucket/x",
        "s3://key:hunter2-hunter2",
        "s3://[hunter2-hunter2",
        "zip://a.zip::s3://key:hunter2-hunter2@bucket",
        "abfss://runs:hunter2-hunter2@lab.dfs.core.windows.net/x",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="holds no user, password or options") as caught:
        checked_url(url)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::s3://key:hunter2-hunter2@bucket/x",
        "s3:/key:hunter2-hunter2@bucket",
        "key:hunter2-hunter2@bucket://x",
        "hunter2-hunter2",
    ],
)
def test_what_is_no_url_of_one_store_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL of a store") as caught:
        checked_url(url)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "hf://datasets/lab/results@main",
        "s3://bucket/me@lab",
        "file:///mnt/me@lab/x",
        "abfss://runs@lab.dfs.core.windows.net/x",
        "sftp://[2001:db8::1]/x",
    ],
)
def test_what_holds_no_secret_is_taken(url: str) -> None:
    assert checked_url(url) == url


def test_nothing_is_run_with_a_secret_in_a_url(tmp_path: Path) -> None:
    url, config = "s3://key:hunter2-hunter2@bucket/x", write_config(tmp_path)
    done = command("run", config, "--local", "--artifacts", url, "--results", tmp_path / "results")
    assert done.returncode == 2
    assert "hunter2" not in words(done)
    assert not (tmp_path / "results").exists()


def test_what_is_no_store(experiment: Path) -> None:
    with pytest.raises(ConfigError, match="no URL of a store"):
        ArtifactStore("bucket/x", "study")
    with pytest.raises(ConfigError, match=r"knows no store nowhere://"):
        ArtifactStore("nowhere://bucket/x", "study")


def test_a_missing_package_is_named() -> None:
    # abfs needs adlfs, which nothing here brings along.
    with pytest.raises(MissingPackageError, match="adlfs"):
        ArtifactStore("abfs://container/x", "study")


def test_the_command_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, repetitions=1)
    url, results = f"file://{tmp_path}/archive", tmp_path / "results"
    with running_testbed(tmp_path / "box") as testbed:
        run = ("run", config, "--testbed", testbed.url, "--results", results, "--artifacts", url, "--no-progress")
        done = command(*run)
    assert done.returncode == 0, words(done)
    assert f"The files of 4 attempts are in {url}/e2e." in words(done)
    back = tmp_path / "back" / "e2e"
    assert command("fetch", back, "--artifacts", url).returncode == 0
    assert tree(back / "runs") == tree(results / "e2e" / "runs")
    wrong = command("fetch", back, "--artifacts", url, "--run", "run_77_repetition_0")
    assert wrong.returncode == 2
    assert "no run run_77_repetition_0" in words(wrong)


def test_an_unreachable_store_is_told_in_words(experiment: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(url, "study")
    monkeypatch.setattr(store, "_files", Broken(store._files))
    monkeypatch.setattr(store._files, "find", store._files.put_file, raising=False)
    with pytest.raises(ArtifactStoreError, match=r"cannot be read \(LookupError: the bucket is on fire\)"):
        store.upload(experiment)

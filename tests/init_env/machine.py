"""A machine for init_env.sh: an empty home, probe outputs, and stand-ins for the commands that change a system."""

import io
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.init_env.stand_in_hub import TOKEN, Hub

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "init_env.sh"
ENERGIBRIDGE = ROOT / "tests/stand_ins/energibridge"

NVIDIA_SMI = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver}              Driver Version: {driver}      CUDA Version: {cuda}     |
|-----------------------------------------+------------------------+----------------------+
"""

# Each writes what it was asked to do; `sudo` does it, `systemctl` starts and ends what the unit names.
_LOGGED = ("modprobe", "groupadd", "usermod", "setcap", "gpasswd", "groupdel", "journalctl")
_LOG = '#!/bin/sh\necho "$(basename "$0") $*" >>"$STAND_IN_LOG"\n'
_SUDO = '#!/bin/sh\necho "sudo $*" >>"$STAND_IN_LOG"\n[ "$1" = -v ] && exit 0\nexec "$@"\n'
_SYSTEMCTL = (
    _LOG
    + """
pid="$STAND_IN_ROOT/systemctl.pid"
unit="$STAND_IN_ROOT/etc/systemd/system/joulebed-testbed.service"
stop() {
  [ -f "$pid" ] && kill "$(cat "$pid")"
  rm -f "$pid"
}
case "$1" in
  restart)
    stop
    $(sed -n 's/^ExecStart=//p' "$unit") >>"$STAND_IN_ROOT/journal" 2>&1 9>&- </dev/null &
    echo $! >"$pid"
    ;;
  disable) stop ;;
esac
"""
)


def archive(content: bytes | None = None, *, name: str = "energibridge") -> bytes:
    """A release archive with one program in it; by default the stand-in for EnergiBridge."""
    content = ENERGIBRIDGE.read_bytes() if content is None else content
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o755
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Machine:
    """Folders of one, and how to run the script on it.

    Attributes:
        folder: holds them all.
        hub: where downloads come from.
        port: of the service.
        source: the clone that the script lies in.
    """

    folder: Path
    hub: Hub
    port: int
    source: Path = ROOT

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def prefix(self) -> Path:
        return self.home / ".local/share/joulebed"

    @property
    def system(self) -> Path:
        return self.folder / "system"

    @property
    def log(self) -> str:
        path = self.folder / "commands.log"
        return path.read_text() if path.exists() else ""

    def probe(self, path: str, content: str) -> None:
        """Give the script a file of the hardware, or (commands/NAME) a command's output."""
        target = self.folder / "probe" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def command(self, name: str, content: str) -> None:
        """Put a stand-in before the system's own."""
        path = self.folder / "bin" / name
        path.write_text(content)
        path.chmod(0o755)

    def environment(self, **changes: str | None) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "JOULEBED_"))}
        env |= {"HOME": str(self.home), "PATH": f"{self.folder / 'bin'}:{env['PATH']}", "COLUMNS": "200"}
        env |= {
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": TOKEN,
            "ENERGIBRIDGE_URL": f"{self.hub.url}/energibridge.tar.gz",
        }
        env |= {"STAND_IN_LOG": str(self.folder / "commands.log"), "STAND_IN_ROOT": str(self.system)}
        env.pop("SUDO_USER", None)
        for key, value in changes.items():
            env.pop(key, None)
            env |= {key: value} if value is not None else {}
        return env

    def run(self, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`./init_env.sh` with the probes, this process's Python and a free port."""
        command = [
            str(self.source / "init_env.sh"),
            "--probe-dir",
            str(self.folder / "probe"),
            "--system-root",
            str(self.system),
        ]
        command += ["--python", sys.executable, "--port", str(self.port), *options]
        return subprocess.run(
            command,
            env=env or self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def make_machine(folder: Path, hub: Hub) -> Machine:
    """A Debian machine without a GPU, with systemd, and nothing on it."""
    machine = Machine(folder, hub, free_port())
    for path in (machine.home, machine.system, folder / "bin", folder / "probe"):
        path.mkdir(parents=True)
    for name in _LOGGED:
        machine.command(name, _LOG)
    machine.command("sudo", _SUDO)
    machine.command("systemctl", _SYSTEMCTL)
    machine.probe("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
    machine.probe("commands/uname", "x86_64\n")
    machine.probe("run/systemd/system/.keep", "")
    return machine


def copy_source(folder: Path) -> Path:
    """A clone of its own: whoever edits the real one meanwhile does not make a second run install it anew."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    for name in (each.rstrip("*") for each in packages):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("init_env.sh", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def make_cuda(machine: Machine, *, driver: str = "580.95.05", cuda: str = "13.0") -> None:
    """Ubuntu with an NVIDIA card and its driver."""
    machine.probe("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\nID_LIKE=debian\n')
    make_card(machine)
    machine.probe("commands/nvidia-smi", NVIDIA_SMI.format(driver=driver, cuda=cuda))


def make_card(machine: Machine) -> None:
    """An NVIDIA card in a slot."""
    machine.probe("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    machine.probe("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")


def make_jetson(machine: Machine) -> None:
    """As its boards describe themselves."""
    machine.probe("etc/os-release", 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nID=ubuntu\nID_LIKE=debian\n')
    machine.probe("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    machine.probe("commands/uname", "aarch64\n")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)

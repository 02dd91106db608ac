"""Orchestrator and testbed as two machines: in two network namespaces where the system allows it, else on two
loopback addresses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from tests.end_to_end.nodes import (
    ROOT,
    TOKEN,
    environment,
    run_states,
    running_testbed,
    start_orchestrator,
    write_config,
)

FOREIGN = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({body}).encode()
        self.send_response({status})
        self.send_header("{header}", "{version}")
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)
    do_PUT = do_POST = do_GET
    def log_message(self, *_): pass

HTTPServer(("{host}", 18765), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Machines:
    """How to run a command on each, and the testbed's address."""

    vps: tuple[str, ...]
    box: tuple[str, ...]
    box_host: str


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    vps, box = f"jb-vps-{os.getpid()}", f"jb-box-{os.getpid()}"
    if shutil.which("ip") is None or not _ip("netns", "add", vps):
        yield Machines((), (), "127.0.0.2")
        return
    try:
        assert _ip("netns", "add", box)
        assert _ip("link", "add", "jbv", "netns", vps, "type", "veth", "peer", "name", "jbb", "netns", box)
        for namespace, device, address in ((vps, "jbv", "10.97.0.1/24"), (box, "jbb", "10.97.0.2/24")):
            assert _ip("-n", namespace, "addr", "add", address, "dev", device)
            assert _ip("-n", namespace, "link", "set", device, "up")
            assert _ip("-n", namespace, "link", "set", "lo", "up")
        yield Machines(("ip", "netns", "exec", vps), ("ip", "netns", "exec", box), "10.97.0.2")
    finally:
        _ip("netns", "del", vps)
        _ip("netns", "del", box)


def _orchestrate(machines: Machines, folder: Path, url: str, **options: str) -> tuple[int, str]:
    results = folder / "results"
    process = start_orchestrator(
        write_config(folder, repetitions=1, tokens_per_s=0), url, results, prefix=machines.vps, **options
    )
    code = process.wait(timeout=120)
    return code, " ".join((results / "orchestrator.log").read_text().split())


def test_a_campaign_over_the_network(machines: Machines, tmp_path: Path) -> None:
    with running_testbed(tmp_path / "box", host=machines.box_host, prefix=machines.box) as testbed:
        code, output = _orchestrate(machines, tmp_path, testbed.url)
        assert code == 0, output
    assert list(run_states(tmp_path / "results" / "e2e" / "run_table.sqlite").values()) == ["DONE"] * 4


def test_the_page_word_for_word(machines: Machines, tmp_path: Path) -> None:
    """The commands of docs/two-machines.md, from the tunnel on; tests/init_env has those that install.

    The clone's quickstart is made shorter, and ssh is a stand-in that carries bytes from one namespace to the other.
    """
    if not machines.box:
        pytest.skip("both ends of the tunnel are 127.0.0.1:8765: it takes two network namespaces, so root and iproute2")
    page = (ROOT / "docs/two-machines.md").read_text().partition("## On the orchestrator")[2]
    _, commands = re.findall(r"```sh\n(.*?)```", page.partition("\n## ")[0], re.DOTALL)
    clone, home, box_home = tmp_path / "joulebed", tmp_path / "home", tmp_path / "box_home"
    for folder in (clone / "runnerconfig", home, box_home / ".local/share/joulebed", tmp_path / "bin"):
        folder.mkdir(parents=True)
    (clone / ".venv").symlink_to(Path(sys.executable).parents[1])
    config = (ROOT / "runnerconfig/quickstart.py").read_text()
    shorter = config.replace("repetitions=3", "repetitions=1").replace('"n_items": 12', '"n_items": 2')
    (clone / "runnerconfig/quickstart.py").write_text(shorter)
    (tmp_path / "bin/ssh").symlink_to(ROOT / "tests/stand_ins/ssh")
    token = box_home / ".local/share/joulebed/token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    env = environment(STAND_IN_SSH=" ".join(machines.box), STAND_IN_HOME=str(box_home), HOME=str(home))
    env |= {"PATH": f"{tmp_path / 'bin'}:{env['PATH']}"}
    del env["JOULEBED_TOKEN"]
    with running_testbed(tmp_path / "box", "--port", "8765", "--token-file", str(token), prefix=machines.box):
        script = commands.replace("USER@TESTBED", "ann@testbed")
        # The tunnel stays open in the background, as ssh's does: it ends with the processes of its namespace.
        done = subprocess.run(
            [*machines.vps, "bash", "-ec", script], env=env, cwd=clone, capture_output=True, text=True, timeout=300
        )
        for pid in _pids_in(machines.vps):
            os.kill(pid, signal.SIGKILL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 runs: 4 done" in done.stdout
    states = run_states(clone / "results/quickstart/run_table.sqlite")
    assert list(states.values()) == ["DONE"] * 4


def _pids_in(namespace: tuple[str, ...]) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", namespace[-1]], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid in found.split()]


def test_wrong_token(machines: Machines, tmp_path: Path) -> None:
    with running_testbed(tmp_path / "box", host=machines.box_host, prefix=machines.box) as testbed:
        code, output = _orchestrate(machines, tmp_path, testbed.url, token="not-the-token")
    assert code == 2
    assert "token" in output and "JOULEBED_TOKEN" in output
    assert "Traceback" not in output and "not-the-token" not in output
    assert not (tmp_path / "results" / "e2e").exists()


def test_testbed_is_down(machines: Machines, tmp_path: Path) -> None:
    code, output = _orchestrate(machines, tmp_path, f"http://{machines.box_host}:9")
    assert code == 2
    assert f"{machines.box_host}:9" in output and "testbed serve" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results" / "e2e").exists()


@pytest.mark.parametrize(
    ("status", "version", "body", "expected"),
    [
        (
            426,
            PROTOCOL_VERSION + 1,
            {
                "code": "protocol_mismatch",
                "message": f"I speak {PROTOCOL_VERSION + 1}.",
                "detail": {},
                "retryable": False,
            },
            ["protocol"],
        ),
        (
            200,
            PROTOCOL_VERSION + 1,
            {"protocol_version": PROTOCOL_VERSION + 1},
            ["protocol", str(PROTOCOL_VERSION + 1)],
        ),
        (200, "", {"hello": "I am a printer"}, ["not a JouleBed testbed"]),
    ],
)
def test_something_else_answers(
    machines: Machines, tmp_path: Path, status: int, version: object, body: dict[str, object], expected: list[str]
) -> None:
    script = FOREIGN.format(
        body=json.dumps(body).replace("false", "False").replace("true", "True"),
        status=status,
        header=PROTOCOL_HEADER,
        version=version,
        host=machines.box_host,
    )
    server = subprocess.Popen([*machines.box, sys.executable, "-c", script], env=environment(), cwd=ROOT)
    try:
        _wait_for_port(machines)
        code, output = _orchestrate(machines, tmp_path, f"http://{machines.box_host}:18765")
    finally:
        server.kill()
        server.wait()
    assert code == 2, output
    for words in expected:
        assert words.lower() in output.lower()
    assert "Traceback" not in output
    assert not (tmp_path / "results" / "e2e").exists()


def _wait_for_port(machines: Machines) -> None:
    probe = (
        "import socket, time\n"
        "for _ in range(100):\n"
        "    try:\n"
        f"        socket.create_connection(('{machines.box_host}', 18765), 1).close(); break\n"
        "    except OSError:\n"
        "        time.sleep(0.05)\n"
        "else:\n"
        "    raise SystemExit(1)\n"
    )
    subprocess.run([*machines.vps, sys.executable, "-c", probe], check=True)

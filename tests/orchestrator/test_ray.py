"""Campaigns on a real Ray cluster of this machine: with its actors killed, and what is said where there is none."""

import csv
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from contract.errors import ConfigError, ProtocolMismatchError, TestbedUnreachableError
from contract.trial_spec import ModelSpec
from contract.units import PROTOCOL_VERSION
from orchestrator.clients.ray_client import RayClient
from orchestrator.clients.ray_testbeds import RESOURCE, ActorPlace, RayTestbeds, places
from orchestrator.store.schema import RUN_TABLE
from testbed import ray_actor
from testbed.model_policy import DEFAULT
from tests import ray_cluster
from tests.contract.examples import SPEC
from tests.end_to_end.nodes import ROOT, environment
from tests.orchestrator.test_orchestrator_cli import command, words, write_config
from tests.ray_cluster import RayCluster, wait_for
from tests.ray_machines import running_machines

LOG_LINE = re.compile(r"^[0-9T:.-]+Z INFO testbed\.node \[run_\S+ run_\S+-a1-\w+\]: Attempt started", re.MULTILINE)


def rows(results: Path, name: str) -> list[dict[str, str]]:
    with (results / name / "run_table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def planned(table: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """What is the same whoever ran it, and when."""
    names = ("__run_id", "__done", "words", "concurrency", "n_output_tokens")
    assert set(names) <= set(table[0])
    return [tuple(row[name] for name in names) for row in table]


def at_work(run_table: Path) -> set[str]:
    """Attempts that the run table has in their middle; one that is over stands there until its end is written."""
    with closing(sqlite3.connect(run_table, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'attempt'").fetchone():
            return set()
        found = connection.execute("SELECT attempt_id FROM attempt WHERE state IN ('LOADING', 'WARMUP', 'MEASURING')")
        return {row[0] for row in found}


def names_of_testbeds(run_table: Path) -> set[str]:
    with closing(sqlite3.connect(run_table)) as connection:
        return {row[0] for row in connection.execute("SELECT testbed FROM attempt WHERE accepted")}


def test_a_campaign_whose_testbeds_are_killed_in_the_middle_of_trials(cluster: RayCluster, tmp_path: Path) -> None:
    quiet = write_config(tmp_path, name="quiet", repetitions=1, tokens_per_s=100.0)
    done = command("run", quiet, "--ray", cluster.address, "--results", tmp_path, "--no-progress", timeout=300)
    assert done.returncode == 0, words(done)
    assert len(names_of_testbeds(tmp_path / "quiet" / RUN_TABLE)) == 2  # both took part
    assert "has several testbeds" in words(done)
    wait_for(lambda: not cluster.actors())  # what they held is free

    killed = write_config(tmp_path, name="killed", repetitions=1, tokens_per_s=20.0)
    program = [sys.executable, "-m", "orchestrator", "run", str(killed), "--ray", cluster.address]
    process = subprocess.Popen(
        [*program, "--results", str(tmp_path), "--no-progress"],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for((tmp_path / "killed" / RUN_TABLE).exists)
        wait_for(lambda: len(at_work(tmp_path / "killed" / RUN_TABLE)) == 2)
        victims = cluster.actors()
        assert len(victims) == 2
        logs = [Path(f"/proc/{each.pid}/fd/2").readlink() for each in victims]
        for each in victims:
            each.kill()
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
    finally:
        process.kill()
    for log in logs:
        assert LOG_LINE.search(log.read_text()), log.read_text()
        assert os.environ["RAY_AUTH_TOKEN"] not in log.read_text()
    assert {each.pid for each in victims}.isdisjoint(each.pid for each in cluster.actors())
    assert planned(rows(tmp_path, "killed")) == planned(rows(tmp_path, "quiet"))


def test_a_testbed_of_a_cluster_has_an_allow_list(cluster: RayCluster) -> None:
    forbidden = SPEC.model_copy(update={"model": ModelSpec(name="m", source="path:/etc/passwd")})
    with RayTestbeds(cluster.address, meter="fake") as testbeds:
        (problem,) = testbeds.clients[0].check([forbidden])
    assert problem.error.code == "model_not_allowed"
    assert "JOULEBED_RAY_ALLOW_MODEL='path:/etc'" in problem.error.message
    wait_for(lambda: not cluster.actors())


def test_the_machine_says_what_its_testbeds_may_load() -> None:
    def allowed(given: list[str] | None, environment: dict[str, str]) -> tuple[str, ...]:
        return tuple(ray_actor.model_policy(given, environment).patterns)

    assert allowed(None, {}) == DEFAULT
    assert allowed(None, {"JOULEBED_RAY_ALLOW_MODEL": " "}) == DEFAULT
    assert allowed(None, {"JOULEBED_RAY_ALLOW_MODEL": "hf:lab/* 'path:/my models'"}) == ("hf:lab/*", "path:/my models")
    assert allowed(None, {"JOULEBED_RAY_ALLOW_MODEL": "hf:lab/* path:/bob's"}) == ("hf:lab/*", "path:/bob's")
    assert allowed(["*"], {"JOULEBED_RAY_ALLOW_MODEL": "hf:lab/*"}) == ("*",)


def test_a_machine_is_lost_in_the_middle_of_a_trial(tmp_path: Path) -> None:
    if reason := ray_cluster.why_not():
        pytest.skip(reason)
    config = write_config(tmp_path, name="lost", repetitions=1, tokens_per_s=10.0)
    table = tmp_path / "lost" / RUN_TABLE
    with running_machines(tmp_path) as machines:
        program = [sys.executable, "-m", "orchestrator", "run", str(config), "--ray", machines.address]
        process = subprocess.Popen(
            [*program, "--results", str(tmp_path), "--no-progress"],
            env=environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(table.exists)
            machines.add()  # a spare one
            before = at_work(table)
            wait_for(lambda: at_work(table) - before)  # one that has only begun
            machines.remove()
            said = process.communicate(timeout=300)[0]
            assert process.returncode == 0, said
        finally:
            process.kill()
    with closing(sqlite3.connect(table)) as connection:
        ends = Counter(row[0] for row in connection.execute("SELECT state FROM attempt"))
    assert ends == {"SUCCEEDED": 4, "LOST": 1}
    for name in ("machine-0", "machine-1"):
        assert any((tmp_path / name).iterdir()), "each of them was at work"


def test_what_is_said_where_there_is_no_cluster(tmp_path: Path) -> None:
    config = write_config(tmp_path, name="nowhere")
    for address, said in (("local:x", "not the address of a Ray cluster"), ("127.0.0.1:1", "No Ray cluster answers")):
        done = command("run", config, "--ray", address, "--results", tmp_path / "results")
        assert done.returncode in (1, 2), words(done)
        assert said in words(done)
        assert "Traceback" not in words(done)
        assert not (tmp_path / "results").exists()
    both = command("run", config, "--ray", "local", "--local")
    assert both.returncode == 2
    assert "either" in words(both)


def node(host: str, node_id: str, alive: bool = True, **resources: float) -> dict[str, object]:
    return {"NodeManagerHostname": host, "NodeID": node_id, "Alive": alive, "Resources": resources}


def test_one_place_per_unit_on_machines_that_are_there() -> None:
    found = places(
        [
            node("gpu-2", "b", **{RESOURCE: 2.0, "CPU": 32.0, "GPU": 2.0}),
            node("gpu-1", "a", **{RESOURCE: 1.0, "CPU": 8.0}),
            node("head", "c", CPU=4.0),
            node("gpu-3", "d", alive=False, **{RESOURCE: 1.0}),
            # A second Ray on the same machine.
            node("gpu-1", "e", **{RESOURCE: 1.0, "CPU": 8.0, "GPU": 0.5}),
        ]
    )
    assert found == [
        ActorPlace("gpu-1", "testbed-gpu-1-0", "a", 8.0, 0.0),
        ActorPlace("gpu-1", "testbed-gpu-1-1", "e", 8.0, 0.0),
        ActorPlace("gpu-2", "testbed-gpu-2-0", "b", 16.0, 1.0),
        ActorPlace("gpu-2", "testbed-gpu-2-1", "b", 16.0, 1.0),
    ]
    assert RESOURCE == ray_actor.RESOURCE


def test_where_a_testbed_keeps_its_attempts() -> None:
    def folder(root: str | None, environment: dict[str, str]) -> Path:
        return ray_actor.data_folder("testbed-box-0", root, environment)

    assert folder("/given", {"JOULEBED_RAY_DATA": "/set"}) == Path("/given/testbed-box-0")
    assert folder(None, {"JOULEBED_RAY_DATA": "/set"}) == Path("/set/testbed-box-0")
    assert folder(None, {}) == Path.home() / ".joulebed/ray/testbed-box-0"


def test_other_hardware_and_other_versions_are_refused() -> None:
    client = RayClient("testbed-box-0", reach=lambda: None)
    answer = {
        "protocol_version": PROTOCOL_VERSION,
        "hostname": "a",
        "hardware_sha256": "x",
        "error": None,
        "body": b"{}",
    }
    assert client._body(answer) == b"{}"  # type: ignore[arg-type]
    with pytest.raises(TestbedUnreachableError, match="whose hardware is not that of the machine"):
        client._body({**answer, "hostname": "b", "hardware_sha256": "y"})  # type: ignore[typeddict-item]
    with pytest.raises(ProtocolMismatchError, match="protocol version 999"):
        client._body({**answer, "protocol_version": 999})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("address", ["local:0", "local:65", "local:two"])
def test_a_local_cluster_of_an_impossible_size(address: str) -> None:
    with pytest.raises(ConfigError, match="local:2 for two testbeds"), RayTestbeds(address):
        pass

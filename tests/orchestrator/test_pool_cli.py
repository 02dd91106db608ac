"""Pools and database servers as a person uses them: what is refused before any trial, and what comes out."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from orchestrator.clients.fake_client import FakeClient
from orchestrator.store.sql_store import SqlStore
from tests.end_to_end.nodes import ROOT, Testbed, environment, run_states, running_testbed, write_config
from tests.postgresql_server import PostgresqlServer


@pytest.fixture(scope="module")
def testbeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, Testbed]]:
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    with running_testbed(folders[0]) as one, running_testbed(folders[1]) as two:
        yield one, two


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def command(*arguments: str | Path) -> tuple[int, str]:
    process = start(*arguments)
    told, _ = process.communicate(timeout=180)
    return process.returncode, " ".join(told.split())


def small(folder: Path, repetitions: int = 2) -> Path:
    return write_config(folder, repetitions=repetitions, lifetime="block", tokens_per_s=0)


@contextmanager
def stranger(version: int = PROTOCOL_VERSION, hardware: str = "a" * 64) -> Iterator[str]:
    """URL of something that describes itself as a testbed."""
    info = FakeClient().node()
    identity = info.identity.model_copy(update={"hardware_sha256": hardware})
    document = info.model_copy(update={"protocol_version": version, "identity": identity}).model_dump_json()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(document)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer('{"problems": []}')

        def _answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header(PROTOCOL_HEADER, str(version))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_two_testbeds_share_a_campaign(tmp_path: Path, testbeds: tuple[Testbed, Testbed]) -> None:
    config, results = small(tmp_path, 4), tmp_path / "results"
    pool = tmp_path / "pool.toml"
    pool.write_text("".join(f'[[testbed]]\nurl = "{each.url}"\nname = "box-{i}"\n' for i, each in enumerate(testbeds)))
    code, told = command("run", config, "--pool", pool, "--results", results, "--no-progress")
    assert (code, "16 runs: 16 done" in told) == (0, True), told
    with closing(SqlStore.open(results / "e2e" / "run_table.sqlite", create=False)) as store:
        names = {attempt.testbed for row in store.runs() for attempt in row.attempts}
    assert names == {"box-0", "box-1"}
    code, told = command("run", config, "--pool", pool, "--results", results, "--no-progress")
    assert "nothing was run" in told
    code, told = command("doctor", "--pool", pool, "--testbed", "http://127.0.0.1:9")
    assert (code, "testbed box-1" in told, "testbed 127.0.0.1:9 reachable no" in told) == (1, True, True), told
    code, told = command("status", results / "e2e", "--json")
    assert code == 0
    assert {each["testbed"] for each in json.loads(told)["testbeds"]} == {"box-0", "box-1"}


def test_bad_pools_are_refused_and_nothing_is_written(tmp_path: Path, testbeds: tuple[Testbed, Testbed]) -> None:
    config, results, pool = small(tmp_path), tmp_path / "results", tmp_path / "pool.toml"
    first = ("run", config, "--results", results, "--testbed", testbeds[0].url)
    pool.write_text('[[testbed]]\nurl = "http://127.0.0.1:9"\nnmae = "x"\n')
    refused = [(("--pool", pool), ["line 3", "nmae"]), (("--testbed", testbeds[0].url), ["Two testbeds", "url"])]
    with stranger() as unlike, stranger(version=99) as newer:
        refused.append((("--testbed", unlike), ["2 kinds of hardware", "Factor('hardware'"]))
        refused.append((("--testbed", newer), ["99", newer]))
        for more, expected in refused:
            code, told = command(*first, *more)
            assert code == 2, told
            for word in expected:
                assert word in told
            assert "Traceback" not in told
    assert not results.exists()


def test_a_changed_plan_and_a_newer_schema_are_refused(tmp_path: Path, testbeds: tuple[Testbed, Testbed]) -> None:
    results, urls = tmp_path / "results", [part for each in testbeds for part in ("--testbed", each.url)]
    assert command("run", small(tmp_path, 1), *urls, "--results", results)[0] == 0
    code, told = command("run", small(tmp_path, 3), *urls, "--results", results)
    assert (code, "another plan" in told) == (2, True), told
    database = results / "e2e" / "run_table.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    code, told = command("run", small(tmp_path, 1), *urls, "--results", results)
    assert (code, "newer JouleBed" in told, "Upgrade" in told) == (2, True, True), told


def test_addresses_of_databases_that_are_refused(tmp_path: Path, testbeds: tuple[Testbed, Testbed]) -> None:
    run = ("run", small(tmp_path), "--testbed", testbeds[0].url, "--results", tmp_path / "results", "--database")
    for address, expected in (
        ("postgresql+psycopg://me:secret-word@host/name", "PGPASSWORD"),
        ("sqlite:///here.sqlite", "PostgreSQL"),
        ("run_table.sqlite", "PostgreSQL"),
        ("postgresql+psycopg://me@127.0.0.1:9/name", "does not answer"),
    ):
        code, told = command(*run, address)
        assert (code, expected in told, "secret-word" in told, "Traceback" in told) == (2, True, False, False), told


def test_two_orchestrators_serve_one_experiment(
    tmp_path: Path, testbeds: tuple[Testbed, Testbed], postgresql: PostgresqlServer
) -> None:
    config = small(tmp_path, 6)
    with postgresql.database() as url:
        processes = [
            start("run", config, "--testbed", each.url, "--results", tmp_path / f"results-{i}", "--database", url)
            for i, each in enumerate(testbeds)
        ]
        told = [process.communicate(timeout=180)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], told
        with closing(SqlStore.open(url, create=False)) as store:
            owners = {attempt.owner for row in store.runs() for attempt in row.attempts}
            accepted = [attempt for row in store.runs() for attempt in row.attempts if attempt.accepted]
        assert (len(accepted), len(owners)) == (24, 2)
        # Every other command finds it by the experiment's folder.
        code, status = command("status", tmp_path / "results-0" / "e2e")
        assert (code, "24 runs: 24 done" in status) == (0, True), status
        assert command("export", tmp_path / "results-1" / "e2e")[0] == 0


def test_a_pool_is_killed_and_continued(tmp_path: Path, testbeds: tuple[Testbed, Testbed]) -> None:
    config, results = small(tmp_path, 10), tmp_path / "results"
    arguments = ("run", config, *(part for each in testbeds for part in ("--testbed", each.url)), "--results", results)
    process = start(*arguments, "--no-progress")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[5/"):
            break
    process.kill()
    process.wait()
    process.stdout.close()
    assert command(*arguments)[0] == 0
    assert set(run_states(results / "e2e" / "run_table.sqlite").values()) == {"DONE"}

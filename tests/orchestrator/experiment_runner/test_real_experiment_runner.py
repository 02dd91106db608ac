"""The real Experiment Runner, where there is a checkout of it: delegated runs, restarts of exports, its own rows.

JOULEBED_EXPERIMENT_RUNNER names the checkout (the folder with `experiment-runner/` inside), and
JOULEBED_EXPERIMENT_RUNNER_PYTHON the Python that has its requirements and joulebed[orchestrator].
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.experiment_runner.run_table_file import RUN_TABLE
from tests.end_to_end.nodes import ROOT, Testbed, environment, running_testbed
from tests.orchestrator.experiment_runner.studies import (
    LLAMA,
    LLAMA_TEMPLATE,
    ONE_FACTOR,
    read_as_experiment_runner,
    write_study,
)

CHECKOUT = os.environ.get("JOULEBED_EXPERIMENT_RUNNER", "")
PYTHON = os.environ.get("JOULEBED_EXPERIMENT_RUNNER_PYTHON", sys.executable)

pytestmark = pytest.mark.skipif(
    not CHECKOUT, reason="JOULEBED_EXPERIMENT_RUNNER names no checkout of Experiment Runner"
)

TEMPLATE = """
[experiment]
seed = 7
cooldown = { floor_s = 0, max_wait_s = 0 }
[lookup.words]
key = "{task}"
BoolQ = 12
RTE = 8
[trial.model]
name = "fake"
source = "fake:small"
[trial.engine]
name = "fake"
max_concurrency = 4
[trial.workload]
name = "fake"
options = { n_items = 4, prompt_words = "{words}" }
[trial.meter]
name = "fake"
period_s = 1.0
[data_columns]
energy = "energy_j"
"""


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with running_testbed(tmp_path_factory.mktemp("box")) as testbed:
        yield testbed


def experiment_runner(config: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, str(Path(CHECKOUT) / "experiment-runner"), str(config)],
        env=environment(**extra),
        stdin=subprocess.DEVNULL,  # a question is an error
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def orchestrator(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_real_one_delegates_every_run_to_a_testbed(testbed: Testbed, tmp_path: Path) -> None:
    template = tmp_path / "template.toml"
    template.write_text(TEMPLATE)
    done = experiment_runner(
        ROOT / "runnerconfig" / "RunnerConfig.py",
        JOULEBED_TESTBED=testbed.url,
        JOULEBED_TEMPLATE=str(template),
        JOULEBED_RESULTS=str(tmp_path / "experiments"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_as_experiment_runner(tmp_path / "experiments" / "delegated" / RUN_TABLE)
    assert {row["__done"] for row in rows} == {"DONE"}
    assert all(float(row["energy"]) > 0 for row in rows)
    for row in rows:
        result = tmp_path / "experiments" / "delegated" / row["__run_id"] / "result.json"
        assert json.loads(result.read_text())["run_id"] == row["__run_id"]


@pytest.mark.parametrize("is_shuffled", [True, False])
def test_the_real_one_restarts_our_export_without_a_question(
    testbed: Testbed, tmp_path: Path, is_shuffled: bool
) -> None:
    """Half of a study done there, continued here up to one row, exported, and ended by the real one."""
    model = ONE_FACTOR.replace("repetitions=2", f"repetitions=2, shuffle={is_shuffled}")
    data = '{"energy": 1.5} if context.run_nr > 2 else 1 / 0'
    config, spec = write_study(tmp_path, model, template=TEMPLATE, hook="pass", data=data)
    assert experiment_runner(config).returncode == 0
    theirs = tmp_path / "experiments" / "study"
    begun = (theirs / RUN_TABLE).read_bytes()
    marks = [row["__done"] for row in read_as_experiment_runner(theirs / RUN_TABLE)]
    assert marks == ["TODO", "TODO", "DONE", "DONE"]
    results = tmp_path / "results"
    ran = orchestrator(
        "run",
        "--experiment-runner-config",
        config,
        "--spec",
        spec,
        "--continue-from",
        theirs,
        "--testbed",
        testbed.url,
        "--results",
        results,
        "--no-progress",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    exported = orchestrator("export", results / "study", "--format", "experiment-runner", "--output", theirs)
    assert exported.returncode == 0, exported.stderr
    rows = read_as_experiment_runner(theirs / RUN_TABLE)
    assert {row["__done"] for row in rows} == {"DONE"}
    assert [row["energy"] for row in rows if row["energy"] == "1.5"] == ["1.5"] * 2
    # One row back to TODO, as if it had been refused: the real one goes on with that row, and asks nothing.
    lines = (theirs / RUN_TABLE).read_bytes().decode().split("\r\n")
    lines[4] = begun.decode().split("\r\n")[4].replace("DONE", "TODO").replace("1.5", " ")
    (theirs / RUN_TABLE).write_bytes("\r\n".join(lines).encode())
    restarted = experiment_runner(config)
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    assert "md5sum mismatch" not in restarted.stdout
    assert restarted.stdout.count("NEW RUN") == 1
    assert [row["energy"] for row in read_as_experiment_runner(theirs / RUN_TABLE)][-1] == "1.5"
    assert "all runs have already been completed" in experiment_runner(config).stdout


def test_the_real_one_restarts_an_export_that_began_here(testbed: Testbed, tmp_path: Path) -> None:
    config, spec = write_study(tmp_path, template=TEMPLATE, hook="pass", data='{"energy": 2.5}')
    results, theirs = tmp_path / "results", tmp_path / "experiments" / "study"
    arguments = ["--experiment-runner-config", config, "--spec", spec, "--testbed", testbed.url, "--results", results]
    assert orchestrator("run", *arguments, "--no-progress").returncode == 0
    export = ["export", results / "study", "--format", "experiment-runner", "--output", theirs, "--python", PYTHON]
    assert orchestrator(*export).returncode == 0
    lines = (theirs / RUN_TABLE).read_bytes().decode().split("\r\n")
    lines[2] = ",".join([lines[2].split(",")[0], "TODO", lines[2].split(",")[2], " "])
    (theirs / RUN_TABLE).write_bytes("\r\n".join(lines).encode())
    shutil.rmtree(theirs / lines[2].split(",")[0])
    restarted = experiment_runner(config)
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    assert restarted.stdout.count("NEW RUN") == 1
    rows = read_as_experiment_runner(theirs / RUN_TABLE)
    assert [row["__done"] for row in rows] == ["DONE"] * 4
    assert rows[1]["energy"] == "2.5"


def test_the_real_one_makes_the_rows_that_we_plan(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path, LLAMA, template=LLAMA_TEMPLATE, hook="exit(0)")
    experiment_runner(config)  # ends before its first run, with its table written
    rows = read_as_experiment_runner(tmp_path / "experiments" / "study" / RUN_TABLE)
    planned = orchestrator("plan", "--experiment-runner-config", config, "--spec", spec, "--json", "--limit", "900")
    factors = ("generation", "model_size", "task")
    ours = {(run["run_id"], *(str(run[name]) for name in factors)) for run in json.loads(planned.stdout)["runs"]}
    assert {(row["__run_id"], *(str(row[name]) for name in factors)) for row in rows} == ours
    assert len(ours) == 900

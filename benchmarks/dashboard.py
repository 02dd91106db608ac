"""Does the dashboard stay quick with 10,000 runs of 200 treatments?

Fills a run table with results of the size of real ones, serves it by `orchestrator dashboard`, and measures in the
system's chromium: the first paint of the views, and how long an interaction takes from the key or the click until the
new rows are painted. Also what a look at the campaign costs while nothing changes, and after one change.

    python benchmarks/dashboard.py [--runs 10000] [--treatments 200] [--times 9] [--keep FOLDER]

Prints milliseconds: median and worst.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from sqlalchemy import insert, update

from contract.attempt_state import AttemptState, RunState
from contract.node_info import NodeIdentity
from contract.trial_result import (
    EnergyMethod,
    EnergyReading,
    EnergySummary,
    LoadReport,
    Phase,
    PhaseWindow,
    SuspectReason,
    TaskScore,
    TrialResult,
    WorkloadReport,
)
from contract.trial_spec import EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_VERSION, sha256_of
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.glance import glance
from orchestrator.dashboard.run_index import RunIndex
from orchestrator.plan_file import keep_plan
from orchestrator.store.base import Plan, PlannedRun
from orchestrator.store.schema import ATTEMPT, EVENT, RUN
from orchestrator.store.sql_store import SqlStore

TOKEN = "token-of-the-benchmark"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TRIAL_S = 60.0
NODE = NodeIdentity(
    hostname="box",
    os="Linux",
    cpu_model="CPU",
    n_cpus=64,
    memory_bytes=2**37,
    gpus=["GPU 0", "GPU 1"],
    python_version="3.11",
    packages={f"package-{i}": "1.2.3" for i in range(40)},
    hardware_sha256="0" * 64,
)


def plan_of(n_runs: int, n_treatments: int) -> Plan:
    """Treatments of three factors, each repeated."""
    runs = []
    for i in range(n_runs):
        number, repetition = i % n_treatments, i // n_treatments
        treatment = {"model": f"model-{number % 10}", "batch": 2 ** (number // 10 % 5), "clock_mhz": number // 50 * 300}
        run_id = f"run_{number}_repetition_{repetition}"
        spec = TrialSpec(
            experiment="large",
            run_id=run_id,
            repetition=repetition,
            treatment=treatment,
            seed=i,
            model=ModelSpec(name=str(treatment["model"]), source="fake:small"),
            engine=EngineSpec(name="fake"),
            workload=WorkloadSpec(name="fake"),
        )
        runs.append(PlannedRun(i, run_id, treatment, repetition, spec))
    factors = ("model", "batch", "clock_mhz")
    return Plan("large", 1, factors, tuple(runs), 3, "", {}, sha256_of([run.spec.sha256() for run in runs]))


def result_of(run: PlannedRun, attempt_id: str, state: AttemptState, draw: random.Random, at: datetime) -> TrialResult:
    """About as long as a real one."""
    power_w = 150 + int(run.treatment["batch"]) * 2 + draw.gauss(0, 5)
    duration_s = draw.uniform(20, 40)
    readings = [
        EnergyReading(
            domain=domain,
            component="cpu" if domain.startswith("cpu") else "gpu",
            phase=phase,
            energy_j=power_w * duration_s,
            method=EnergyMethod.SAMPLED,
            source="nvml",
            period_s=0.1,
            n_samples=300,
        )
        for domain in ("cpu_package", "gpu:0", "gpu:1")
        for phase in Phase
    ]
    return TrialResult(
        protocol_version=PROTOCOL_VERSION,
        attempt_id=attempt_id,
        run_id=run.run_id,
        spec_sha256=run.spec.sha256(),
        state=state,
        reasons=[SuspectReason(code="gap", message="A gap of 2.1 s.")] if state is AttemptState.SUSPECT else [],
        started_at=at,
        finished_at=at,
        phases=[PhaseWindow(phase=phase, start_s=0, duration_s=10) for phase in Phase],
        energy=readings,
        summary=EnergySummary(
            energy_j=power_w * duration_s,
            energy_net_j=power_w * duration_s * 0.7,
            cpu_energy_j=power_w * duration_s * 0.2,
            gpu_energy_j=power_w * duration_s * 0.8,
            dram_energy_j=None,
            baseline_power_w=50.0,
            method=EnergyMethod.SAMPLED,
            source="nvml",
            domains=["cpu_package", "gpu:0", "gpu:1"],
        ),
        duration_s=duration_s,
        tokens_per_s=draw.uniform(50, 500),
        workload=WorkloadReport(
            name="fake",
            source="made up",
            prompt_sha256="0" * 64,
            n_requests=64,
            n_prompt_tokens=4000,
            n_output_tokens=8000,
            score=TaskScore(n_items=64, n_correct=40, n_abstained=1, accuracy=draw.uniform(0.4, 0.9)),
        ),
        load=LoadReport(
            engine="fake",
            engine_version="1",
            model_name="m",
            model_source="fake:small",
            model_revision="1",
            load_s=1.0,
            settings={f"setting-{i}": i for i in range(60)},
        ),
        node=NODE,
    )


def fill(folder: Path, plan: Plan) -> None:
    """All runs ended but the last 300: of a hundred, three suspect and two failed."""
    draw = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    store = SqlStore.open(folder / "run_table.sqlite", create=True)
    store.create_experiment(plan)
    keep_plan(folder, plan)
    attempts, events, states = [], [], {}
    for run in plan.runs[:-300]:
        at = BEGIN + timedelta(seconds=run.position * TRIAL_S)
        end = at + timedelta(seconds=draw.uniform(0.7, 1.0) * TRIAL_S)
        state = draw.choices([AttemptState.SUCCEEDED, AttemptState.SUSPECT, AttemptState.FAILED], [95, 3, 2])[0]
        attempt_id = f"{run.run_id}-a1-{run.position:08x}"
        result = None if state is AttemptState.FAILED else result_of(run, attempt_id, state, draw, end)
        error = {"code": "engine", "message": "It broke.", "detail": {}, "retryable": False}
        attempts.append(
            {
                "attempt_id": attempt_id,
                "run_id": run.run_id,
                "number": 1,
                "state": state,
                "accepted": state is AttemptState.SUCCEEDED,
                "testbed": "box",
                "owner": "gone:1:1",
                "claimed_at": at,
                "updated_at": end,
                "finished_at": end,
                "error": error if result is None else None,
                "result": result.model_dump(mode="json") if result else None,
                "reasons": [each.model_dump(mode="json") for each in result.reasons] if result else [],
            }
        )
        states[run.run_id] = {AttemptState.SUCCEEDED: RunState.DONE, AttemptState.SUSPECT: RunState.SUSPECT}.get(
            state, RunState.FAILED
        )
        for before, after in ((None, "CLAIMED"), ("CLAIMED", "MEASURING"), ("MEASURING", state)):
            events.append(
                {
                    "at": end,
                    "attempt_id": attempt_id,
                    "run_id": run.run_id,
                    "state_before": before,
                    "state_after": after,
                    "message": "",
                }
            )
    with store._engine.begin() as connection:
        connection.execute(insert(ATTEMPT), attempts)
        connection.execute(insert(EVENT), events)
        for state in set(states.values()):
            ids = [run_id for run_id, each in states.items() if each is state]
            for i in range(0, len(ids), 500):
                connection.execute(update(RUN).where(RUN.c.run_id.in_(ids[i : i + 500])).values(state=state))
    store.close()


def tell(what: str, times_s: list[float]) -> None:
    worst, median = max(times_s) * 1e3, statistics.median(times_s) * 1e3
    print(f"  {what:74s} {median:8.0f} {worst:8.0f}", flush=True)


def timed_s(work: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    work()
    return time.perf_counter() - begin_s


def measure_server(folder: Path, times: int) -> None:
    """What the page's process does, without a browser."""
    store = SqlStore.open(folder / "run_table.sqlite", create=False)
    board = Dashboard(folder, store, name="large")
    index = RunIndex(store)
    tell("first reading of all runs", [timed_s(index.rows)])
    tell("a look while nothing changes", [timed_s(lambda: glance(board, index)) for _ in range(times)])

    def after_change() -> None:
        store.remember("note", 1, "something happened", run_id="run_0_repetition_0")
        glance(board, index)

    tell("a look after a change", [timed_s(after_change) for _ in range(times)])
    store.close()


# From the action until two frames after the rows have changed: then they are painted.
_INTERACTION = """async ([selector, kind, value]) => {
  const place = document.getElementById("rows"), element = document.querySelector(selector);
  const begin = performance.now();
  const changed = new Promise((resolve) => {
    const observer = new MutationObserver(() => { observer.disconnect(); resolve(); });
    observer.observe(place, { childList: true });
  });
  if (kind === "click") element.click();
  else { element.value = value; element.dispatchEvent(new Event(kind, { bubbles: true })); }
  await changed;
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  return performance.now() - begin;
}"""

_PAINT = """() => new Promise((resolve) => {
  const found = performance.getEntriesByName("first-contentful-paint")[0];
  if (found) { resolve(found.startTime); return; }
  new PerformanceObserver((list, observer) => {
    const entry = list.getEntriesByName("first-contentful-paint")[0];
    if (entry) { observer.disconnect(); resolve(entry.startTime); }
  }).observe({ type: "paint", buffered: true });
})"""


def measure_page(page: Page, url: str, times: int) -> None:
    """First paints and interactions."""
    page.goto(f"{url}/?token={TOKEN}")
    for path in ("/", "/runs", "/runs?sort=-energy_j&state=DONE", "/runs/run_0_repetition_0", "/comparison"):
        paints = []
        for _ in range(times):
            page.goto(url + path)
            paints.append(page.evaluate(_PAINT) / 1e3)
        tell(f"first paint of {path}", paints)
    actions = {
        "sort by energy": ['a.sort[href*="energy_j"]', "click", ""],
        "sort by a factor": ['a.sort[href*="factor.model"]', "click", ""],
        "next page": ['a[rel="next"]', "click", ""],
        "filter by state": ['select[name="state"]', "change", "SUSPECT"],
        "filter by factor": ['select[name="factor.model"]', "change", "model-3"],
        "search (with its pause of 80 ms)": ["#search", "input", "run_12"],
    }
    for what, action in actions.items():
        found = []
        for _ in range(times):
            page.goto(url + "/runs")
            found.append(page.evaluate(_INTERACTION, action) / 1e3)
        tell(what, found)


# From the choice until two frames after the new content is there, without the figures, which follow one by one.
_COMPARISON = """async ([selector, kind, value, place]) => {
  const element = document.querySelector(selector), begin = performance.now();
  const changed = new Promise((resolve) => {
    const observer = new MutationObserver(() => { observer.disconnect(); resolve(); });
    observer.observe(document.getElementById(place), { childList: true });
  });
  element.value = value;
  element.dispatchEvent(new Event(kind, { bubbles: true }));
  await changed;
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  return performance.now() - begin;
}"""


def measure_comparison(page: Page, url: str, times: int) -> None:
    """Choices and pairs, while the figures of the choice before may still be on their way."""
    page.goto(f"{url}/comparison")
    # Figures below the fold are drawn when they come into view.
    page.wait_for_selector("#plots section", state="attached", timeout=120_000)
    page.wait_for_timeout(5000)
    labels = page.evaluate("[...document.querySelectorAll('#treatments option')].map((each) => each.value)")
    actions: dict[str, list[tuple[str, str, str, str]]] = {
        "comparison: choose a level": [
            ("select[name='factor.model']", "input", f"model-{i % 10}", "view") for i in range(times)
        ],
        "comparison: sort": [("select[name='sort']", "input", ("edp", "energy")[i % 2], "view") for i in range(times)],
        "comparison: 200 rows, 20 rows": [
            ("select[name='limit']", "input", ("200", "20")[i % 2], "view") for i in range(times)
        ],
        "comparison: search (with its pause of 80 ms)": [
            ("#choice input[type='search']", "input", f"model-{i % 10}", "view") for i in range(times)
        ],
        "comparison: another pair": [("#pair-second", "change", labels[7 * i + 1], "pair") for i in range(times)],
    }
    page.evaluate(f"document.getElementById('pair-first').value = {json.dumps(labels[0])}")
    for what, calls in actions.items():
        for pause_ms, said in ((3000, ""), (400, ", figures still on their way")):
            found = []
            for call in calls:
                found.append(page.evaluate(_COMPARISON, list(call)) / 1e3)
                page.wait_for_timeout(pause_ms)
            tell(what + said, found)
        if "level" in what:
            page.select_option("select[name='factor.model']", "")
            page.wait_for_timeout(3000)


def main() -> None:
    """Fill, serve, measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--treatments", type=int, default=200)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--keep", type=Path, help="folder of the experiment, used again where it is there")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp()) / "large"
    if not (folder / "run_table.sqlite").exists():
        fill(folder, plan_of(options.runs, options.treatments))
    size_mib = (folder / "run_table.sqlite").stat().st_size / 2**20
    print(f"{options.runs} runs of {options.treatments} treatments, run table of {size_mib:.0f} MiB")
    print(f"  {'':74s} {'median':>8s} {'worst':>8s}   ms")
    measure_server(folder, options.times)
    ready = folder / "page.json"
    ready.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "dashboard", str(folder), "--port", "0", "--ready-file", str(ready)],
        env={**os.environ, "JOULEBED_DASHBOARD_TOKEN": TOKEN},
    )
    try:
        while not ready.exists():
            time.sleep(0.05)
        with sync_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            url = str(json.loads(ready.read_text())["url"])
            measure_page(page, url, options.times)
            measure_comparison(page, url, options.times)
            browser.close()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()

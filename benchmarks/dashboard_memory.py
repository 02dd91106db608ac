"""Does a page that stays open grow? A campaign of fake trials runs, and one page of it stays open in chromium.

    python benchmarks/dashboard_memory.py [--minutes 20]

Once a minute, after a forced garbage collection: the page's JavaScript heap and DOM nodes, the dashboard's resident
memory, and how many runs have ended. Printed at the end: the slope of each over the second half, when all strips and
caches are full. A fake trial takes about two seconds, so a minute of it is about as many changes of the page as half an
hour of a real campaign; the live points come ten a second.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

TOKEN = "token-of-the-benchmark"
CONFIG = """
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "memory"
    seed = 7
    cooldown = Cooldown(floor_s=0.2, max_wait_s=0.0)

    def create_run_table_model(self):
        return RunTableModel(factors=[Factor("concurrency", [1, 4, 8])], repetitions=3000)

    def trial(self, treatment):
        return Trial(
            model=ModelSpec(name="fake", source="fake:fake"),
            engine=EngineSpec(name="fake", lifetime="block", max_concurrency=8, options={"tokens_per_s": 200.0}),
            sampling=SamplingSpec(max_tokens=16),
            workload=WorkloadSpec(name="fake", concurrency=treatment["concurrency"], options={"n_items": 40}),
            meter=MeterSpec(name="fake", period_s=0.1),
            baseline_s=0.2,
        )
"""


def main() -> None:
    """Run the campaign, look once a minute, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=int, default=20)
    minutes = parser.parse_args().minutes
    folder = Path(tempfile.mkdtemp())
    (folder / "memory.py").write_text(CONFIG)
    results, log = folder / "results", folder / "out.txt"
    command = [sys.executable, "-m", "orchestrator", "run", str(folder / "memory.py"), "--local", "--dashboard"]
    with log.open("wb") as out:
        campaign = subprocess.Popen(
            [*command, "--no-progress", "--results", str(results)],
            env={**os.environ, "JOULEBED_DASHBOARD_TOKEN": TOKEN},
            stdout=out,
            stderr=out,
        )
    try:
        url = ""
        while not url:
            time.sleep(0.5)
            if campaign.poll() is not None:
                raise SystemExit(log.read_text())
            url = next((word for word in log.read_text().split() if word.startswith("http://") and "token" in word), "")
        page_process = next(
            each for each in psutil.Process(campaign.pid).children(recursive=True) if "dashboard" in each.cmdline()
        )
        rows = []
        with sync_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(url)
            probe = page.context.new_cdp_session(page)
            probe.send("Performance.enable")
            print(f"{'minute':>6} {'runs':>6} {'heap, KiB':>10} {'nodes':>6} {'listeners':>9} {'server, MiB':>11}")
            for minute in range(minutes + 1):
                probe.send("HeapProfiler.collectGarbage")
                found = {each["name"]: each["value"] for each in probe.send("Performance.getMetrics")["metrics"]}
                n_ended = len(list((results / "memory" / "runs").glob("*/*/result.json")))
                row = (
                    minute,
                    n_ended,
                    found["JSHeapUsedSize"] / 1024,
                    found["Nodes"],
                    found["JSEventListeners"],
                    page_process.memory_info().rss / 2**20,
                )
                rows.append(row)
                print("{:6d} {:6d} {:10.0f} {:6.0f} {:9.0f} {:11.1f}".format(*row), flush=True)
                if minute < minutes:
                    page.wait_for_timeout(60_000)
            browser.close()
        late = np.array(rows[len(rows) // 2 :])
        runs = late[:, 1]
        for column, what in ((2, "heap, KiB"), (3, "nodes"), (4, "listeners"), (5, "server, MiB")):
            print(f"{what}: {1000 * np.polyfit(runs, late[:, column], 1)[0]:+.1f} per 1,000 runs, second half")
    finally:
        campaign.terminate()
        campaign.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""How long a 1000-point sweep takes to plan: the wall time of the whole command, imports included.

python benchmarks/edge_plan.py            # five rounds
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 1.0

CONFIG = """
from runnerconfig.edge_power_profile import RunnerConfig as EdgePowerProfile


class RunnerConfig(EdgePowerProfile):
    name = "edge_plan"
    lengths = tuple(range(1, 201))
    repetitions = 5
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "edge_plan.py"
        config.write_text(CONFIG, encoding="utf-8")
        times_s = []
        for _ in range(arguments.rounds):
            start_s = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "orchestrator", "plan", str(config), "--json"],
                check=True,
                cwd=root,
                stdout=subprocess.DEVNULL,
            )
            times_s.append(time.monotonic() - start_s)
    median_s = statistics.median(times_s)
    print(f"200 lengths x 5 repetitions: median {median_s:.2f} s, {min(times_s):.2f} to {max(times_s):.2f} s")
    print(f"wanted: at most {LIMIT_S:.0f} s")
    return 0 if median_s <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())

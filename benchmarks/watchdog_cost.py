"""What does the watchdog cost while it waits, and how soon is a device back after `kill -9`?

Each round: a process sets a simulated device under a watchdog; the watchdog is left alone, then watched, then its owner
is killed. CPU time is the kernel's own count (schedstat), in ns.

    python benchmarks/watchdog_cost.py [--rounds N] [--seconds S]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SETTLE_S = 3.0
FOUND_MHZ = 1410.0


def own(folder: Path) -> None:
    """Set a device, tell the watchdog's pid, and wait to be killed; the body of a child process."""
    from testbed.actuators.simulated_actuator import SimulatedActuator
    from testbed.restore_ledger import RestoreLedger
    from testbed.watchdog import Watchdog

    device = SimulatedActuator(domain="gpu:0", folder=folder / "devices")
    device.apply({"clock_mhz": FOUND_MHZ})
    guard = Watchdog(folder / "restore")
    RestoreLedger(folder / "restore").hold(device)
    device.apply({"clock_mhz": 1005.0})
    print(guard.pid, flush=True)
    signal.pause()


def measure_once(seconds: float) -> dict[str, float]:
    """One round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--own", name]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        owner = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert owner.stdout is not None
        guard = psutil.Process(int(owner.stdout.readline()))
        time.sleep(SETTLE_S)
        start_ns, switches = _cpu_ns(guard.pid), guard.num_ctx_switches().voluntary
        time.sleep(seconds)
        waiting_ns = _cpu_ns(guard.pid) - start_ns
        memory = guard.memory_full_info()
        found = {
            "rss_mib": memory.rss / 2**20,
            "uss_mib": memory.uss / 2**20,
            "cpu_start_ms": start_ns / 1e6,
            "cpu_waiting_ns": float(waiting_ns),
            "wake_ups": float(guard.num_ctx_switches().voluntary - switches),
        }
        killed_s = time.monotonic()
        owner.kill()
        device = folder / "devices" / "gpu:0.json"
        while json.loads(device.read_text())["clock_mhz"] != FOUND_MHZ:
            time.sleep(0.002)
        found["restored_s"] = time.monotonic() - killed_s
        owner.communicate()
        guard.wait(30.0)
        return found


def _cpu_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def main() -> None:
    """Print each round, and the worst of each column."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each watchdog is watched for")
    parser.add_argument("--own", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.own is not None:
        own(given.own)
        return
    rounds = [measure_once(given.seconds) for _ in range(given.rounds)]
    for i, line in enumerate(rounds, 1):
        print(f"round {i}", "  ".join(f"{key} {value:.3g}" for key, value in line.items()))
    print("worst", "  ".join(f"{key} {max(each[key] for each in rounds):.3g}" for key in rounds[0]))


if __name__ == "__main__":
    main()

"""`python -m tests.faults`: the fault suite at any size; `make faults` runs the full one."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.end_to_end.fault_proxy import FAULTS
from tests.faults.kill_campaign import kill_campaign, undisturbed
from tests.faults.machines import two_machines
from tests.faults.network_campaign import (
    cable_campaign,
    fault_campaign,
    mixed_campaign,
    partition_campaign,
)
from tests.faults.plan import Moment
from tests.faults.report import Report

PARTS = ("kills", "pairs", "network", "partition", "cable")

_PARTITION_MOMENTS: tuple[Moment, ...] = ("claimed", "measuring", "transfer")


def main(arguments: list[str] | None = None) -> int:
    """Run the wanted parts; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--trials", type=int, default=24, help="of a campaign; a multiple of 8")
    parser.add_argument("--kills", type=int, default=16, help="SIGKILLs of the kill campaign")
    parser.add_argument("--seed", type=int, default=1, help="of victims, instants and network faults")
    parser.add_argument("--latency-s", type=float, default=0.5, help="of the network fault `latency`")
    parser.add_argument("--partition-s", type=float, default=6.0, help="length of a partition")
    parser.add_argument("--network-trials", type=int, default=8, help="of a campaign over a bad network")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated; all parts by default")
    parser.add_argument("--folder", type=Path, help="takes everything, and stays; else a temporary one that goes")
    parser.add_argument("--json", type=Path, help="takes the figures")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="joulebed-faults-"))
    parts = given.only or PARTS
    print(f"Seed {given.seed}, {given.trials} trials, {given.kills} kills, in {folder}", flush=True)
    begin_s = time.monotonic()
    reports: list[Report] = []

    def done(report: Report) -> None:
        reports.append(report)
        print(report.text(), flush=True)

    def tell(text: str) -> None:
        print(f"  [{time.monotonic() - begin_s:6.0f} s] {text}", flush=True)

    if {"kills", "pairs"} & set(parts):
        reference = undisturbed(folder / "undisturbed", given.trials)
        tell(f"undisturbed campaign of {given.trials} trials done")
    if "kills" in parts:
        n_interrupts = max(given.kills // 10, 2)
        options = {"n_kills": given.kills, "n_interrupts": n_interrupts, "seed": given.seed, "tell": tell}
        done(kill_campaign(folder / "kills", reference, **options))
    if "pairs" in parts:
        for n_testbeds in (1, 2):
            options = {"n_kills": given.kills // 4, "seed": given.seed, "n_orchestrators": 2, "tell": tell}
            done(kill_campaign(folder / f"pairs{n_testbeds}", reference, n_testbeds=n_testbeds, **options))
    if {"network", "partition", "cable"} & set(parts):
        reference = undisturbed(folder / "undisturbed-large", given.network_trials, is_large=True)
        tell(f"undisturbed campaign of {given.network_trials} large trials done")
    if "network" in parts:
        for fault in FAULTS:
            done(fault_campaign(folder / fault, reference, [fault], seed=given.seed, latency_s=given.latency_s))
        done(mixed_campaign(folder / "mixed", reference, seed=given.seed, latency_s=given.latency_s))
    lasting = {"seconds": given.partition_s, "moments": _PARTITION_MOMENTS}
    if "partition" in parts:
        done(partition_campaign(folder / "partition", reference, **lasting))
    if "cable" in parts:
        with two_machines() as machines:
            if machines is None:
                tell("cable: left out, this user cannot make network namespaces (root can, with iproute2)")
            else:
                done(cable_campaign(folder / "cable", reference, machines, **lasting))
    if given.json:
        document = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "arguments": sys.argv[1:] if arguments is None else arguments,
            "parts": [{"name": each.name, "figures": each.figures, "problems": each.problems} for each in reports],
        }
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    is_fine = all(each.is_fine for each in reports)
    if given.folder is None and is_fine:
        shutil.rmtree(folder, ignore_errors=True)
    print("Nothing was lost." if is_fine else f"NOT FINE. What is left is in {folder}.", flush=True)
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())

"""The audit of a consumer study on a terminal: findings first, then the arms."""

import statistics

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.audit.consumer_audit import ConsumerAudit, Reading

_ABSENT = "–"


def print_consumer(audit: ConsumerAudit, console: Console) -> None:
    """Print the findings and a row per arm.

    Args:
        audit: what to print.
        console: where.
    """
    console.print(Text(f"{audit.folder}: {len(audit.readings)} requests read", style="bold"), soft_wrap=True)
    console.print()
    for finding in audit.findings:
        console.print(Text("- ") + Text(finding), soft_wrap=False)
    if not audit.findings:
        console.print("Nothing wrong was found.")
    console.print()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("Arm", no_wrap=True)
    for name in ("Requests", "Latency s", "Read for s", "Left s", "Published J"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in dict.fromkeys(each.run_id for each in audit.readings):
        own = [each for each in audit.readings if each.run_id == arm]
        table.add_row(
            arm,
            str(len(own)),
            *(_mean(own, name) for name in ("latency_s", "sampled_s", "unsampled_s", "energy_j")),
        )
    console.print(table)
    console.print(
        "Means over the requests of an arm. Read for: from the stopwatch's start to the stamp of the energy. Left: "
        "from there to the answer."
    )


def _mean(readings: list[Reading], name: str) -> str:
    values = [value for each in readings if (value := getattr(each, name)) is not None]
    return f"{statistics.fmean(values):.2f}" if values else _ABSENT

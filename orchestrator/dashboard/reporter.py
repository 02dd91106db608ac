"""Makes the static report, in a process of its own at the lowest priority."""

import json
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.dashboard.analyst import LOWEST_PRIORITY, end_with


def main(arguments: list[str]) -> int:
    """Write the report and say so in a line of JSON.

    Args:
        arguments: the experiment's folder, and the HTML file to write.
    """
    os.nice(LOWEST_PRIORITY)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    from analysis.report.html import to_html
    from analysis.report.report import make_report
    from analysis.report.source import read_source
    from contract.errors import JouleBedError

    folder, out = Path(arguments[0]), Path(arguments[1])
    try:
        command = f"python -m analysis report {folder.name} --out report.html --seed 0"
        document = make_report(read_source(folder), command=command, now=datetime.now(UTC), seed=0)
        out.write_text(to_html(document), encoding="utf-8")
    except JouleBedError as error:
        print(json.dumps({"failed": error.message}), flush=True)
        return 0
    print(json.dumps({"made": out.name}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

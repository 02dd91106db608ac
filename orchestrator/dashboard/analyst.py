"""A process that has read the experiment once, and answers questions about it: JSON lines in, JSON lines out.

It is a process of its own so that no computation ever stops the page, and so that its memory is given back with it. It
runs at the lowest priority and with one thread. When the dashboard ends, its input ends, and so does it.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from orchestrator.dashboard.settled import settle

LOWEST_PRIORITY = 19


def main(arguments: list[str]) -> int:
    """Read the folder that is named, say what was found, then answer until the input ends.

    Args:
        arguments: the experiment's folder.
    """
    os.nice(LOWEST_PRIORITY)
    # The end of the input is seen between two computations only; the end of the dashboard at once.
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    begun_s = time.monotonic()
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    from contract.errors import JouleBedError
    from orchestrator.dashboard.comparison_view import FIGURES, Choice, Comparison

    try:
        comparison = Comparison(Path(arguments[0]))
        everything = Choice()
        first = {
            "overview": comparison.overview(),
            "tables": comparison.tables(everything),
            "figures": {name: comparison.figure(everything, name) for name in FIGURES},
        }
    except JouleBedError as error:
        _say(answers, {"failed": error.message, "cost_s": time.monotonic() - begun_s})
        return 0
    _say(answers, {**first, "cost_s": time.monotonic() - begun_s})
    _warm_up(comparison)
    settle()
    for line in sys.stdin:
        try:
            _say(answers, {"answer": _answer(comparison, json.loads(line))})
        except JouleBedError as error:
            _say(answers, {"failed": error.message})
    return 0


def _warm_up(comparison: Any) -> None:
    """The first question would wait for what a pair's tests import: seconds."""
    from orchestrator.dashboard.pair_view import pair

    pair(comparison.summary, 0, len(comparison.summary.treatments) - 1)


def end_with(parent: int) -> None:
    """End this process when another one is gone.

    Args:
        parent: id of the process that started this one.
    """
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def _answer(comparison: Any, question: dict[str, Any]) -> dict[str, Any]:
    from contract.errors import UsageError
    from orchestrator.dashboard.comparison_view import Choice
    from orchestrator.dashboard.pair_view import pair, pair_figure

    if question["do"] in ("pair", "pair_figure"):
        n = len(comparison.summary.treatments)
        if not all(0 <= question[name] < n for name in ("first", "second")):
            raise UsageError(f"There is no such treatment: they are numbered from 0 to {n - 1}.")
        view = pair if question["do"] == "pair" else pair_figure
        return view(comparison.summary, question["first"], question["second"])
    choice = question["choice"]
    levels = tuple((str(name), str(level)) for name, level in choice["levels"])
    which = Choice(choice["words"], levels, choice["sort"], choice["limit"])
    found: dict[str, Any] = (
        comparison.figure(which, question["name"]) if question["do"] == "figure" else comparison.tables(which)
    )
    return found


def _say(to: IO[str], document: dict[str, Any]) -> None:
    to.write(json.dumps(document, allow_nan=False) + "\n")
    to.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

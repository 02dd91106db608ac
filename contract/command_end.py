"""How a command of JouleBed ends: with a message that says what to do, and a code."""

import sys
from collections.abc import Callable

from contract.errors import JouleBedError


def exit_code(command: Callable[[], object]) -> int:
    """Run a command line.

    Args:
        command: the typer application, called.

    Returns:
        0, or 2 when what was asked for cannot be done; the reason is on standard error.
    """
    try:
        command()
    except JouleBedError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 2
    except SystemExit as end:  # how typer ends, also after its own message on a wrong option
        return end.code if isinstance(end.code, int) else 0
    return 0

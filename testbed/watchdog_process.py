"""The watchdog's own process; see `testbed.watchdog`. Run by its path, without site packages: small while it waits.

    python -I -S watchdog_process.py FD COMMAND...

Sleeps until FD says that its owner has ended, then becomes COMMAND.
"""

import os
import select
import signal
import sys


def main() -> None:
    """Wait without polling, then restore."""
    # A service manager ends a whole service with SIGTERM, its trials with it: then there is something left to do.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner = select.poll()
    owner.register(int(sys.argv[1]), select.POLLIN)
    owner.poll()
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

"""`python -m testbed`: the same as the console command `testbed`."""

from testbed.cli import main

main()

"""The testbed's log: lines for people, or JSON for programs, each with the attempt that it is about."""

from contract.log_line import about_attempt
from contract.process_log import configure_log

__all__ = ["about_attempt", "configure_log"]

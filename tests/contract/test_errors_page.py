"""docs/errors.md tells the truth: one row per code, and whether it is tried again."""

import re
from pathlib import Path

import pytest

from contract.errors import JouleBedError, wire_errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
ROW = re.compile(
    r"^\| `(?P<code>\w+)` \| (?P<meaning>[^|]+) \| (?P<retried>yes|no) \| (?P<advice>[^|]+) \|$", re.MULTILINE
)


def test_each_code_has_one_row() -> None:
    codes = [row["code"] for row in ROW.finditer(PAGE.read_text())]
    assert sorted(codes) == sorted(wire_errors())


@pytest.mark.parametrize(("code", "cls"), wire_errors().items())
def test_retried_is_what_the_class_says(code: str, cls: type[JouleBedError]) -> None:
    (row,) = (row for row in ROW.finditer(PAGE.read_text()) if row["code"] == code)
    assert (row["retried"] == "yes") is cls.retryable is cls("words").body().retryable


def test_what_needs_a_change_first_is_not_retried() -> None:
    """Refusals (4xx) need another request, but for those that say "not now"."""
    not_now = {"testbed_busy", "too_many_failures", "attempt_not_finished"}
    refused = {code for code, cls in wire_errors().items() if 400 <= cls.http_status < 500}
    assert {code for code in refused if wire_errors()[code].retryable} == not_now

"""Log lines name the attempt that they are about."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from testbed.log import about_attempt, configure_log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_lines() -> None:
    stream = io.StringIO()
    configure_log("info", "json", stream)
    log = logging.getLogger("testbed.test")
    log.debug("not wanted")
    with about_attempt("a1", "run_0_repetition_0"):
        log.info("started %s", "now")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("failed")
    log.warning("after")
    started, failed, after = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (started["level"], started["logger"], started["message"]) == ("INFO", "testbed.test", "started now")
    assert (started["attempt_id"], started["run_id"]) == ("a1", "run_0_repetition_0")
    assert started["time"][:2] == "20"
    assert "ValueError: broken" in failed["exc_info"]
    assert after["attempt_id"] is None


def test_text_lines() -> None:
    stream = io.StringIO()
    configure_log("warning", "text", stream)
    log = logging.getLogger("testbed.test")
    with about_attempt("a1", "run_0"):
        log.warning("hot")
    log.warning("cold")
    assert [line.partition(" WARNING ")[2] for line in stream.getvalue().splitlines()] == [
        "testbed.test [run_0 a1]: hot",
        "testbed.test: cold",
    ]

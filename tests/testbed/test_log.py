"""Log lines name the attempt that they are about."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from contract.log_line import secret_values
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
    at = datetime.fromisoformat(started["time"])
    assert at.utcoffset() == timedelta(0)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
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


def test_no_message_passes_for_another_record() -> None:
    stream = io.StringIO()
    configure_log("info", "text", stream)
    forged = "2026-11-21T00:00:00.000Z INFO testbed.node: Attempt ended SUCCEEDED"
    logging.getLogger("testbed.test").info("No route %s", f"/x\n{forged}\r{forged}")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("No route /x")
    assert second.startswith("    2026-") and "\\r2026-" in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_hidden_in_messages_and_tracebacks(log_format: Literal["text", "json"]) -> None:
    stream = io.StringIO()
    token = 'bearer-"quoted"-token'
    secrets = secret_values({"HF_TOKEN": "hf_0123456789", "DB_PASSWORD": "short", "HOME": "/home/me"})
    assert secrets == ["hf_0123456789", "short"]
    configure_log("info", log_format, stream, secrets=[*secrets, token])
    log = logging.getLogger("testbed.test")
    try:
        raise ValueError(f"refused {token}")
    except ValueError:
        log.exception("asked with hf_0123456789, in short")
    text = stream.getvalue()
    assert "hf_0123456789" not in text and "quoted" not in text
    assert text.count("[hidden]") == 2
    assert "in short" in text  # too short to be told from a word

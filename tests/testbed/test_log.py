"""Log lines name the attempt that they are about."""

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote, quote_plus

import pytest

from contract.log_line import hide, secret_values
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


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("HF_TOKEN", " hf_0123456789\n", ["hf_0123456789"]),
        ("KEY_PASSPHRASE", "open-sesame", ["open-sesame"]),
        ("SMTP_PASS", "open-sesame", ["open-sesame"]),
        ("WANDB_KEY", "0a1b2c3d4e", ["0a1b2c3d4e"]),
        ("MASTER_KEY", "correct-horse-battery", ["correct-horse-battery"]),
        ("SORT_KEY", "repetition", []),
        ("KEYBOARD", "de-latin1-nodeadkeys", []),
        ("BYPASS", "everything", []),
        ("A_TOKEN", " \n", []),
        ("DATABASE_URL", "postgresql://me:open%20sesame@db:5432/runs", ["open%20sesame"]),
        ("CELERY_BROKER", "redis://:open@sesame@db", ["open@sesame"]),
        ("DSN", "host=db user=me password='open-sesame' dbname=runs", ["open-sesame"]),
        ("DB", "postgresql://db/runs?user=me&password=open-sesame&x=1", ["open-sesame"]),
        ("PIP_INDEX", "https://ghp_0123456789abcdef@git.example.org/simple", ["ghp_0123456789abcdef"]),
        ("REPOSITORY", "ssh://git@git.example.org/lab/x", []),
        ("PG", "postgresql://db/runs?sslpassword=open-sesame&x=1 passwd=simsalabim", ["open-sesame", "simsalabim"]),
        ("STORE", "AccountName=me;AccountKey=0a1b2c==;EndpointSuffix=x", ["0a1b2c=="]),
        ("MYSQL_PWD", "open-sesame", ["open-sesame"]),
        ("OLDPWD", "/home/somebody", []),
        ("HUB", "https://huggingface.co:443/org/name@main", []),
    ],
)
def test_secrets_are_told_by_name_and_by_their_place_in_a_url(name: str, value: str, secrets: list[str]) -> None:
    assert secret_values({name: value}) == secrets


@pytest.mark.parametrize(
    "secret", ["line\nbreak", "a quote' and \"more", "blank & slash/", "umlaut-\xfc\u2028-end", "\udcff-bytes-"]
)
def test_a_secret_is_hidden_however_it_is_spelled(secret: str) -> None:
    spelled = [secret, repr(secret), json.dumps(secret), repr(secret.encode(errors="surrogateescape"))[1:]]
    if "\udcff" not in secret:
        spelled += [quote(secret, safe=""), quote_plus(secret), quote(secret)]
        spelled.append(re.sub("%..", lambda found: found[0].lower(), quote(secret)))
    for text in spelled:
        assert hide(f"refused <{text}>", [secret]).replace("'", "").replace('"', "") == "refused <[hidden]>"
    assert hide("with open sesame", secret_values({"DB": "a://me:open%20sesame@db"})) == "with [hidden]"
    assert hide(f"Bearer {secret}", [f" {secret}\n"]) == "Bearer [hidden]"


def test_a_secret_that_begins_another_leaves_none_of_it() -> None:
    for secrets in (["abcdefgh", "abcdefghij"], ["abcdefghij", "abcdefgh"]):
        assert hide("abcdefghij abcdefgh", secrets) == "[hidden] [hidden]"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_message_commands_a_terminal_or_ends_its_line(log_format: Literal["text", "json"]) -> None:
    stream = io.StringIO()
    odd = "\x1b[2J\x9b1m\x7f\x85\u2028\u2029\x00\ud800"
    configure_log("info", log_format, stream)
    logging.getLogger("testbed.test").info("odd %s\tend \xe4\u20ac", odd)
    text = stream.getvalue()
    assert text.count("\n") == 1 and len(text.splitlines()) == 1
    assert not any(character in text for character in odd if not character.isprintable())
    if log_format == "json":
        assert json.loads(text)["message"] == f"odd {odd}\tend \xe4\u20ac"
    else:
        assert text.endswith("odd \\x1b[2J\\x9b1m\\x7f\\x85\\u2028\\u2029\\x00\\ud800\\tend \xe4\u20ac\n")

"""Log lines of both nodes, in one form: an attempt is followed through both logs by its id."""

import json
import logging
import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, quote_plus, unquote

LogFormat = Literal["text", "json"]

LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")

_LEAST_SECRET_CHARACTERS = 8
_HIDDEN = "[hidden]"
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "API_KEY", "APIKEY", "CREDENTIAL", "_PWD")
_LEAST_KEY_CHARACTERS = 16
_PASSWORD_INSIDE = re.compile(
    r"://[^/\s:@]*:([^/\s]+)@|://([^/\s:@]{16,})@|(?:password|passwd)=['\"]?([^&\s'\"]+)|accountkey=([^;\s]+)",
    re.IGNORECASE,
)
"""In any variable: the password in `scheme://user:PASSWORD@host`, a token in the user's place, a database's
`password=PASSWORD`, an Azure store's `AccountKey=KEY`."""
_ESCAPED = re.compile(r"%[0-9A-F]{2}")
_UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What a terminal obeys, what some readers take for the end of a line, and what no encoding has."""

_attempt: ContextVar[tuple[str | None, str | None] | None] = ContextVar("attempt", default=None)


@contextmanager
def about_attempt(attempt_id: str | None, run_id: str | None) -> Iterator[None]:
    """Lines logged inside, by this thread, are about an attempt; None ends that for a while."""
    token = _attempt.set((attempt_id, run_id))
    try:
        yield
    finally:
        _attempt.reset(token)


def note_attempt(attempt_id: str | None, run_id: str | None) -> None:
    """Lines logged from here on, by this thread, are about an attempt; None: about none."""
    _attempt.set((attempt_id, run_id))


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Values of the environment that are secrets by their variable's name, such as HF_TOKEN's, and URLs' passwords.

    Without the line breaks and spaces around them that files of variables leave: what uses a secret strips it, too.
    """
    values = [value for name, value in environment.items() if _is_secret(name.upper(), value.strip())]
    for value in environment.values():
        values += [password for match in _PASSWORD_INSIDE.findall(value) for password in match]
    return [stripped for value in values if (stripped := value.strip())]


def _is_secret(name: str, value: str) -> bool:
    if any(word in name for word in _SECRET_WORDS) or name.endswith("_PASS"):
        return True
    # Other keys are what things are sorted by: a short word without a digit would be hidden wherever it is said.
    is_long = len(value) >= _LEAST_KEY_CHARACTERS or any(character.isdigit() for character in value)
    return name.endswith("_KEY") and is_long


def hide(text: str, secrets: Collection[str]) -> str:
    """The text without the secrets that are in it, also as `repr`, JSON or a URL spells them.

    Args:
        text: any.
        secrets: values. Those of fewer than 8 characters are left: they would be found inside innocent words.
    """
    spelled = {each for secret in secrets for each in _spellings(secret) if len(each) >= _LEAST_SECRET_CHARACTERS}
    # The longest first: one that begins another would leave the other's end to be read.
    for each in sorted(spelled, key=len, reverse=True):
        text = text.replace(each, _HIDDEN)
    return text


def hide_within(value: Any, secrets: Collection[str]) -> Any:
    """The value with `hide` done to each text in its lists and dictionaries."""
    if isinstance(value, str):
        return hide(value, secrets)
    if isinstance(value, list | tuple):
        return [hide_within(each, secrets) for each in value]
    if isinstance(value, dict):
        return {name: hide_within(each, secrets) for name, each in value.items()}
    return value


def _spellings(secret: str) -> Iterator[str]:
    for each in (secret, secret.strip(), unquote(secret)):
        yield each
        yield repr(each)[1:-1]
        yield json.dumps(each)[1:-1]
        # What is no text in the environment comes as lone surrogates.
        yield repr(each.encode(errors="surrogateescape"))[2:-1]
        for quoted in (quote(each, safe="", errors="surrogateescape"), quote(each, errors="surrogateescape")):
            yield quoted
            yield _ESCAPED.sub(lambda found: found[0].lower(), quoted)
        yield quote_plus(each, errors="surrogateescape")


class LineFormatter(logging.Formatter):
    """One line per record, in UTC, with the attempt that it is about.

    `text`: `2026-11-21T03:12:05.120Z WARNING orchestrator.controller [run_3 run_3-a1-5e1f]: message`. What follows a
    line break, a traceback or somebody's message, is indented: no line can pass for another record. Control characters
    and other separators of lines are escaped, in both forms: no message commands a terminal.
    `json`: an object per line with time, level, logger, message, attempt_id, run_id, pid, and exc_info, the
    traceback, where there is one.

    Args:
        log_format: `text` or `json`.
        secrets: never written, whatever a message holds; see `hide`. More may be added to it later.
    """

    def __init__(self, log_format: LogFormat, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._is_json = log_format == "json"
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`. A record's own `attempt_id` and `run_id` (`extra=`) go before `about_attempt`'s."""
        attempt_id, run_id = _attempt.get() or (None, None)
        attempt_id = getattr(record, "attempt_id", attempt_id)
        run_id = getattr(record, "run_id", run_id)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = hide(record.getMessage(), self._secrets)
        trace = None
        if record.exc_info:
            trace = hide("".join(traceback.format_exception(*record.exc_info)).rstrip(), self._secrets)
        if self._is_json:
            line = {
                "time": at,
                "level": record.levelname,
                "logger": record.name,
                "message": message,
                "attempt_id": attempt_id,
                "run_id": run_id,
                "pid": record.process,
            }
            if trace is not None:
                line["exc_info"] = trace
            return _UNSEEN.sub(
                lambda found: f"\\u{ord(found[0]):04x}", json.dumps(line, ensure_ascii=False, default=str)
            )
        about = " ".join(each for each in (run_id, attempt_id) if each)
        text = f"{at} {record.levelname} {record.name}{f' [{about}]' if about else ''}: {message}"
        if trace is not None:
            text += f"\n{trace}"
        return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text).replace("\n", "\n    ")

"""Log lines of both nodes, in one form: an attempt is followed through both logs by its id."""

import json
import logging
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")

_LEAST_SECRET_CHARACTERS = 8
_HIDDEN = "[hidden]"
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "CREDENTIAL")

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
    """Values of the environment that are secrets by their variable's name, such as HF_TOKEN's."""
    return [value for name, value in environment.items() if any(word in name.upper() for word in _SECRET_WORDS)]


def hide(text: str, secrets: Collection[str]) -> str:
    """The text without the secrets that are in it.

    Args:
        text: any.
        secrets: values. Those of fewer than 8 characters are left: they would be found inside innocent words.
    """
    for secret in secrets:
        if len(secret) >= _LEAST_SECRET_CHARACTERS:
            text = text.replace(secret, _HIDDEN)
    return text


class LineFormatter(logging.Formatter):
    """One line per record, in UTC, with the attempt that it is about.

    `text`: `2026-11-21T03:12:05.120Z WARNING orchestrator.controller [run_3 run_3-a1-5e1f]: message`. What follows a
    line break, a traceback or somebody's message, is indented: no line can pass for another record.
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
            return json.dumps(line, ensure_ascii=False, default=str)
        about = " ".join(each for each in (run_id, attempt_id) if each)
        text = f"{at} {record.levelname} {record.name}{f' [{about}]' if about else ''}: {message}"
        if trace is not None:
            text += f"\n{trace}"
        return text.replace("\r", "\\r").replace("\n", "\n    ")

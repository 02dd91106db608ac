"""A pool of testbeds as a file, or as repeated options: where they are, and what they are called.

[[testbed]]
url = "http://gpu-1:8765"
token_file = "gpu-1.token"    # beside this file; else --token-file, else JOULEBED_TOKEN
name = "gpu-1"                # in the results; else host:port
hardware = "a100"             # only where `hardware` is a factor of the design: which level this testbed is
"""

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contract.errors import ConfigError
from orchestrator.clients.testbed_url import check_testbed_url

TABLE = "testbed"
RAY_SCHEME = "ray:"
"""Beginning of what stands where a testbed's URL does for one of a Ray cluster; its actor's name follows."""

_KEYS = ("url", "token_file", "name", "hardware")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class PoolEntry:
    """One testbed of a pool.

    Attributes:
        url: where it is.
        token_file: holds its token; None: the command's own.
        name: in the run table; empty: host and port.
        hardware: its level of the factor `hardware`; empty: none.
    """

    url: str
    token_file: Path | None = None
    name: str = ""
    hardware: str = ""

    @property
    def told(self) -> str:
        """Its name, else host and port: two machines may share a hostname, and one may be away when it is asked."""
        return self.name or urlsplit(self.url).netloc.rpartition("@")[2] or self.url


def is_of_ray(url: str) -> bool:
    """Whether a testbed is of a Ray cluster: it has no address of its own."""
    return url.startswith(RAY_SCHEME) and not url.startswith(f"{RAY_SCHEME}//")


def entries_of(urls: Sequence[str], pool: Path | None) -> list[PoolEntry]:
    """What `--testbed` and `--pool` name.

    Raises:
        ConfigError: the file cannot be read, has an unknown key or a wrong value, or a testbed is named twice, or its
            URL is none or holds a secret.
    """
    for url in urls:
        if is_of_ray(url):
            raise ConfigError(
                f"{url} is a testbed of a Ray cluster, which has no address of its own. `orchestrator run --ray "
                "ADDRESS` drives all of the cluster; what is the matter with one, `ray status` and `ray list actors` "
                "tell there."
            )
        check_testbed_url(url)
    entries = [PoolEntry(url) for url in urls] + (read_pool(pool) if pool is not None else [])
    urls_of, names = Counter(each.url.rstrip("/") for each in entries), Counter(each.told for each in entries)
    for what, counted in (("url", urls_of), ("name", names)):
        twice = next((each for each, n in counted.items() if n > 1), None)
        if twice is not None:
            raise ConfigError(f"Two testbeds of the pool have the {what} {twice!r}. Remove one, or mend it.")
    return entries


def read_pool(path: Path) -> list[PoolEntry]:
    """The testbeds of a pool file.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong; names the key and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The pool file {path} cannot be read ({error}). Give a TOML file of testbeds.") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The pool file {path} is no TOML: {error}. Mend it there.") from error
    for key in document:
        if key != TABLE:
            raise _wrong(path, text, key, None, f"is unknown. A pool is a list of [[{TABLE}]] tables")
    tables = document.get(TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _wrong(path, text, TABLE, None, f"is no list of tables. Begin each testbed with [[{TABLE}]]")
    if not tables:
        raise ConfigError(f"The pool file {path} names no testbed. Give at least one [[{TABLE}]] with a url.")
    return [_entry(path, text, number, table) for number, table in enumerate(tables)]


def _entry(path: Path, text: str, number: int, table: dict[str, Any]) -> PoolEntry:
    for key, value in table.items():
        if key not in _KEYS:
            raise _wrong(path, text, key, number, f"is unknown. Choose from: {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.strip():
            raise _wrong(path, text, key, number, f"is {value!r}. Give it a text that is not empty")
    if "url" not in table:
        line = _line(text, None, number)
        raise ConfigError(f"{path}, line {line}: this testbed has no `url`. Give it one, such as http://gpu-box:8765.")
    url = table["url"].strip()
    try:
        check_testbed_url(url)
    except ConfigError as error:
        raise ConfigError(f"{path}, line {_line(text, 'url', number)}: {error.message} Nothing was run.") from error
    for key in ("name", "hardware"):
        if key in table and not _NAME.fullmatch(table[key]):
            raise _wrong(path, text, key, number, f"is {table[key]!r}. Use letters, digits, '.', '_' and '-'")
    token_file = path.parent / table["token_file"] if "token_file" in table else None
    return PoolEntry(url, token_file, table.get("name", ""), table.get("hardware", ""))


def _wrong(path: Path, text: str, key: str, number: int | None, what: str) -> ConfigError:
    return ConfigError(f"{path}, line {_line(text, key, number)}: `{key}` {what}. Nothing was run.")


def _line(text: str, key: str | None, number: int | None) -> str:
    """Where a key of the n-th testbed is; without a key, where the testbed begins. `?` where it cannot be told."""
    begun = -1
    for line, content in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[\[\s*{TABLE}\s*\]\]", content):
            begun += 1
            if key is None and begun == number:
                return str(line)
        is_here = number is None or begun == number
        if key is not None and is_here and re.match(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\].]", content):
            return str(line)
    return "?"

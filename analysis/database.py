"""A run table in a database server, read over SQLAlchemy."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.run_table import TABLES
from contract.database_address import is_secret_option
from contract.errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

_CHOICE = "experiment"
"""Part of the address after `?` that chooses among several experiments."""

_SCHEMAS = """
SELECT table_schema FROM information_schema.tables WHERE table_name IN ('experiment', 'run', 'attempt', 'fact')
GROUP BY table_schema HAVING COUNT(*) = 4 ORDER BY table_schema
"""


def sqlite_path(url: str) -> Path | None:
    """The file that an address of SQLite means; None where it is another database's.

    Raises:
        UsageError: it is no database's address, or of a kind that holds no run table.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database:
            raise UsageError(
                f"{_shown(parsed)} names no file. Give sqlite:///PATH/run_table.sqlite, or the path alone."
            )
        return Path(parsed.database)
    if parsed.get_backend_name() != "postgresql":
        raise UsageError(f"{_shown(parsed)} is neither SQLite nor PostgreSQL, which run tables are kept in.")
    return None


def read_database(url: str) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """Read a run table from PostgreSQL, as of one moment.

    A database holds one experiment; several share it where each has a schema of its own.

    Args:
        url: `postgresql+psycopg://user@host/name`; `?experiment=NAME` chooses among several.

    Returns:
        The address without its password, and name of a table -> its rows.

    Raises:
        UsageError: it cannot be reached, holds no run table, or several and none was chosen.
        MissingPackageError: no driver.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    parsed = _parsed(url)
    chosen = parsed.query.get(_CHOICE)
    parsed = parsed.difference_update_query([_CHOICE])
    shown = _shown(parsed)
    try:
        # One snapshot over all tables, and no lock that a campaign could feel.
        engine = create_engine(parsed, isolation_level="REPEATABLE READ")
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise MissingPackageError(
            f"No driver for {parsed.drivername}: pip install 'psycopg[binary]', and begin the address with "
            f"postgresql+psycopg://. ({error})"
        ) from error
    try:
        with engine.connect() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            schema = _schema(connection, shown, chosen if isinstance(chosen, str) else None)
            quoted = engine.dialect.identifier_preparer.quote_identifier(schema)
            connection.execute(text(f"SET LOCAL search_path TO {quoted}"))
            tables = {
                name: [dict(row) for row in connection.execute(text(statement)).mappings()]
                for name, statement in TABLES.items()
            }
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise UsageError(
            f"{shown} cannot be read as a run table ({reason}). Check host, user and name, and that the server runs; "
            f"a password may stand in PGPASSWORD."
        ) from error
    finally:
        engine.dispose()
    return shown, tables


def _parsed(url: str) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            "This is no database's address. Give postgresql+psycopg://user@host/name, sqlite:///PATH, or a folder."
        ) from error


def _shown(url: "URL") -> str:
    """The address as it may be told and kept with the results."""
    secret = [name for name in url.query if is_secret_option(name)]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def _schema(connection: "Connection", shown: str, chosen: str | None) -> str:
    """The schema of the experiment that is meant."""
    from sqlalchemy import text

    quote = connection.dialect.identifier_preparer.quote_identifier
    found: list[tuple[str, str]] = []
    for schema in connection.execute(text(_SCHEMAS)).scalars().all():
        names = connection.execute(text(f"SELECT name FROM {quote(schema)}.experiment")).scalars().all()
        found.append((schema, str(names[0]) if names else ""))
    if not found:
        raise UsageError(f"{shown} holds no run table. Give the database that `orchestrator run` has written.")
    matching = [schema for schema, name in found if chosen is None or name == chosen]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(sorted(name for _, name in found if name)) or "none, all run tables are empty"
    if chosen is not None and not matching:
        raise UsageError(f"{shown} has no experiment {chosen!r}. There is: {names}.")
    raise UsageError(f"{shown} holds {len(found)} experiments: choose one with ?{_CHOICE}=NAME. There is: {names}.")

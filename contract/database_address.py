"""What of a database's address is a secret: the rooms that take one tell it to people, and write it down."""

_SECRET = ("pass", "pwd", "secret", "token", "credential", "scram", "conninfo", "dsn")
"""Parts of names. The last two take a whole address of their own, with whatever is in it."""

_PATHS = ("passfile",)
"""Names of files, which may be shown."""


def is_secret_option(name: str) -> bool:
    """Whether the value of an option of a database's address must not be shown.

    Args:
        name: what stands between `?` or `&` and `=`, such as `password` or `sslmode`.
    """
    lower = name.lower()
    return lower not in _PATHS and any(part in lower for part in _SECRET)

"""A testbed's URL is told in messages, kept with the results and shown by `ps`: no secret may be in it."""

from urllib.parse import unquote, urlsplit

from contract.errors import ConfigError

_EXAMPLE = "Give one like http://gpu-box:8765."


def check_testbed_url(url: str) -> None:
    """See that what somebody gave as a testbed's URL is one, and may be told.

    Raises:
        ConfigError: it is none, or a secret may be in it; then it is not repeated.
    """
    # Before it is taken apart: where the rest of it is wrong, too, a password would be told with that.
    if any(sign in unquote(url) for sign in "@?#"):
        raise ConfigError(
            "A URL holds no secrets: that of a testbed has no user, password, `?` or `#`. Put the token in "
            "JOULEBED_TOKEN or in a file (--token-file)."
        )
    if url.split() != [url]:
        raise ConfigError(f"The URL of a testbed is empty, or has blanks in it. {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Nor here: of USER:PASSWORD without a host, the password is what stands in the port's place.
        raise ConfigError(f"The URL of a testbed cannot be read: its host or port is none. {_EXAMPLE}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not the URL of a testbed. {_EXAMPLE}")

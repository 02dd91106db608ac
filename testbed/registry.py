"""Name -> implementation, loaded only when it is wanted."""

import importlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from contract.errors import MissingPackageError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where an implementation lives.

    Attributes:
        target: `module:attribute`, a factory that takes the implementation's own options.
        extra: the extra of this distribution that installs what it needs, or None.
    """

    target: str
    extra: str | None = None


class Registry(Generic[T]):
    """The implementations behind one seam.

    Args:
        seam: what they are, for messages: `engine`, `meter`, `workload`.
        entries: name -> where it lives.
    """

    def __init__(self, seam: str, entries: dict[str, Entry]) -> None:
        self.seam = seam
        self._entries = entries

    @property
    def names(self) -> list[str]:
        """All names, available here or not."""
        return list(self._entries)

    def create(self, name: str, /, **options: Any) -> T:
        """Import and build an implementation.

        Raises:
            UnknownNameError: no such name.
            MissingPackageError: a package it needs is not installed; the message names the extra.
        """
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(self.names)
            raise UnknownNameError(f"There is no {self.seam} named {name!r}. Choose one of: {known}.", name=name)
        module_name, _, attribute = entry.target.partition(":")
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            if entry.extra is None:
                raise
            raise MissingPackageError(
                f"The {self.seam} {name!r} needs the package {error.name!r}. On the testbed, run: "
                f"pip install 'joulebed[{entry.extra}]'",
                name=name,
                extra=entry.extra,
            ) from error
        return cast(T, factory(**options))

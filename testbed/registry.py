"""Name -> implementation, loaded only when it is wanted."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Generic, TypeVar, cast

from contract.errors import InvalidOptionError, MissingPackageError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where an implementation lives.

    Attributes:
        target: `module:attribute`, a factory that takes the implementation's own options.
        extra: the extra of this distribution that installs what it needs, or None.
        module: top-level module that must be there; looked for, not imported.
        options: what a spec may set; None: all but the factory's named arguments, and the factory refuses the rest.
    """

    target: str
    extra: str | None = None
    module: str | None = None
    options: tuple[str, ...] | None = None


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

    def missing(self, name: str) -> str | None:
        """Which package is not here, and how to mend it; None when nothing is missing. Imports nothing."""
        entry = self._entries[name]
        if entry.module is None or find_spec(entry.module) is not None:
            return None
        return self._advice(name, entry.module, entry.extra)

    def _advice(self, name: str, module: str | None, extra: str | None) -> str:
        return (
            f"The {self.seam} {name!r} needs the package {module!r}. On the testbed, run: "
            f"pip install 'joulebed[{extra}]'"
        )

    def create_from_spec(self, name: str, options: Mapping[str, Any], /, **own: Any) -> T:
        """Import and build an implementation with options that came over the network.

        Programs, folders and device roots are this machine's to choose: a spec cannot name them.

        Args:
            name: of the implementation.
            options: from the spec.
            own: what this machine adds.

        Raises:
            InvalidOptionError: an option that a spec cannot set.
            UnknownNameError: see `create`.
            MissingPackageError: see `create`.
        """
        entry, factory = self._find(name)
        if entry.options is None:
            kinds = inspect.signature(factory).parameters.values()
            refused = set(options) & {each.name for each in kinds if each.kind is not inspect.Parameter.VAR_KEYWORD}
        else:
            refused = set(options) - set(entry.options)
        if refused:
            known = f" Known options: {', '.join(entry.options) or 'none'}." if entry.options is not None else ""
            raise InvalidOptionError(
                f"{self.seam.capitalize()} {name!r}: there is no option {sorted(refused)[0]!r}.{known} "
                f"Change {self.seam}.options of the trial.",
                name=name,
            )
        return cast(T, factory(**own, **options))

    def create(self, name: str, /, **options: Any) -> T:
        """Import and build an implementation.

        Raises:
            UnknownNameError: no such name.
            MissingPackageError: a package it needs is not installed; the message names the extra.
        """
        _, factory = self._find(name)
        return cast(T, factory(**options))

    def _find(self, name: str) -> tuple[Entry, Callable[..., Any]]:
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(self.names)
            raise UnknownNameError(f"There is no {self.seam} named {name!r}. Choose one of: {known}.", name=name)
        missing = self.missing(name)
        if missing is not None:
            raise MissingPackageError(missing, name=name, extra=entry.extra)
        module_name, _, attribute = entry.target.partition(":")
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            if entry.extra is None:
                raise
            advice = self._advice(name, error.name, entry.extra)
            raise MissingPackageError(advice, name=name, extra=entry.extra) from error
        return entry, factory

"""Which models a request may make this testbed load."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from contract.errors import ModelNotAllowedError
from contract.trial_spec import ModelSpec

DEFAULT = ("package:*", "hf:*", "fake:*")
"""Installed packages and the hub's safetensors. A path names any file of this machine: it has to be allowed."""

EVERYTHING = ("*",)


@dataclass(frozen=True)
class ModelPolicy:
    """An allow-list.

    Attributes:
        patterns: of sources, `*` and `?` as in a shell; `path:/models` allows all that lies in the folder, wherever
            links and dots in a request lead.
        given_by: what allows a model stands behind it, quoted, in messages.
    """

    patterns: Sequence[str] = DEFAULT
    given_by: str = "testbed serve --allow-model "

    def check(self, model: ModelSpec) -> None:
        """Refuse a model that is not on the list.

        Raises:
            ModelNotAllowedError: says how to allow it.
        """
        if not any(_allows(pattern, model.source) for pattern in self.patterns):
            allow = f"{self.given_by}'{_suggestion(model.source)}'"
            raise ModelNotAllowedError(
                f"This testbed may not load {model.source!r}. Its administrator allows it with `{allow}`; allowed now: "
                f"{', '.join(self.patterns)}.",
                source=model.source,
            )


def _allows(pattern: str, source: str) -> bool:
    if pattern == "*":
        return True
    scheme, _, path = source.partition(":")
    kind, _, allowed = pattern.partition(":")
    if scheme == kind == "path":
        # Compared where they really lead: `/models/../etc/passwd` is not in /models.
        return _is_in(Path(path), Path(allowed.removesuffix("/*")))
    return fnmatchcase(source, pattern)


def _is_in(path: Path, folder: Path) -> bool:
    try:
        return path.is_absolute() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links; a name with a null byte
        return False


def _suggestion(source: str) -> str:
    scheme, _, path = source.partition(":")
    return f"path:{Path(path).parent}" if scheme == "path" and "\0" not in path else source

"""What comes up while tests are made: warnings, methods, and tests that the data do not carry."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from contract.errors import UsageError

T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Found:
    """Collects as the tests go.

    Attributes:
        warnings: of the tests, in words.
        refusals: why a test was not made.
        methods: of the tests that were made.
    """

    warnings: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    def attempt(self, test: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The test's result; None where the data do not carry it, with the reason kept."""
        try:
            result = test(*args, **kwargs)
        except UsageError as error:
            self.refusals.append(error.message)
            return None
        self.warnings += getattr(result, "warnings", ())
        method = getattr(result, "method", "")
        self.methods += [method] if method else []
        return result

"""Names become implementations, or an error that says what to install or which names there are."""

import pytest

from contract.errors import MissingPackageError, UnknownNameError
from testbed.registry import Entry, Registry

PARTS: Registry[object] = Registry(
    "part",
    {
        "here": Entry("fractions:Fraction"),
        "away": Entry("fractions:Fraction", extra="away-extra", module="no_such_module_anywhere"),
        "deep": Entry("no_such_module_anywhere:Thing", extra="deep-extra"),
        "broken": Entry("no_such_module_anywhere:Thing"),
    },
)


def test_options_go_to_the_factory() -> None:
    assert PARTS.create("here", numerator=1, denominator=2) == PARTS.create("here", numerator=2, denominator=4)


@pytest.mark.parametrize(("name", "extra"), [("away", "away-extra"), ("deep", "deep-extra")])
def test_a_missing_package_names_its_extra(name: str, extra: str) -> None:
    with pytest.raises(MissingPackageError, match=f"no_such_module_anywhere.*{extra}"):
        PARTS.create(name)


def test_what_is_missing_is_told_without_importing() -> None:
    assert PARTS.missing("here") is None
    assert "away-extra" in (PARTS.missing("away") or "")


def test_a_fault_of_our_own_is_not_called_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        PARTS.create("broken")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="here, away, deep, broken"):
        PARTS.create("hear")

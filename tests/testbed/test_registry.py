"""Names become implementations, or an error that says what to install or which names there are."""

from typing import Any

import pytest

from contract.errors import InvalidOptionError, MissingPackageError, UnknownNameError
from testbed.engines.registry import ENGINES
from testbed.meters.registry import METERS
from testbed.registry import Entry, Registry
from testbed.workloads.registry import WORKLOADS

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


@pytest.mark.parametrize(
    ("registry", "name", "option"),
    [
        (METERS, "energibridge", "program"),
        (METERS, "rapl", "root"),
        (METERS, "jetson", "hwmon"),
        (METERS, "estimate", "busy_s"),
        (METERS, "fake", "clock"),
        (ENGINES, "fake", "clock"),
        (ENGINES, "vllm", "cache"),
        (ENGINES, "transformers", "cache"),
        (WORKLOADS, "superglue", "folder"),
        (WORKLOADS, "superglue", "environ"),
    ],
)
def test_a_spec_names_no_program_and_no_path(registry: Registry[Any], name: str, option: str) -> None:
    if registry.missing(name):
        pytest.skip(f"{name} is not installed")
    with pytest.raises(InvalidOptionError, match=f"no option '{option}'"):
        registry.create_from_spec(name, {option: "/bin/sh"})


def test_what_a_spec_may_set_arrives() -> None:
    assert METERS.create_from_spec("fake", {"power_w": 7.0}, period_s=0.1).probe().available

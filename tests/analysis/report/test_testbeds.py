"""What the report says of the testbeds of a pool, and that it says nothing of a single one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import main


@pytest.fixture
def report(write_experiment: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """The report as text, of two treatments x 12 on testbeds; the second of them measures `factor` as much."""

    def make(names: list[str], factor: float = 1.0, *, apart: bool = False) -> str:
        table = write_experiment("pool", {"task": ["BoolQ", "COPA"]}, 12)

        def is_second(treatment: dict[str, Any], repetition: int) -> bool:
            return treatment["task"] == "COPA" if apart else repetition % 2 == 1

        def measured(treatment: dict[str, Any], repetition: int) -> dict[str, Any]:
            base = 100.0 if treatment["task"] == "BoolQ" else 500.0
            noise = 1 + 0.01 * ((repetition // 2 * 7) % 5)
            return {"energy_j": base * noise * (factor if is_second(treatment, repetition) else 1.0)}

        table.succeed_all(measured)
        for i, treatment in enumerate(table.treatments):
            for repetition in range(12):
                name = names[int(is_second(treatment, repetition)) % len(names)]
                table.execute(
                    "UPDATE attempt SET testbed = ? WHERE run_id = ?", (name, f"run_{i}_repetition_{repetition}")
                )
        out = tmp_path / "report.md"
        assert main(["report", str(table.folder), "--md", str(out)]) == 0
        return re.sub(r"\s+", " ", out.read_text())

    return make


def test_a_difference_is_told_and_warned_of(report: Callable[..., str]) -> None:
    text = report(["box-a", "box-b"], 1.1)
    assert "## Testbeds" in text
    assert "The testbeds differ (p" in text
    assert "box-b measured 10.0 % more than box-a" in text
    assert "Permutation test of testbed on log(energy_j) within treatments" in text


def test_alike_testbeds_are_told_and_not_warned_of(report: Callable[..., str]) -> None:
    text = report(["box-a", "box-b"])
    assert "No difference between the testbeds can be detected: p = " in text
    assert "The testbeds differ" not in text


def test_treatments_on_testbeds_of_their_own_are_doubted(report: Callable[..., str]) -> None:
    text = report(["box-a", "box-b"], apart=True)
    assert "cannot be told from what is the treatment's" in text


def test_nothing_is_said_of_one_testbed(report: Callable[..., str]) -> None:
    assert "estbeds" not in report(["box-a"])

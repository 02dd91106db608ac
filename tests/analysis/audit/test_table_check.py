"""Every mistake that a table is known for is found in a campaign of known watts, and named."""

from pathlib import Path

import pytest

from analysis.audit.audit import Audit, audit_folder
from analysis.audit.table_check import CellCheck, expected_of, unit_j
from tests.analysis.audit.campaign import WRAP_J, Campaign

CPU_W, GPU_W, PROMPTS_S, WHOLE_S = 50.0, 300.0, 100, 112
CPU_J, GPU_J = CPU_W * PROMPTS_S, GPU_W * PROMPTS_S
WHOLE_CPU_J, WHOLE_GPU_J = CPU_W * WHOLE_S, GPU_W * WHOLE_S
WRAPPING_J = WRAP_J - 2000


def cell(audit: Audit, column: str, run: int = 0) -> CellCheck:
    (check,) = [each for each in audit.columns if each.column == column]
    return next(each for each in check.cells if each.run_id == f"run_{run}_repetition_0")


def audit_of(folder: Path, column: str, text: str, *, counter_start_j: float = 1000.0) -> CellCheck:
    campaign = Campaign(folder)
    campaign.add_run(0, 0, cells={column: text}, counter_start_j=counter_start_j)
    campaign.write_table()
    return cell(audit_folder(folder), column)


@pytest.mark.parametrize(
    ("column", "value_j", "start_j", "cause", "scope"),
    [
        ("energy", CPU_J + GPU_J, 1000, "right", "window"),
        ("energy", WHOLE_CPU_J + WHOLE_GPU_J, 1000, "right", "whole"),
        ("cpu_joules", CPU_J, 1000, "right", "window"),
        ("cpu_joules", CPU_J, WRAPPING_J, "right", "window"),
        ("gpu_energy_j", GPU_J, 1000, "right", "window"),
        ("energy", CPU_J, 1000, "cpu_only", "window"),
        ("energy", WHOLE_CPU_J - 10, 1000, "cpu_only", "whole"),
        ("energy", GPU_J, 1000, "gpu_only", "window"),
        ("energy_total", 2 * CPU_J + GPU_J, 1000, "cpu_twice", "window"),
        ("energy_total", 2 * WHOLE_CPU_J + WHOLE_GPU_J, 1000, "cpu_twice", "whole"),
        ("gpu_joules", CPU_J + GPU_J, 1000, "cpu_in_gpu", "window"),
        ("cpu_joules", CPU_J + GPU_J, 1000, "gpu_in_cpu", "window"),
        ("energy", WRAP_J - WHOLE_CPU_J, WRAPPING_J, "lost_sign", "whole"),
        ("energy", WHOLE_CPU_J - WRAP_J, WRAPPING_J, "negative", "whole"),
        ("energy", WRAP_J - WHOLE_CPU_J + WHOLE_GPU_J, WRAPPING_J, "lost_sign", "whole"),
        ("energy", 123_456.7, 1000, "unknown", ""),
        ("energy_kj", (CPU_J + GPU_J) / 1000, 1000, "right", "window"),
        ("energy", (CPU_J + GPU_J) / 3600, 1000, "unit", "window"),
        ("energy", (CPU_J + GPU_J) / 1000, 1000, "unit", "window"),
        ("energy", (CPU_J + GPU_J) * 100, 1000, "decimal_comma", "window"),
    ],
)
def test_cause(tmp_path: Path, column: str, value_j: float, start_j: float, cause: str, scope: str) -> None:
    found = audit_of(tmp_path, column, repr(value_j), counter_start_j=start_j)
    assert (found.cause, found.scope) == (cause, scope)
    assert found.verdict == ("right" if cause == "right" else "wrong")


def test_the_factor_is_against_the_prompts(tmp_path: Path) -> None:
    found = audit_of(tmp_path, "energy", repr(2 * CPU_J + GPU_J))
    assert found.factor == pytest.approx((2 * CPU_J + GPU_J) / (CPU_J + GPU_J), rel=1e-4)
    assert found.truth == pytest.approx(CPU_J + GPU_J, rel=1e-4)


def test_a_decimal_comma_is_text(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, cells={"energy": "35000,25", "time(s)": "100,02"})
    campaign.write_table(separator=";")
    audit = audit_folder(tmp_path)
    for column in ("energy", "time(s)"):
        found = cell(audit, column)
        assert found.cause == "decimal_comma"
        assert "100 times" in found.note


def test_a_copy_of_another_runs_figure_is_a_stale_file(tmp_path: Path) -> None:
    # Repetitions are within a percent of each other: only being exact tells whose figure it is.
    campaign = Campaign(tmp_path)
    powers_w = [300.0, 300.5, 301.0, 301.5]
    for repetition, gpu_w in enumerate(powers_w):
        own = gpu_w if repetition != 2 else powers_w[1]
        # One more half milliwatt on average: the readings of the test flicker.
        value_j = (CPU_W + own + 0.0005) * PROMPTS_S
        campaign.add_run(0, repetition, gpu_w=gpu_w, cells={"energy": repr(value_j)})
    campaign.write_table()
    (check,) = audit_folder(tmp_path).columns
    assert [each.cause for each in check.cells] == ["right", "right", "stale_file", "right"]
    assert "run_0_repetition_1" in check.cells[2].note


def test_a_lost_sign_is_told_without_the_log(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    for repetition in range(3):
        campaign.add_run(0, repetition, cells={"energy": repr(WHOLE_CPU_J)})
    campaign.add_row(0, 3, energy=repr(WRAP_J - WHOLE_CPU_J))
    campaign.add_row(0, 4, energy=repr(WHOLE_CPU_J))
    campaign.write_table()
    (check,) = audit_folder(tmp_path).columns
    assert [each.verdict for each in check.cells] == ["wrong", "wrong", "wrong", "wrong", "unchecked"]
    assert check.cells[3].cause == "lost_sign"
    assert "262144" in check.cells[3].note
    assert "1 have no log" in check.sentence()


def test_the_duration_of_the_whole_log_is_told_from_that_of_the_prompts(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, cells={"duration_ms": "100000", "runtime": "112", "elapsed_s": "10000", "energy": "35000"})
    campaign.write_table()
    audit = audit_folder(tmp_path)
    assert [(cell(audit, name).cause, cell(audit, name).scope) for name in ("duration_ms", "runtime")] == [
        ("right", "window"),
        ("right", "whole"),
    ]
    assert cell(audit, "elapsed_s").cause == "decimal_comma"


def test_a_machine_without_gpu_has_no_missing_gpu(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, gpu=False, cells={"energy": repr(CPU_J), "gpu_energy": "7.0"})
    campaign.write_table()
    audit = audit_folder(tmp_path)
    assert cell(audit, "energy").cause == "right"
    # Nothing to hold it against: no verdict, rather than a wrong one.
    assert cell(audit, "gpu_energy").verdict == "unchecked"


def test_cells_without_a_number_and_rows_without_a_log_are_unchecked(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, cells={"energy": repr(CPU_J + GPU_J)})
    campaign.add_row(1, 0, energy=" ")
    campaign.add_row(2, 0, energy="35000")
    campaign.write_table()
    (check,) = audit_folder(tmp_path).columns
    assert [each.verdict for each in check.cells] == ["right", "unchecked", "unchecked"]
    assert [each.note for each in check.cells[1:]] == ["no number", "no log"]


@pytest.mark.parametrize(
    ("column", "expected", "unit"),
    [
        ("energy", "total", 1.0),
        ("energy_consumption_total_joules", "total", 1.0),
        ("GPU energy (kWh)", "gpu", 3.6e6),
        ("package_energy_mj", "cpu", 1e-3),
        ("dram_j", "dram", 1.0),
    ],
)
def test_a_column_says_what_it_holds(column: str, expected: str, unit: float) -> None:
    assert (expected_of(column), unit_j(column)) == (expected, unit)

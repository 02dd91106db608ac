"""The audit on the public study, and its published columns reproduced."""

import csv
import io
from pathlib import Path

import pytest

from analysis.audit.audit import Audit, audit_folder
from analysis.cli import main
from analysis.experiment_runner import read_run_table

GREENLAB = Path(__file__).resolve().parents[4] / "shared" / "data" / "greenlab"
COLUMNS = ("duration_ms", "cpu_joules", "gpu_joules", "energy_consumption_total_joules")

pytestmark = pytest.mark.skipif(not GREENLAB.exists(), reason=f"the public study is not at {GREENLAB}")


@pytest.fixture(scope="module")
def audit() -> Audit:
    return audit_folder(GREENLAB)


def causes(audit: Audit, table: str, column: str) -> dict[str, int]:
    (check,) = [each for each in audit.columns if (each.table.name, each.column) == (table, column)]
    counts: dict[str, int] = {}
    for (cause, _), cells in check.by_cause().items():
        counts[cause] = counts.get(cause, 0) + len(cells)
    return counts


def test_every_run_is_read(audit: Audit) -> None:
    assert len(audit.runs) == 60
    assert all(run.window and run.window.total_j and not run.problem for run in audit.runs)


def test_the_causes_of_wrong_columns(audit: Audit) -> None:
    # 29 of the 900 rows hold a wrapped counter; one of them is among the 60 with a log.
    assert causes(audit, "run_table.csv", "energy") == {"cpu_only": 59, "lost_sign": 29}
    assert causes(audit, "run_table_edited.csv", "energy") == {"cpu_twice": 60}
    assert causes(audit, "run_table_edited.csv", "time(s)") == {"decimal_comma": 900}
    assert causes(audit, "run_table_raw.csv", "cpu_joules") == {"right": 60}
    assert causes(audit, "run_table_raw.csv", "gpu_joules") == {"cpu_in_gpu": 60}
    assert causes(audit, "run_table_raw.csv", "energy_consumption_total_joules") == {"cpu_twice": 60}
    assert causes(audit, "run_table_raw.csv", "duration_ms") == {"right": 60}


def test_the_factors_of_wrong_columns(audit: Audit) -> None:
    (check,) = [each for each in audit.columns if each.column == "energy_consumption_total_joules"]
    factors = [cell.factor for cell in check.cells if cell.factor]
    assert min(factors) > 1.14 and max(factors) < 1.20


def test_outputs_repeat_and_follow_the_date(audit: Audit) -> None:
    known = audit.repetitions.treatments
    assert sum(each.is_identical for each in known) == 22
    # Llama 3.2's chat template prints today's date; no other model's does.
    assert {each.treatment.split(" / ")[0] for each in known if each.follows_date} == {"3.2"}


def test_start_temperature_follows_the_previous_model(audit: Audit) -> None:
    by_factor = {each.factor: each for each in audit.thermal.previous}
    means = by_factor["model_size"].mean_temp_c
    assert means["1B"] < min(means["7B"], means["8B"])
    assert by_factor["model_size"].p_value < 0.05


def test_the_published_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(GREENLAB), "--recipe", "published"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    table = read_run_table(GREENLAB / "published" / "run_table_raw.csv")
    published = dict(zip(table.run_ids, table.rows, strict=True))
    assert len(rows) == 60
    for row in rows:
        for name in COLUMNS:
            assert float(row[name]) == pytest.approx(float(published[row["__run_id"]][name]), rel=1e-9), row["__run_id"]

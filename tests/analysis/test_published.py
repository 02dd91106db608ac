"""Every number of the public study's tables, from its run table; and what is wrong with them."""

import re
from pathlib import Path

import polars as pl
import pytest

from analysis.inference.aligned_rank import art_anova
from analysis.inference.independence import identical_outputs
from analysis.published import at_level, dunn_table, load_study, recompute
from analysis.published_check import check_tables, compare, per_task_corrected, published_report
from contract.errors import UsageError

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "greenlab" / "published"
study = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the public study's tables are not here")

N_CELLS = {
    "RQ1.1/RQ1.1_Summary.csv": 3,
    "RQ1.1/RQ1.1_Descriptive_Summary.csv": 28,
    "RQ1.1/RQ1.1_Omnibus_Kruskal_Wallis_Energy_Test.csv": 4,
    "RQ1.1/RQ1.1_Pairwise_Dunn_Successive_Energy_Comparisons.csv": 9,
    "RQ2/RQ2_Summary.csv": 3,
    "RQ2/RQ2_Descriptive_Summary.csv": 168,
    "RQ2/RQ2_Omnibus_ART_Mixed_Model.csv": 12,
    "RQ2/RQ2_Successive_Pairwise_Main.csv": 15,
    "RQ2/RQ2_Successive_Pairwise_Per_Task.csv": 540,
    "RQ3.1/RQ3.1_Summary.csv": 3,
    "RQ3.1/RQ3.1_Descriptive_Summary.csv": 28,
    "RQ3.1/RQ3.1_Energy_Token_Count_Spearman_Coupling.csv": 12,
    "RQ3.1/RQ3.1_Omnibus_ART_Efficiency.csv": 4,
    "RQ3.1/RQ3.1_Successive_Pairwise_Efficiency.csv": 15,
}


@pytest.fixture(scope="module")
def runs() -> pl.DataFrame:
    return load_study(PUBLISHED)


@pytest.fixture(scope="module")
def tables(runs: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return recompute(runs)


@study
@pytest.mark.parametrize("name", N_CELLS)
def test_every_cell_to_three_decimals(name: str, tables: dict[str, pl.DataFrame]) -> None:
    cells = check_tables(PUBLISHED, {name: tables[name]})[name]
    assert [cell for cell in cells if not cell.equal] == []
    assert len(cells) == N_CELLS[name]


@study
def test_no_table_of_the_folder_is_left_out(tables: dict[str, pl.DataFrame]) -> None:
    known = ("RQ1.1", "RQ2", "RQ3.1")
    assert {f"{path.parent.name}/{path.name}" for part in known for path in (PUBLISHED / part).glob("*.csv")} == set(
        tables
    )


@study
def test_the_check_can_fail(runs: pl.DataFrame, tables: dict[str, pl.DataFrame]) -> None:
    """Rows instead of treatment means, no adjustment, the CPU once: each is told from the published recipe."""
    name = "RQ1.1/RQ1.1_Pairwise_Dunn_Successive_Energy_Comparisons.csv"
    means = at_level(runs, "energy_j", "treatment")
    for other in (
        dunn_table(at_level(runs, "energy_j", "run"), "energy_j"),
        dunn_table(means, "energy_j", adjustment="none"),
        dunn_table(means, "energy_j", sides=1),
    ):
        assert not all(cell.equal for cell in check_tables(PUBLISHED, {name: other})[name])
    once = recompute(runs, energy="energy_cpu_once_j")
    name = "RQ3.1/RQ3.1_Omnibus_ART_Efficiency.csv"
    assert not all(cell.equal for cell in check_tables(PUBLISHED, {name: once[name]})[name])


@study
def test_the_error_is_the_treatments(runs: pl.DataFrame) -> None:
    found = art_anova(runs, "energy_j", ("generation", "task"), "run")
    assert [round(each.df_residual, 6) for each in found.terms] == [6, 6, 6]
    # Only generation 3.2 has two sizes: these six differences are all the error there is.
    assert any("Only 6 of 24 cells" in words for words in found.warnings)


@study
def test_most_rows_of_the_table_per_task_are_not(runs: pl.DataFrame, tables: dict[str, pl.DataFrame]) -> None:
    per_task = tables["RQ2/RQ2_Successive_Pairwise_Per_Task.csv"]
    pattern = re.compile(r"[\d.]+,(\w+) - [\d.]+,(\w+)")
    tasks = [pattern.fullmatch(name) for name in per_task["Comparison"]]
    within = [name for name, found in zip(per_task["Comparison"], tasks, strict=True) if found and found[1] == found[2]]
    assert (per_task.height, len(within)) == (108, 18)
    corrected = per_task_corrected(runs)
    assert list(corrected["Comparison"]) == within
    both = corrected.join(per_task, on="Comparison", suffix="_published")
    assert both["t.ratio"].to_list() == pytest.approx(both["t.ratio_published"].to_list())
    assert both["p.published_family"].to_list() == pytest.approx(both["p.value_published"].to_list())
    assert (both["p.value"] - both["p.value_published"]).abs().max() > 0.1


@study
def test_durations_are_a_hundred_times_too_long(runs: pl.DataFrame) -> None:
    ratio = runs["duration_misread_s"] / runs["duration_s"]
    assert ratio.min() == pytest.approx(100, rel=1e-3) and ratio.max() == pytest.approx(100, rel=1e-3)


@study
def test_the_cpu_is_in_the_total_twice(runs: pl.DataFrame) -> None:
    raw = pl.read_csv(PUBLISHED / "run_table_raw.csv", separator=";")
    once = runs.sort("energy_j")["energy_cpu_once_j"].to_list()
    # The column `gpu_joules` holds the CPU already, see analysis.audit.recipe.
    assert once == pytest.approx(raw.sort("energy_consumption_total_joules")["gpu_joules"].to_list())


@study
def test_repetitions_say_the_same(runs: pl.DataFrame) -> None:
    found = identical_outputs(runs, ["run"], "n_tokens")
    assert sum(each.effective_n for each in found.treatments) == 55
    assert "not independent: in 30 of 30 treatments" in found.warnings[0]


@study
def test_the_report_says_what_is_wrong() -> None:
    report = published_report(PUBLISHED)
    assert "| all | 844 | 844 |" in report
    assert "not reproduced" not in report
    assert "Of the 108 rows of the table `per task`, 90 compare different tasks." in report
    assert "| RQ1.1_Descriptive_Summary | 2 | mean_energy | 81556.7 | 71022.448 |" in report
    assert "| 2 | 19745.572 | 197.455 |" in report


def test_compare_sees_what_differs_and_what_is_missing() -> None:
    published = pl.DataFrame({"Term": ["a", "b"], "F": ["1.234", "2"], "note": ["x", "y"]})
    ours = pl.DataFrame({"Term": ["a"], "F": [1.2347]})
    cells = compare("t", published, ours)
    assert [(cell.row, cell.column, cell.recomputed, cell.equal) for cell in cells] == [
        ("a", "F", 1.2347, False),
        ("b", "F", None, False),
    ]
    assert compare("t", published, ours.with_columns(F=pl.lit(1.2344)))[0].equal
    with pytest.raises(UsageError, match="names its rows"):
        compare("t", published.drop("Term"), ours)


def test_a_folder_without_the_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run_table_edited\.csv is missing"):
        load_study(tmp_path)
    for name in ("run_table_edited.csv", "run_table_raw.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="does not hold"):
        load_study(tmp_path)

"""The public LLaMA study's result tables, recomputed from its run table: each with its recipe, errors included.

"GreenLab angels" (2025): generation (2, 3, 3.1, 3.2) x model size x six SuperGLUE tasks, 30 treatments of 30
repetitions. What was found out about how its tables were made:

- RQ1.x: the 30 treatment means are the observations; Kruskal-Wallis, Dunn over all pairs of generations (two-sided),
  of which the successive ones are shown. Shapiro-Wilk is on the residuals, Levene about the median.
- RQ2 and RQ3.x: the 900 runs are the rows, with the treatment (`run`) as random intercept, so that the error has
  30 - 24 = 6 degrees of freedom under generation x task, and 30 - 4 = 26 under generation alone. Contrasts are ART-C.
- p is adjusted over all pairs, then the successive ones are picked. `per task` pairs need not share the task.

The functions take any response, factor, level of aggregation and adjustment, so that other tables can be made alike.
`published_check` compares, and shows corrected values.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.inference.aligned_rank import ArtContrast, art_anova, art_contrasts
from analysis.inference.assumptions import levene, shapiro_wilk
from analysis.inference.correlation import spearman_by
from analysis.inference.describe import describe
from analysis.inference.dunn import dunn
from analysis.inference.kruskal import kruskal_wallis
from analysis.inference.sample import treatment_means
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

TREATMENT = ("run", "generation", "model_size", "task")
"""Columns that name a treatment; `run` alone would do."""
RESPONSES = (
    "energy_j",
    "energy_cpu_once_j",
    "n_tokens",
    "duration_s",
    "duration_misread_s",
    "accuracy",
    "energy_per_token_j",
    "energy_cpu_once_per_token_j",
)
_EDITED, _RAW = "run_table_edited.csv", "run_table_raw.csv"


def load_study(folder: Path) -> "pl.DataFrame":
    """The study's run table, one row per run, in our names.

    Args:
        folder: holds `run_table_edited.csv` and `run_table_raw.csv`.

    Returns:
        `run` (the treatment's number), `repetition`, `generation` (`2`, `3`, `3.1`, `3.2`), `model_size`, `task`, and
        `RESPONSES`: `energy_j` as published, with the CPU counted twice; `energy_cpu_once_j` without the second time;
        `duration_misread_s` the column `time(s)` as a program reads it that takes its decimal comma for a thousands
        separator: 100 times too long.

    Raises:
        UsageError: a file is missing, or its columns are not the study's.
    """
    import polars as pl

    edited, raw = (_read(folder / name, separator) for name, separator in ((_EDITED, ","), (_RAW, ";")))
    try:
        cpu = raw.select("run", pl.col("rep").alias("repetition"), pl.col("cpu_joules").cast(pl.Float64))
        number = {
            "energy_j": pl.col("energy").cast(pl.Float64),
            "n_tokens": pl.col("tokens").cast(pl.Float64),
            "duration_s": pl.col("duration_ms").cast(pl.Float64) / 1000,
            "duration_misread_s": pl.col("time(s)").str.replace_all(",", "").cast(pl.Float64),
            "accuracy": pl.col("accuracy").cast(pl.Float64),
        }
        runs = (
            edited.join(cpu, on=["run", "repetition"], how="left", validate="1:1")
            .with_columns(**number)
            # "2.0" in the run table, "2" in the result tables.
            .with_columns(pl.col("generation").str.replace(r"\.0$", ""), pl.col("repetition").cast(pl.Int64))
            .with_columns(energy_cpu_once_j=pl.col("energy_j") - pl.col("cpu_joules"))
            .with_columns(
                energy_per_token_j=pl.col("energy_j") / pl.col("n_tokens"),
                energy_cpu_once_per_token_j=pl.col("energy_cpu_once_j") / pl.col("n_tokens"),
            )
        )
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"{folder} does not hold the study's run tables: {error}") from error
    return runs.select("repetition", *TREATMENT, *RESPONSES).sort(pl.col("run").cast(pl.Int64), "repetition")


def _read(path: Path, separator: str) -> "pl.DataFrame":
    import polars as pl

    if not path.is_file():
        raise UsageError(f"{path} is missing. Give the folder that holds {_EDITED} and {_RAW}.")
    return pl.read_csv(path, separator=separator, infer_schema_length=0)


def at_level(runs: "pl.DataFrame", response: str, level: str) -> "pl.DataFrame":
    """The observations to test.

    Args:
        runs: of `load_study`.
        response: column of numbers.
        level: `treatment` for the 30 treatment means, `run` for the 900 rows.

    Raises:
        UsageError: another level.
    """
    if level == "run":
        return runs
    if level != "treatment":
        raise UsageError(f"Unknown level {level!r}. Known: treatment, run.")
    return treatment_means(runs, [response], TREATMENT)


def summary_table(
    frame: "pl.DataFrame", response: str, factors: Sequence[str], question: str, metric: str
) -> "pl.DataFrame":
    """`*_Summary.csv`: Shapiro-Wilk on the residuals, Levene about the median, n."""
    import polars as pl

    normal, equal = shapiro_wilk(frame, response, factors), levene(frame, response, factors)
    return pl.DataFrame(
        {
            "RQ": [question],
            "Metric": [metric],
            "shapiro_p": [normal.p_value],
            "levene_p": [equal.p_value],
            "n_total": [normal.n],
        }
    )


def descriptive_table(
    frame: "pl.DataFrame", response: str, by: Sequence[str], suffix: str, count: str = "n_runs"
) -> "pl.DataFrame":
    """`*_Descriptive_Summary.csv`: n, mean, median, variance, sd, range by group.

    Args:
        frame: one row per observation.
        response: column of numbers.
        by: columns that name the group.
        suffix: of the columns, as in `mean_energy`.
        count: name of the column of n.
    """
    names = {name: f"{name}_{suffix}" for name in ("mean", "median", "var", "sd", "min", "max")}
    return describe(frame, response, by).rename({"n": count, **names})


def kruskal_table(frame: "pl.DataFrame", response: str, factor: str = "generation") -> "pl.DataFrame":
    """`*_Omnibus_Kruskal_Wallis_*.csv`: H, its df and p, epsilon squared."""
    import polars as pl

    found = kruskal_wallis(frame, response, factor)
    return pl.DataFrame(
        {
            "test": ["Kruskal-Wallis"],
            "df": [found.df],
            "chi_sq": [found.statistic],
            "p_value": [found.p_value],
            "epsilon_sq": [found.epsilon_squared],
        }
    )


def dunn_table(
    frame: "pl.DataFrame",
    response: str,
    factor: str = "generation",
    *,
    adjustment: str = "bh",
    sides: int = 2,
    successive: bool = True,
) -> "pl.DataFrame":
    """`*_Pairwise_Dunn_*.csv`: adjusted over all pairs, of which the successive ones are shown."""
    import polars as pl

    found = dunn(frame, response, factor, adjustment=adjustment, sides=sides)
    pairs = found.successive() if successive else found.pairs
    return pl.DataFrame(
        {
            "Comparison": [f"{pair.first} - {pair.second}" for pair in pairs],
            "Z": [pair.z for pair in pairs],
            "P.unadj": [pair.p_value for pair in pairs],
            "P.adj": [pair.p_adjusted for pair in pairs],
        }
    )


def art_table(runs: "pl.DataFrame", response: str, factors: Sequence[str], unit: str | None = "run") -> "pl.DataFrame":
    """`*_Omnibus_ART_*.csv`: F and p of each effect."""
    import polars as pl

    terms = art_anova(runs, response, factors, unit).terms
    return pl.DataFrame(
        {
            "Term": [":".join(each.term) for each in terms],
            "F": [each.f for each in terms],
            "Df": [each.df for each in terms],
            "Df.res": [each.df_residual for each in terms],
            "Pr(>F)": [each.p_value for each in terms],
        }
    )


def contrast_table(
    runs: "pl.DataFrame",
    response: str,
    factors: Sequence[str],
    compare: Sequence[str],
    unit: str | None = "run",
    *,
    adjustment: str = "bh",
    same_others: bool = False,
) -> "pl.DataFrame":
    """`*_Successive_Pairwise_*.csv`: ART-C, adjusted over all pairs, of which the successive ones are shown.

    Args:
        runs: one row per run.
        response: column of numbers.
        factors: of the design.
        compare: those whose levels or cells are compared.
        unit: column of the random intercept, or None.
        adjustment: one of `inference.adjust.ADJUSTMENTS`.
        same_others: only pairs that share the levels of all compared factors but the first.
    """
    import polars as pl

    found = art_contrasts(runs, response, factors, compare, unit, adjustment).successive(same_others=same_others)

    def name(pair: ArtContrast) -> str:
        if len(compare) == 1:
            return f"{compare[0]}{pair.first[0]} - {compare[0]}{pair.second[0]}"
        return f"{','.join(pair.first)} - {','.join(pair.second)}"

    return pl.DataFrame(
        {
            "Comparison": [name(pair) for pair in found],
            "estimate": [pair.estimate for pair in found],
            "SE": [pair.standard_error for pair in found],
            "df": [pair.df for pair in found],
            "t.ratio": [pair.t for pair in found],
            "p.value": [pair.p_adjusted for pair in found],
        }
    )


def coupling_table(
    runs: "pl.DataFrame", x: str, y: str, by: str = "generation", adjustment: str = "bh"
) -> "pl.DataFrame":
    """`*_Spearman_Coupling.csv`: one correlation per group, adjusted over the groups."""
    import polars as pl

    found = spearman_by(runs, x, y, by, adjustment=adjustment)
    return pl.DataFrame(
        {
            by: [each.group for each in found],
            "rho": [each.rho for each in found],
            "p_val": [each.p_value for each in found],
            "p_BH": [each.p_adjusted for each in found],
        }
    )


def recompute(runs: "pl.DataFrame", *, energy: str = "energy_j") -> dict[str, "pl.DataFrame"]:
    """The tables of RQ1.1, RQ2 and RQ3.1, by path within the published folder, not rounded.

    Args:
        runs: of `load_study`.
        energy: `energy_j` as published, or `energy_cpu_once_j`.
    """
    import polars as pl

    runs = runs.with_columns(per_token=pl.col(energy) / pl.col("n_tokens"))
    means = at_level(runs, energy, "treatment")
    crossed = ("generation", "task")
    return {
        "RQ1.1/RQ1.1_Summary.csv": summary_table(means, energy, ["generation"], "RQ1.1", "energy_j_mean"),
        "RQ1.1/RQ1.1_Descriptive_Summary.csv": descriptive_table(means, energy, ["generation"], "energy"),
        "RQ1.1/RQ1.1_Omnibus_Kruskal_Wallis_Energy_Test.csv": kruskal_table(means, energy),
        "RQ1.1/RQ1.1_Pairwise_Dunn_Successive_Energy_Comparisons.csv": dunn_table(means, energy),
        "RQ2/RQ2_Summary.csv": summary_table(runs, energy, crossed, "RQ2", "energy_j"),
        "RQ2/RQ2_Descriptive_Summary.csv": descriptive_table(runs, energy, crossed, "E", "n_reps"),
        "RQ2/RQ2_Omnibus_ART_Mixed_Model.csv": art_table(runs, energy, crossed),
        "RQ2/RQ2_Successive_Pairwise_Main.csv": contrast_table(runs, energy, crossed, ["generation"]),
        "RQ2/RQ2_Successive_Pairwise_Per_Task.csv": contrast_table(runs, energy, crossed, crossed),
        "RQ3.1/RQ3.1_Summary.csv": summary_table(runs, "per_token", ["generation"], "RQ3.1", "energy_per_token"),
        "RQ3.1/RQ3.1_Descriptive_Summary.csv": descriptive_table(runs, "per_token", ["generation"], "Ept"),
        "RQ3.1/RQ3.1_Energy_Token_Count_Spearman_Coupling.csv": coupling_table(runs, energy, "n_tokens"),
        "RQ3.1/RQ3.1_Omnibus_ART_Efficiency.csv": art_table(runs, "per_token", ["generation"]),
        "RQ3.1/RQ3.1_Successive_Pairwise_Efficiency.csv": contrast_table(
            runs, "per_token", ["generation"], ["generation"]
        ),
    }

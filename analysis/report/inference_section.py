"""What the tests say: assumptions, omnibus tests, pairs with effect sizes, and how many repetitions would do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.inference.adjust import adjust
from analysis.inference.aligned_rank import art_anova
from analysis.inference.assumptions import AssumptionTest, levene, shapiro_wilk
from analysis.inference.independence import identical_outputs
from analysis.inference.kruskal import KruskalWallis, kruskal_wallis
from analysis.inference.sample import treatment_means
from analysis.report.document import Bullets, Caution, Section, Table, Text
from analysis.report.found import Found
from analysis.report.pair_section import pair_tables, power_tables
from analysis.report.quantity import number, p_value
from analysis.summary import Summary

if TYPE_CHECKING:
    import polars as pl

ENERGY = "energy_j"
TREATMENT = "treatment"
_LEVENE = "equal variances (Levene, about the median)"
_MIN_SPREAD = 3
_REPEATED = "The repetitions are not independent"


@dataclass(frozen=True)
class Inference:
    """The section, what it comes to in a sentence, and what to beware of."""

    section: Section
    sentence: str
    cautions: tuple[Caution, ...]


def inference_section(summary: Summary, seed: int, *, is_audited: bool = False) -> Inference:
    """Test the energies, as far as the design carries tests; where it does not, say so and make none.

    Args:
        summary: of the experiment.
        seed: of the bootstrap.
        is_audited: whether the outputs were compared already.
    """
    measured = [row for row in summary.treatments if row.means[ENERGY].mean is not None]
    if len(measured) < 2:
        return _none("There is one treatment with an energy: nothing can be compared, and no test is made.")
    repeated = [row for row in measured if row.means[ENERGY].n > 1]
    if len(repeated) < len(measured):
        which = "Every treatment has" if not repeated else f"{len(measured) - len(repeated)} treatments have"
        return _none(
            f"{which} one counted run with an energy: the noise between runs is not known, so there are no intervals "
            "and no tests. Plan three repetitions or more."
        )
    frame = _frame(summary)
    found = Found()
    blocks: list[Table | Text | Bullets] = []
    omnibus = found.attempt(kruskal_wallis, frame, ENERGY, TREATMENT)
    sentence = "" if omnibus is None else _sentence(omnibus)
    blocks += _assumptions(frame, found)
    blocks += _omnibus(summary, frame, omnibus, found)
    blocks += _factorial(summary, frame, found)
    blocks += pair_tables(frame, ENERGY, TREATMENT, summary.by, found, seed)
    blocks += power_tables(frame, ENERGY, TREATMENT, found)
    found.attempt(identical_outputs, _with_outputs(summary), [TREATMENT], "n_output_tokens")
    words = tuple(dict.fromkeys([*found.warnings, *(f"Not tested: {each}" for each in found.refusals)]))
    if words:
        blocks.append(Bullets(words))
    if found.methods:
        blocks.append(Text("Methods: " + "; ".join(dict.fromkeys(found.methods)) + "."))
    # The audit says the same from the outputs themselves, where it could read them.
    same = [text for text in dict.fromkeys(found.warnings) if text.startswith(_REPEATED)]
    cautions = tuple(Caution("doubt", text) for text in same) if not is_audited else ()
    return Inference(Section("tests", "Tests", tuple(blocks)), sentence, cautions)


def _none(why: str) -> Inference:
    return Inference(Section("tests", "Tests", (Text(why),)), "", ())


def _frame(summary: Summary) -> "pl.DataFrame":
    """One row per counted run with an energy: levels as text, the treatment as one column."""
    import polars as pl

    rows = [
        {**{name: str(run[name]) for name in summary.by}, TREATMENT: row.label, ENERGY: run[ENERGY]}
        for row in summary.treatments
        for run in row.runs
        if run[ENERGY] is not None
    ]
    return pl.DataFrame(rows)


def _with_outputs(summary: Summary) -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(
        [
            {TREATMENT: row.label, "n_output_tokens": run["n_output_tokens"]}
            for row in summary.treatments
            for run in row.runs
            if run["n_output_tokens"] is not None
        ],
        schema={TREATMENT: pl.String, "n_output_tokens": pl.Int64},
    )


def _sentence(test: KruskalWallis) -> str:
    differs = "differs" if test.p_value < 0.05 else "does not differ detectably"
    return (
        f"Energy {differs} between treatments (Kruskal-Wallis H({test.df}) = {number(test.statistic)}, "
        f"p {_equals(test.p_value)}, ε² = {number(test.epsilon_squared, 3)}, n = {test.n})."
    )


def _equals(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _assumptions(frame: "pl.DataFrame", found: Found) -> Iterator[Table]:
    rows = []
    tests: dict[str, Callable[[], AssumptionTest]] = {
        "normal residuals (Shapiro-Wilk)": lambda: shapiro_wilk(frame, ENERGY, [TREATMENT]),
        _LEVENE: lambda: levene(frame, ENERGY, [TREATMENT]),
    }
    smallest = min(frame[TREATMENT].value_counts()["count"].to_list())
    if smallest < _MIN_SPREAD:
        # Two values lie equally far from their median: the F of such cells is a division by zero, give or take.
        del tests[_LEVENE]
        found.refusals.append(f"Equal variances need {_MIN_SPREAD} runs per treatment; the fewest here are {smallest}.")
    for name, make in tests.items():
        test = found.attempt(make)
        if test is not None:
            letter = "W" if test.df is None else f"F{test.df}"
            verdict = "does not hold" if test.p_value < 0.05 else "not contradicted"
            rows.append((name, verdict, f"{letter} = {number(test.statistic)}", p_value(test.p_value), str(test.n)))
    if rows:
        yield Table(
            "Assumptions of parametric tests, for the energies of runs within treatments",
            ("assumption", "verdict at 5 %", "statistic", "p", "n"),
            tuple(rows),
            note="The tests below are by ranks and need neither.",
            n_label_columns=2,
        )


def _omnibus(summary: Summary, frame: "pl.DataFrame", omnibus: KruskalWallis | None, found: Found) -> Iterator[Table]:
    tests: list[tuple[str, str, KruskalWallis]] = []
    if omnibus is not None:
        tests.append(("all treatments", "runs", omnibus))
    if len(summary.by) > 1:
        means = found.attempt(treatment_means, frame, [ENERGY], list(summary.by))
        for name in summary.by:
            if means is None or frame[name].n_unique() < 2:
                continue
            test = found.attempt(kruskal_wallis, means, ENERGY, name)
            if test is not None:
                tests.append((name, "treatment means", test))
    if not tests:
        return
    adjusted = adjust([test.p_value for _, _, test in tests])
    rows = tuple(
        (
            name,
            unit,
            f"{number(test.statistic)} ({test.df})",
            p_value(test.p_value),
            p_value(float(adjusted[i])),
            number(test.epsilon_squared, 3),
            str(test.n),
        )
        for i, (name, unit, test) in enumerate(tests)
    )
    yield Table(
        "Does energy differ? Kruskal-Wallis",
        ("between levels of", "one value is", "H (df)", "p", "adjusted p", "ε²", "n"),
        rows,
        note="ε² is the share of rank variance that the groups explain. A factor is tested on the means of treatments, "
        "so that repetitions do not count as new treatments. Adjusted after Benjamini and Hochberg over this table.",
        n_label_columns=2,
    )


def _factorial(summary: Summary, frame: "pl.DataFrame", found: Found) -> Iterator[Table]:
    """Main effects and interactions; factors that are not crossed are joined."""
    import polars as pl

    varied = [name for name in summary.by if frame[name].n_unique() > 1]
    if len(varied) < 2:
        return
    n_cells = 1
    for name in varied:
        n_cells *= frame[name].n_unique()
    if n_cells > frame[TREATMENT].n_unique() and len(varied) > 2:
        joined = " / ".join(varied[:-1])
        frame = frame.with_columns(pl.concat_str(varied[:-1], separator=" / ").alias(joined))
        varied = [joined, varied[-1]]
    test = found.attempt(art_anova, frame, ENERGY, varied)
    if test is None:
        return
    rows = tuple(
        (
            " × ".join(term.term),
            f"{number(term.f)} ({term.df}, {number(term.df_residual, 3)})",
            p_value(term.p_value),
            number(term.partial_eta_squared, 3),
        )
        for term in test.terms
    )
    yield Table(
        "Main effects and interactions: aligned rank transform, over runs",
        ("effect", "F (df)", "p", "partial η²"),
        rows,
        note="An interaction: one factor acts differently at different levels of another.",
    )

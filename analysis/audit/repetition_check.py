"""Repetitions that repeat nothing: byte-identical outputs, and outputs that follow the calendar."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from analysis.audit.run_audit import RunAudit
from analysis.experiment_runner import run_number


@dataclass(frozen=True)
class TreatmentOutputs:
    """The outputs of one treatment's repetitions.

    Attributes:
        treatment: its factor levels, joined with ` / `; its number where no run table names them.
        n_runs: repetitions whose outputs were kept.
        n_distinct: different outputs among them.
        n_dates: UTC dates on which they ran.
        n_same_date_pairs: pairs of repetitions that ran on one date.
        n_same_date_equal: of these, with identical outputs.
        n_other_date_pairs: pairs that ran on different dates.
        n_other_date_equal: of these, with identical outputs.
        tokens_spread: largest less smallest token count over repetitions, over the smallest; None without counts.
    """

    treatment: str
    n_runs: int
    n_distinct: int
    n_dates: int
    n_same_date_pairs: int
    n_same_date_equal: int
    n_other_date_pairs: int
    n_other_date_equal: int
    tokens_spread: float | None

    @property
    def is_identical(self) -> bool:
        """All repetitions gave the same bytes."""
        return self.n_runs > 1 and self.n_distinct == 1

    @property
    def has_identical(self) -> bool:
        """At least two repetitions gave the same bytes."""
        return self.n_distinct < self.n_runs

    @property
    def follows_date(self) -> bool:
        """Outputs differ between dates and never within one.

        Without two runs of one date this is a suspicion only; `RepetitionCheck.sentences` pools treatments.
        """
        return self.n_other_date_pairs > self.n_other_date_equal and self.n_same_date_equal == self.n_same_date_pairs


@dataclass(frozen=True)
class RepetitionCheck:
    """What the outputs say about the repetitions.

    Attributes:
        treatments: in the order of the run table.
        n_cross_midnight: runs over UTC midnight; they count for no date.
    """

    treatments: tuple[TreatmentOutputs, ...]
    n_cross_midnight: int

    def sentences(self) -> list[str]:
        """The findings in words."""
        known = [each for each in self.treatments if each.n_runs > 1]
        if not known:
            return ["No outputs of two repetitions of a treatment were kept: their independence is unknown."]
        words = []
        identical = [each for each in known if each.has_identical]
        if identical:
            n_equal = sum(each.n_same_date_equal + each.n_other_date_equal for each in identical)
            words.append(
                f"Not independent: in {len(identical)} of {len(known)} treatments repetitions gave byte-identical "
                f"outputs ({n_equal} pairs), in {sum(each.is_identical for each in known)} all of them did. They "
                f"repeat the measurement of energy, not the generation: accuracy has one sample per distinct output."
            )
        n_same, n_same_equal = (
            sum(each.n_same_date_pairs for each in known),
            sum(each.n_same_date_equal for each in known),
        )
        dated = [each for each in known if each.follows_date]
        # Sampling at random would differ within a date as well: identical pairs elsewhere say that it does not.
        if dated and (n_same_equal or identical):
            spread = max((each.tokens_spread or 0.0 for each in dated), default=0.0)
            words.append(
                f"Outputs change with the date: in {len(dated)} treatments they differ between UTC dates and never "
                f"within one ({', '.join(each.treatment for each in dated[:4])}{', ...' if len(dated) > 4 else ''}); "
                f"{n_same_equal} of all {n_same} same-date pairs are identical. A chat template that prints today's "
                f"date does this. Output tokens differ by up to {spread:.1%}: pin the date."
            )
        if not words:
            words.append(f"Outputs of repetitions differ in all {len(known)} treatments, also within a date.")
        return words


def check_repetitions(runs: Sequence[RunAudit], treatments: Mapping[str, str]) -> RepetitionCheck:
    """Compare the outputs of the repetitions of each treatment.

    Args:
        runs: with the hash of their outputs.
        treatments: run id -> treatment; runs that it lacks are told apart by their number.
    """
    groups: dict[str, list[RunAudit]] = {}
    for run in runs:
        if run.output_sha256 is not None:
            groups.setdefault(treatments.get(run.run_id, run_number(run.run_id)), []).append(run)
    dates = {run.run_id: _date(run) for run in runs}
    n_cross = sum(run.output_sha256 is not None and dates[run.run_id] is None for run in runs)
    return RepetitionCheck(tuple(_compare(name, group, dates) for name, group in groups.items()), n_cross)


def _compare(treatment: str, runs: Sequence[RunAudit], dates: Mapping[str, date | None]) -> TreatmentOutputs:
    outputs = Counter(run.output_sha256 for run in runs)
    dated = [(dates[run.run_id], run.output_sha256) for run in runs if dates[run.run_id] is not None]
    same_pairs = sum(_pairs(n) for n in Counter(day for day, _ in dated).values())
    same_equal = sum(_pairs(n) for n in Counter(dated).values())
    all_pairs = _pairs(len(dated))
    all_equal = sum(_pairs(n) for n in Counter(output for _, output in dated).values())
    tokens = [run.n_response_tokens for run in runs if run.n_response_tokens]
    return TreatmentOutputs(
        treatment,
        len(runs),
        len(outputs),
        len({day for day, _ in dated}),
        same_pairs,
        same_equal,
        all_pairs - same_pairs,
        all_equal - same_equal,
        max(tokens) / min(tokens) - 1 if tokens else None,
    )


def _date(run: RunAudit) -> date | None:
    """The UTC date of all prompts of a run; None where they cross midnight or are not known."""
    span = run.window_s
    if span is None:
        return None
    first, last = (datetime.fromtimestamp(stamp, UTC).date() for stamp in span)
    return first if first == last else None


def _pairs(n: int) -> int:
    return n * (n - 1) // 2

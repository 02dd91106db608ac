"""The answer in one paragraph: what costs most and least, and what is worth it."""

from analysis.figures import pareto_front
from analysis.figures.ranking import EDP
from analysis.report.quantity import many, number, share
from analysis.summary import Summary, TreatmentSummary

_SHOWN = 4


def answer(summary: Summary, tested: str = "") -> str:
    """What was found, in words; no figure that is not in the tables.

    Args:
        summary: of the experiment; at least one treatment has an energy.
        tested: what the tests say, as a sentence; empty where there are none.
    """
    word = "estimated energy" if summary.is_estimate else "energy"
    sentences = [
        f"{summary.n_counted:,} of {many(summary.n_planned, 'planned run')} of "
        f"{many(len(summary.treatments), 'treatment')} are counted."
    ]
    sentences.append(_range(summary, "energy_j", f"mean {word} of the measured phase", "J"))
    sentences.append(_range(summary, "energy_per_output_token_j", f"{word} per output token", "J"))
    sentences.append(tested)
    sentences.append(_accuracy(summary, word))
    quickest = [row for row in summary.treatments if row.means[EDP].mean is not None]
    if len(quickest) > 1:
        best = min(quickest, key=lambda row: row.means[EDP].mean or 0.0)
        sentences.append(f"The smallest energy-delay product has {best.label}.")
    return " ".join(sentence for sentence in sentences if sentence)


def _range(summary: Summary, name: str, what: str, unit: str) -> str:
    rows = [row for row in summary.treatments if row.means[name].mean is not None]
    if not rows:
        return ""
    low = min(rows, key=lambda row: _mean(row, name))
    high = max(rows, key=lambda row: _mean(row, name))
    what = what[0].upper() + what[1:]
    if len(rows) == 1:
        return f"{what} is {number(_mean(low, name))} {unit} ({low.label})."
    factor = _mean(high, name) / _mean(low, name) if _mean(low, name) > 0 else None
    times = f", {number(factor, 3)} times as much" if factor is not None else ""
    return (
        f"{what} is least, {number(_mean(low, name))} {unit}, with {low.label}, and most, "
        f"{number(_mean(high, name))} {unit}, with {high.label}{times}."
    )


def _accuracy(summary: Summary, word: str) -> str:
    rows = [row for row in summary.treatments if row.accuracy is not None]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row.accuracy.accuracy if row.accuracy else 0.0)
    if best.accuracy is None:
        return ""
    low, high = best.accuracy.interval
    text = f"Accuracy is highest, {share(best.accuracy.accuracy)} [{share(low)}, {share(high)}], with {best.label}."
    front = [row.label for row in pareto_front(rows)]
    if len(rows) > 1 and front:
        more = f" and {len(front) - _SHOWN} more" if len(front) > _SHOWN else ""
        text += (
            f" By means, no treatment has both less {word} and more accuracy than {'; '.join(front[:_SHOWN])}{more}."
        )
    return text


def _mean(row: TreatmentSummary, name: str) -> float:
    return row.means[name].mean or 0.0

"""The summary on a terminal: the widest layout that fits without cutting anything."""

import math
from dataclasses import dataclass
from textwrap import wrap

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.statistics import MeanInterval, PooledAccuracy
from analysis.summary import Summary, TreatmentSummary

NOT_MEASURED = "–"
_NUMBERS = ("energy_per_output_token_j", "duration_s", "tokens_per_s")
# Of studies of early exit; a column without a figure only takes room.
_EXIT_NUMBERS = {"mean_exit_layer": "layers\nper\ntoken", "mean_entropy_nats": "entropy,\nnats"}


@dataclass(frozen=True)
class _Layout:
    """How narrow the table is made: each step trades width for lines."""

    gap: int = 2
    """Blanks between two columns."""
    break_verdict: bool = True
    stack_numbers: bool = False
    stack_factors: bool = False


# From wide to narrow; the first that fits is taken.
_LAYOUTS = [
    _Layout(break_verdict=False),
    _Layout(),
    _Layout(gap=1),
    _Layout(stack_numbers=True),
    _Layout(stack_numbers=True, stack_factors=True),
]


@dataclass(frozen=True)
class _Column:
    header: str
    cells: list[str]
    is_number: bool = True

    @property
    def width(self) -> int:
        return max(cell_len(line) for text in [self.header, *self.cells] for line in text.split("\n"))


def print_summary(summary: Summary, console: Console) -> None:
    """Print the table and the notes, whole words and whole numbers at any width.

    Args:
        summary: what to print.
        console: where; its width chooses the layout.
    """
    title = f"{summary.experiment.name}: {summary.n_counted} of {summary.n_planned} runs"
    console.print(Text(title, style="bold"), soft_wrap=True)
    for layout in _LAYOUTS:
        columns = _columns(summary, layout)
        if sum(column.width + layout.gap for column in columns) - layout.gap <= console.width:
            console.print(_table(columns, layout.gap))
            break
    else:
        _print_blocks(summary, console)
    console.print()
    for note in summary.notes:
        lines = wrap(note, console.width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        console.print(Text("\n".join(lines)), soft_wrap=True)


def number(value: float | None, digits: int = 4) -> str:
    """A number with about `digits` significant digits and never an exponent; a dash for None."""
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def mean_text(interval: MeanInterval) -> str:
    """Mean ± half-width; both to the second significant digit of the half-width."""
    if interval.mean is None or not interval.half_width:
        return number(interval.mean) if not interval.half_width else NOT_MEASURED
    decimals = max(0, 1 - math.floor(math.log10(interval.half_width)))
    if interval.mean:  # a tiny spread must not print ten digits
        decimals = min(decimals, max(0, 5 - math.floor(math.log10(abs(interval.mean)))))
    return f"{interval.mean:,.{decimals}f} ± {interval.half_width:,.{decimals}f}"


def accuracy_text(accuracy: PooledAccuracy | None) -> str:
    """Percent with the Wilson interval, and what the test says where it is not "above chance"."""
    if accuracy is None:
        return NOT_MEASURED
    low, high = accuracy.interval
    share = f"{accuracy.accuracy * 100:.0f} % [{low * 100:.0f}, {high * 100:.0f}]"
    return share if accuracy.verdict in ("", "above chance") else f"{share}\n{accuracy.verdict}"


def _method_text(row: TreatmentSummary) -> str:
    """How the joules came about: `counter by rapl`; the meter is left out where it only repeats the method."""
    methods, sources = ", ".join(row.methods), ", ".join(row.sources)
    return methods if methods == sources else f"{methods} by {sources}"


def _columns(summary: Summary, layout: _Layout) -> list[_Column]:
    rows = summary.treatments
    if layout.stack_factors or not summary.by:
        columns = [_Column("treatment", ["\n".join(_levels(row)) or row.label for row in rows], is_number=False)]
    else:
        columns = [_Column(name, [str(row.treatment[name]) for row in rows], is_number=False) for name in summary.by]
    # One method for all goes into the header, else each cell says its own.
    methods = {_method_text(row) for row in rows if row.methods}
    head = "\n" + methods.pop().replace(" by ", "\nby ") if len(methods) == 1 else ""
    energy = [mean_text(row.means["energy_j"]) for row in rows]
    if not head:
        energy = [f"{text}\n{_method_text(row)}".rstrip() for text, row in zip(energy, rows, strict=True)]
    estimate = "\nestimate" if summary.is_estimate and head else ""
    columns.append(_Column("runs", [f"{row.n_counted}/{row.n_planned}" for row in rows]))
    columns.append(_Column(f"energy, J{head}", energy))
    numbers = [[number(row.means[name].mean) for name in _NUMBERS] for row in rows]
    for row, texts in zip(rows, numbers, strict=True):
        if row.is_estimate and not head:
            texts[0] += "\nestimate"
    if layout.stack_numbers:
        columns.append(_Column(f"J/token\nseconds\ntokens/s{estimate}", ["\n".join(row) for row in numbers]))
    else:
        headers = [f"J per\noutput\ntoken{estimate}", "time,\ns", "tokens\nper s"]
        columns += [_Column(header, [row[i] for row in numbers]) for i, header in enumerate(headers)]
    columns += [
        _Column(header, [number(row.means[name].mean) for row in rows])
        for name, header in _EXIT_NUMBERS.items()
        if any(row.means[name].mean is not None for row in rows)
    ]
    accuracy = [accuracy_text(row.accuracy) for row in rows]
    if layout.break_verdict:
        accuracy = [text.replace(" from ", "\nfrom ") for text in accuracy]
    columns.append(_Column("accuracy\n[95 % interval]", accuracy, is_number=False))
    return columns


def _levels(row: TreatmentSummary) -> list[str]:
    return [f"{name}={level}" for name, level in row.treatment.items()]


def _table(columns: list[_Column], gap: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        # Names and levels are the user's: shown as they are, not as markup. The width is known to fit.
        table.add_column(
            Text(column.header), justify="right" if column.is_number else "left", no_wrap=True, min_width=column.width
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _print_blocks(summary: Summary, console: Console) -> None:
    """One block of lines per treatment: for terminals, or levels, that no table fits."""
    for row in summary.treatments:
        console.print(Text(row.label, style="bold"), overflow="fold")
        per_token, duration, rate = (number(row.means[name].mean) for name in _NUMBERS)
        accuracy = accuracy_text(row.accuracy).replace("\n", ", ")
        lines = [
            f"runs {row.n_counted}/{row.n_planned}",
            f"energy {mean_text(row.means['energy_j'])} J {_method_text(row)}",
            f"{per_token} J per output token{' (estimate)' if row.is_estimate else ''}",
            f"{duration} s, {rate} tokens/s",
            f"accuracy {accuracy}",
        ]
        if row.means["mean_exit_layer"].mean is not None:
            layers, entropy = (number(row.means[name].mean) for name in _EXIT_NUMBERS)
            lines.append(f"{layers} layers per token, entropy {entropy} nats")
        for line in lines:
            console.print(Text(f"  {line}"), overflow="fold")

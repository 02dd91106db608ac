"""Figures of edge control on the simulated board: training, settings by temperature, the fan that stops, regret."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.errors import UsageError
from control.edge_drive import Drive
from control.edge_study import GOAL, FanOffRow, SearchRow
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Chooser
from testbed.simulation.orin import BoardState

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_HEADS = {
    "prefill_bin": "prefill clock (bin)",
    "decode_bin": "decode clock (bin)",
    "batch": "batch",
    "exit_layer": "exit layer",
}
_SMOOTHED = 15
_SIMULATED = "simulated"


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure as SVG and PNG.

    Args:
        figure: of this module.
        path: without suffix; the folder is made.

    Returns:
        The PNG.

    Raises:
        UsageError: it cannot be written.
    """
    from matplotlib import rc_context

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Equal figures are equal files.
        with rc_context({"svg.hashsalt": path.name}):
            for suffix in (".svg", ".png"):
                dates = {"Date": None} if suffix == ".svg" else None
                figure.savefig(path.with_name(path.name + suffix), dpi=150, facecolor="white", metadata=dates)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error}). Give another folder: --out.") from error
    return path.with_name(f"{path.name}.png")


def curve_figure(curves: Mapping[int, Sequence[Mapping[str, Any]]]) -> "Figure":
    """Mean reward of the groups and entropy over the updates on the simulated board, a line for each seed.

    Args:
        curves: seed -> points of `control.edge_training.train`.
    """
    figure = _figure(7.2, 4.8)
    reward, entropy = figure.subplots(2, sharex=True)
    for number, points in enumerate(curves.values()):
        mine = [each for each in points if each["stage"] == "board"]
        for axes, name in ((reward, "reward_mean"), (entropy, "entropy")):
            smooth = _smooth(np.array([each[name] for each in mine]))
            axes.plot(np.arange(len(smooth)) + 1, smooth, color=_COLOURS[number % len(_COLOURS)], lw=1, alpha=0.8)
    reward.set_ylabel("mean reward of a group")
    entropy.set_ylabel("entropy (nats)")
    entropy.set_xlabel(f"update on the {_SIMULATED} board (mean over {_SMOOTHED})")
    reward.set_title(f"Training, {len(curves)} seeds ({_SIMULATED})", fontsize=10)
    for axes in (reward, entropy):
        _plain(axes)
    return figure


def action_figure(case: EdgeCase, choosers: Sequence[Chooser]) -> "Figure":
    """What policies choose at each temperature, fan on and off: median over seeds, and the range.

    Args:
        case: for the temperatures.
        choosers: learned, one for each seed.
    """
    limit_c = case.reward.limits.temp_c
    temps_c = np.arange(55.0, limit_c + 2.01, 0.1)
    figure = _figure(7.6, 6.0)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for is_fan_on, colour, word in ((True, _COLOURS[0], "fan on"), (False, _COLOURS[1], "fan off")):
        states = [BoardState(float(temp_c), is_fan_on) for temp_c in temps_c]
        chosen = np.array([[case.space.meaning(each.choose(state)) for state in states] for each in choosers])
        for head, axes in enumerate(panels):
            values = chosen[..., head]
            axes.fill_between(
                temps_c, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, step="mid", lw=0
            )
            axes.step(temps_c, np.median(values, axis=0), color=colour, where="mid", lw=1.5, label=word)
    for axes, name, possible in zip(panels, case.space.names, case.space.values, strict=True):
        axes.axvline(limit_c, color="0.4", lw=0.8, ls="--")
        axes.set_ylabel(_HEADS[name])
        _whole(axes, possible)
        _plain(axes)
    for axes in panels[2:]:
        axes.set_xlabel("temperature (deg C)")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"Settings against temperature: median and range of {len(choosers)} policies; dashed: limit ({_SIMULATED})",
        fontsize=10,
    )
    return figure


def drive_figure(case: EdgeCase, found: Drive, fan_off_at: int | None, title: str) -> "Figure":
    """One run: temperature and what was chosen, batch after batch.

    Args:
        case: for what choices mean.
        found: the run.
        fan_off_at: batch from which the fan is off; None: it ran on.
        title: of it.
    """
    figure = _figure(7.6, 6.4)
    panels = figure.subplots(5, sharex=True, height_ratios=(2.2, 1, 1, 1, 1))
    batches = np.arange(len(found.temps_c))
    panels[0].plot(batches, found.temps_c, color=_COLOURS[0], lw=1)
    panels[0].axhline(case.reward.limits.temp_c, color="0.4", lw=0.8, ls="--")
    panels[0].set_ylabel("deg C")
    meant = case.space.meaning(found.choices)
    for head, (axes, name) in enumerate(zip(panels[1:], case.space.names, strict=True)):
        axes.plot(batches, meant[:, head], ".", ms=2, color=_COLOURS[1])
        axes.set_ylabel(_HEADS[name].replace(" (bin)", ""), fontsize=8)
        _whole(axes, case.space.values[head])
    for axes in panels:
        if fan_off_at is not None:
            axes.axvline(fan_off_at, color=_COLOURS[3], lw=1)
        _plain(axes)
    panels[-1].set_xlabel("batch; the line: the fan stops" if fan_off_at is not None else "batch")
    figure.suptitle(f"{title} ({_SIMULATED})", fontsize=10)
    return figure


def fan_off_figure(rows: Sequence[FanOffRow], limit_c: float) -> "Figure":
    """Throughput after the fan stopped over the hottest batch: right of the line is a violation.

    Args:
        rows: of the study.
        limit_c: of the temperature.
    """
    figure = _figure(7.6, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, stage, word in ((panels[0], "after", "since the fan stopped"), (panels[1], "late", "last third of that")):
        for number, name in enumerate(dict.fromkeys(row.chooser for row in rows)):
            mine = [getattr(row, stage) for row in rows if row.chooser == name]
            axes.plot(
                [each["hottest_c"] for each in mine],
                [each["throughput_per_s"] for each in mine],
                "o^sDvP*"[number % 7],
                ms=5,
                color=_COLOURS[number % len(_COLOURS)],
                alpha=0.8,
                label=name,
            )
        axes.axvline(limit_c, color="0.4", lw=0.8, ls="--")
        axes.set_xlabel("hottest (deg C)")
        axes.set_title(word, fontsize=9)
        _plain(axes)
    panels[0].set_ylabel(f"tokens per second ({_SIMULATED})")
    panels[0].set_ylim(bottom=0)
    panels[1].legend(frameon=False, fontsize=7, loc="lower left")
    return figure


def regret_figure(rows: Sequence[SearchRow]) -> "Figure":
    """Regret of the best that was seen over the measurements, median and range over seeds; points: recommended.

    Args:
        rows: of the study.
    """
    figure = _figure(7.2, 4.2)
    axes = figure.subplots()
    # Both kinds of GRPO see the same.
    sought = [row.way for row in rows if row.best_seen_regrets and row.way != "grpo_best_seen"]
    ways = list(dict.fromkeys(sought))
    for number, way in enumerate(ways):
        mine = [row for row in rows if row.way == way and row.best_seen_regrets]
        n_points = min(len(row.best_seen_regrets) for row in mine)
        regrets = 100 * np.array([row.best_seen_regrets[:n_points] for row in mine])
        x, colour = 10 * (np.arange(n_points) + 1), _COLOURS[number % len(_COLOURS)]
        low, middle, high = np.percentile(regrets, [10, 50, 90], axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        axes.plot(x, middle, color=colour, lw=1.5, label=f"{way}: best seen")
        last = [100 * row.regret for row in mine]
        axes.plot([x[-1] * (1.02 + 0.02 * number)] * len(last), last, "o", ms=3, color=colour, alpha=0.6)
    axes.axhline(100 * GOAL, color="0.4", lw=0.8, ls="--")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0)
    axes.set_yticks([0, 1, 2, 5, 10, 20, 50], ["0", "1", "2", "5", "10", "20", "50"])
    axes.set_xlabel("measurements")
    axes.set_ylabel(f"regret (%, {_SIMULATED})")
    axes.set_title("Lines: median and 80 % of seeds; points: what each seed recommended in the end", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=2)
    _plain(axes)
    return figure


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _plain(axes: "Axes") -> None:
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _whole(axes: "Axes", values: Sequence[int]) -> None:
    """All that could be chosen, in whole numbers."""
    from matplotlib.ticker import MaxNLocator

    room = 0.06 * (max(values) - min(values)) + 0.2
    axes.set_ylim(min(values) - room, max(values) + room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _smooth(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    width = min(_SMOOTHED, max(len(values), 1))
    return np.convolve(values, np.ones(width) / width, mode="valid") if len(values) else values

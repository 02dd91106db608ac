"""Figures of a device model: the fit against what was measured, and the held-out error of each cell."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contract.errors import UsageError
from control.device_model import QUANTITIES, DeviceModel, LengthModel, Quantity
from control.profile_table import ESTIMATE, Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS: dict[Quantity, str] = {"latency_s": "latency of a batch (s)", "power_w": "mean power (W)"}
_MAX_LINES = 8
_MAX_TICKS = 16
_LARGEST_ERROR = 0.25
"""Where the colours of the error end, at most."""


def write_figures(model: DeviceModel, profile: Profile, folder: Path) -> list[Path]:
    """Write both figures for each pair of lengths, as SVG and PNG.

    Args:
        model: fitted to
        profile: this one.
        folder: is made.

    Raises:
        UsageError: they cannot be written.
    """
    from matplotlib import rc_context

    written = []
    for lengths in model.lengths:
        pair = "" if lengths.lengths == (None, None) else f"_{lengths.n_input_tokens}_{lengths.n_output_tokens}"
        for name, figure in (
            (f"fit{pair}", fit_figure(model, lengths, profile)),
            (f"held_out{pair}", held_out_figure(model, lengths)),
        ):
            for suffix in (".svg", ".png"):
                path = folder / f"{name}{suffix}"
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    # Equal figures are equal files.
                    with rc_context({"svg.hashsalt": name}):
                        dates = {"Date": None} if suffix == ".svg" else None
                        figure.savefig(path, dpi=160, facecolor="white", metadata=dates)
                except OSError as error:
                    raise UsageError(f"{path} cannot be written ({error}). Give another folder: --figures.") from error
                written.append(path)
    return written


def fit_figure(model: DeviceModel, lengths: LengthModel, profile: Profile) -> "Figure":
    """Latency and power over the clock, a line for each batch size; crosses are outliers, in no fit.

    With one clock, over the batch size instead.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    batches = lengths.measured_batch_sizes
    drawn = batches[:: -(-len(batches) // _MAX_LINES)]
    over_batch = len(lengths.clock_mhz) == 1
    for axes, name in zip(figure.subplots(1, 2), QUANTITIES, strict=True):
        values = np.array(lengths.quantity(name).values)
        cells = profile.of_lengths(lengths.lengths)
        wrong = {(each.clock_mhz, each.batch_size) for each in lengths.outliers}
        wrong |= {(cell.clock_mhz or 0.0, cell.batch_size) for cell in cells if cell.flag}
        if over_batch:
            axes.plot(lengths.batch_sizes, values[0], color="#0072B2", label="fit")
            axes.plot([c.batch_size for c in cells], [getattr(c, name) for c in cells], "o", color="#D55E00")
            axes.set_xlabel("batch size")
        else:
            for i, batch in enumerate(drawn):
                colour = colormaps["viridis"](i / max(len(drawn) - 1, 1) * 0.9)
                axes.plot(lengths.clock_mhz, values[:, batch - lengths.batch_sizes[0]], color=colour, label=str(batch))
                own = [cell for cell in cells if cell.batch_size == batch]
                good = [cell for cell in own if (cell.clock_mhz, cell.batch_size) not in wrong]
                bad = [cell for cell in own if (cell.clock_mhz, cell.batch_size) in wrong]
                axes.plot([c.clock_mhz for c in good], [getattr(c, name) for c in good], "o", ms=3.5, color=colour)
                axes.plot([c.clock_mhz for c in bad], [getattr(c, name) for c in bad], "x", ms=7, color=colour)
            axes.set_xlabel("clock (MHz)")
        axes.set_ylabel(_label(model, name))
        axes.set_ylim(0, 1.05 * max(values.max(), *(getattr(cell, name) for cell in cells)))
        axes.grid(visible=True, color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    if not over_batch:
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside right upper", title="batch", frameon=False
        )
    crosses = "; crosses are left out" if lengths.outliers else ""
    figure.suptitle(f"{model.source}{_pair(lengths)}: fit (lines) and measured (points{crosses})", fontsize=10)
    return figure


def held_out_figure(model: DeviceModel, lengths: LengthModel) -> "Figure":
    """Error of each cell, told by fits that never saw it; grey: in no fit, or not measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), QUANTITIES, strict=True):
        held = lengths.quantity(name).held_out
        batches, clocks = lengths.measured_batch_sizes, lengths.clock_mhz
        errors = np.full((len(batches), len(clocks)), np.nan)
        for cell in held.cells:
            errors[batches.index(cell.batch_size), clocks.index(cell.clock_mhz)] = cell.error * 100
        limit = max(1.0, min(float(np.nanmax(np.abs(errors))), _LARGEST_ERROR * 100))
        image = axes.imshow(errors, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower")
        axes.set_facecolor("0.75")
        for axis, levels in ((axes.xaxis, clocks), (axes.yaxis, batches)):
            step = -(-len(levels) // _MAX_TICKS)
            axis.set_ticks(range(0, len(levels), step), [f"{level:g}" for level in levels[::step]])
        axes.tick_params(axis="x", rotation=60)
        axes.set_xlabel("clock (MHz)")
        axes.set_ylabel("batch size")
        axes.set_title(f"{_label(model, name)}: MAPE {held.mape:.2%}, {held.n_cells} cells", fontsize=9)
        figure.colorbar(image, ax=axes, label="predicted over measured, less 1 (%)", extend="both")
    grey = "; grey: left out, or not measured" if lengths.outliers else ""
    figure.suptitle(f"{model.source}{_pair(lengths)}: error of each cell, held out{grey}", fontsize=10)
    return figure


def _label(model: DeviceModel, name: Quantity) -> str:
    return _LABELS[name] + (f", {ESTIMATE}" if name == "power_w" and model.is_estimate else "")


def _pair(lengths: LengthModel) -> str:
    return "" if lengths.lengths == (None, None) else f", {lengths.n_input_tokens} in, {lengths.n_output_tokens} out"

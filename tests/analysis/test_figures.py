from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures import energy_against_accuracy, energy_by_treatment, pareto_front, save_figure
from analysis.load import load_runs
from analysis.summary import Summary, summarise
from contract.errors import UsageError


def summary_of(table: Any, **options: Any) -> Summary:
    return summarise(load_runs(table.folder), **options)


def overlapping(figure: Figure) -> list[str]:
    """Pairs of neighbouring tick labels that cover each other."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    found = []
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        shown = [label for label in labels if label.get_text()]
        boxes = [(label.get_text(), label.get_window_extent(canvas.get_renderer())) for label in shown]
        boxes.sort(key=lambda box: (box[1].y0, box[1].x0))
        found += [f"{a} / {b}" for (a, box), (b, other) in pairwise(boxes) if box.overlaps(other)]
    return found


def test_energy_by_treatment_has_units_the_word_and_all_files(quickstart: Any, tmp_path: Path) -> None:
    figure = energy_by_treatment(summary_of(quickstart))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "energy of the measured phase (J), estimate"
    assert "(estimate)" in axes.get_title()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["BoolQ, 1", "BoolQ, 4", "COPA, 1", "COPA, 4"]
    written = save_figure(figure, tmp_path / "new" / "llama-3.2")
    assert [file.name for file in written] == ["llama-3.2.pdf", "llama-3.2.svg", "llama-3.2.png"]
    assert written[0].read_bytes().startswith(b"%PDF")
    assert "<svg" in written[1].read_text()
    assert written[2].read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in save_figure(figure, tmp_path / "b.png")] == ["b.pdf", "b.svg", "b.png"]


def test_energy_against_accuracy_has_units_legend_and_the_front(quickstart: Any) -> None:
    summary = summary_of(quickstart)
    figure = energy_against_accuracy(summary)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "accuracy (%)"
    assert axes.get_xlabel() == "energy of the measured phase (J), estimate"
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["task:", "BoolQ", "COPA", "concurrency:", "1", "4", "Pareto front", "guessing"]
    # BoolQ at concurrency 4 needs least energy and is most often right: nothing else is on the front.
    assert [row.label for row in pareto_front(summary.treatments)] == ["task=BoolQ, concurrency=4"]


def test_the_front_by_hand(write_experiment: Any) -> None:
    table = write_experiment("front", {"model": list("abcde")}, repetitions=1)
    points = {"a": (100.0, 4), "b": (200.0, 8), "c": (250.0, 8), "d": (300.0, 12), "e": (100.0, 4)}
    table.succeed_all(lambda t, _: {"energy_j": points[t["model"]][0], "n_correct": points[t["model"]][1]})
    assert [row.treatment["model"] for row in pareto_front(summary_of(table).treatments)] == ["a", "e", "b", "d"]


def test_thirty_treatments_keep_their_labels_apart(write_experiment: Any) -> None:
    models = [f"llama-3.{i}-8b-instruct" for i in range(5)]
    table = write_experiment("many", {"model": models, "task": ["BoolQ", "CB", "COPA", "RTE", "WiC", "WSC"]}, 2)
    table.succeed_all(lambda t, r: {"energy_j": 10000.0 * (1 + models.index(t["model"])) + 500 * r})
    summary = summary_of(table)
    for figure in (energy_by_treatment(summary), energy_against_accuracy(summary)):
        assert overlapping(figure) == []
        assert "estimate" not in figure.axes[0].get_xlabel()
        assert "counter by rapl" in figure.axes[0].get_xlabel()


def test_a_wide_range_is_drawn_on_a_logarithmic_axis(write_experiment: Any) -> None:
    table = write_experiment("wide", {"model": ["small", "large"]})
    table.succeed_all(lambda t, r: {"energy_j": (10.0 if t["model"] == "small" else 9000.0) + r})
    figure = energy_by_treatment(summary_of(table))
    assert figure.axes[0].get_xscale() == "log"
    assert overlapping(figure) == []


def test_nothing_to_draw_is_told(write_experiment: Any) -> None:
    table = write_experiment("none", {"task": ["a"]}, repetitions=1)
    table.succeed_all(lambda *_: {"energy_j": None})
    with pytest.raises(UsageError, match="has an energy"):
        energy_by_treatment(summary_of(table))
    many = write_experiment("markers", {"model": ["m"], "n": list(range(13))}, repetitions=1)
    many.succeed_all()
    with pytest.raises(UsageError, match="Summarise by fewer factors"):
        energy_against_accuracy(summary_of(many))

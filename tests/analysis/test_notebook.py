from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "analysis" / "energy_accuracy.ipynb"
GREENLAB = NOTEBOOK.parents[2] / "shared" / "data" / "greenlab"


def run_on(results: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """What the notebook printed, and how many figures it drew."""
    monkeypatch.setenv("JOULEBED_RESULTS", str(results))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


def test_no_outputs_are_committed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_it_runs_top_to_bottom(quickstart: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, n_figures = run_on(quickstart.folder, monkeypatch)
    assert "quickstart: 12 of 12 runs" in printed
    # Its samples are not there, which is told and ends nothing.
    assert "The files of run_" in printed
    assert n_figures == 3


@pytest.mark.skipif(not GREENLAB.is_dir(), reason="needs the public runs in ../shared")
def test_it_runs_top_to_bottom_on_the_public_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    printed, n_figures = run_on(GREENLAB, monkeypatch)
    assert "greenlab: 60 of 900 runs" in printed
    assert "no log in this folder" in printed
    # The audit's first finding: what the table calls energy is not the prompts' energy.
    assert "run_table.csv, energy:" in printed
    assert n_figures == 4

"""`python -m control profile` and `fit`, as a user types them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from control.cli import main
from control.device_model import read_device_model
from control.profile_table import make_profile, write_profile
from testbed.simulation.service_table import read_service_table
from tests.control.profile_double import made_up_cells, write_shared

SMALL = {"clocks": (705, 1005, 1410), "batches": (1, 2, 4, 8)}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return write_shared(tmp_path / "table.csv", made_up_cells(noise=0.02, **SMALL))


def test_from_a_table_to_a_model_and_its_full_table(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, model, table = tmp_path / "profile.csv", tmp_path / "model.json", tmp_path / "full.csv"
    assert main(["profile", "--import", str(shared), "-o", str(profile)]) == 0
    assert "12 cells" in capsys.readouterr().out
    figures = tmp_path / "figures"
    arguments = ["fit", str(profile), "-o", str(model), "--table", str(table), "--figures", str(figures)]
    assert main([*arguments, "--compare", str(shared)]) == 0
    out = capsys.readouterr().out
    assert "held out" in out and "against" in out and "estimate" not in out
    full = read_service_table(table)
    assert full.max_batch == 8 and full.clock_mhz.tolist() == [705, 1005, 1410] and full.n_input_tokens == 100
    assert full.sha256 == read_device_model(model).of_lengths().service_table("t").sha256
    names = {path.name for path in figures.iterdir()}
    assert names == {f"{name}_100_50{suffix}" for name in ("fit", "held_out") for suffix in (".svg", ".png")}


def test_json_says_all_in_full_precision(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--import", str(shared), "-o", str(tmp_path / "p.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n_cells"] == 12 and told["holes"] == [] and told["outliers"] == []
    assert main(["fit", str(tmp_path / "p.csv"), "-o", str(tmp_path / "m.json"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    held = told["lengths"][0]["latency_s"]["held_out"]
    assert held["n_cells"] == held["n_folds"] == 12
    assert held["mape"] == pytest.approx(
        sum(abs(each["predicted"] / each["measured"] - 1) for each in held["cells"]) / 12, rel=1e-12
    )


def test_an_estimate_is_never_shown_without_the_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [replace(cell, method="estimate") for cell in made_up_cells(**SMALL)]
    write_profile(make_profile(cells, "x"), tmp_path / "p.csv")
    assert main(["profile", "--import", str(tmp_path / "p.csv"), "-o", str(tmp_path / "q.csv")]) == 0
    assert "estimate" in capsys.readouterr().out
    figures = tmp_path / "f"
    assert main(["fit", str(tmp_path / "q.csv"), "-o", str(tmp_path / "m.json"), "--figures", str(figures)]) == 0
    assert "power is an estimate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["profile"], "one of the two"),
        (["profile", "nowhere"], "orchestrator export"),
        (["fit", "nowhere.csv"], "cannot be read as a CSV"),
        (["profile", "--import", "nowhere.csv"], "cannot be read as a CSV"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_the_next_step(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    caught = capsys.readouterr()
    assert told in caught.err and caught.out == ""


def test_holes_and_a_single_clock_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = made_up_cells(**SMALL)
    holed = write_shared(tmp_path / "holed.csv", cells[:-1])
    out = ["-o", str(tmp_path / "m.json")]
    assert main(["fit", str(holed), *out]) == 2
    assert "1410 MHz, batch 8" in capsys.readouterr().err and not (tmp_path / "m.json").exists()
    assert main(["fit", str(holed), *out, "--fill-holes"]) == 0
    assert "told by the model: 1410 MHz, batch 8" in capsys.readouterr().out
    one = write_shared(tmp_path / "one.csv", made_up_cells(clocks=(900,), batches=(1, 2, 4, 8)))
    assert main(["fit", str(one), *out, "--figures", str(tmp_path / "f")]) == 0
    assert "One clock, 900 MHz" in capsys.readouterr().out
    assert main(["fit", str(one), *out, "--table", str(tmp_path / "t.csv")]) == 2
    assert "--clock-left-alone" in capsys.readouterr().err and not (tmp_path / "t.csv").exists()
    assert main(["fit", str(one), *out, "--table", str(tmp_path / "t.csv"), "--clock-left-alone"]) == 0
    assert read_service_table(tmp_path / "t.csv", is_clock_left_alone=True).max_batch == 8
    # And as it stands it trains nothing.
    case = ["--slo-s", "60", "--rate", "0.1", "--out", str(tmp_path / "new")]
    assert main(["train", str(tmp_path / "t.csv"), *case]) == 2
    assert "two clocks" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom control.cli import main\nmain(['--help'])\n"
        "print(sorted({'torch', 'sklearn', 'gymnasium', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")

"""`python -m control train` and `evaluate`, as a person types them, on a small table."""

import json
from pathlib import Path

import pytest

from control.cli import main
from tests.control.scripted import small_case, small_table

pytest.importorskip("torch")
pytest.importorskip("sb3_contrib")

CASE = ["--slo-s", "6", "--rate", "0.8", "--slo-share", "0.5", "--duration-s", "200"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.csv").write_text(small_table().to_csv(), encoding="utf-8")
    arguments = ["train", str(folder / "small.csv"), *CASE, "--ppo-alone", "--steps", "1000", "--seeds", "2"]
    assert main([*arguments, "--out", str(folder / "run")]) == 0
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--seeds", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    return {each["entrant"]: each for each in told["standings"]} | {"": told}


def test_learned_policies_stand_beside_the_constant_and_the_rules(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, str(trained / "run"))
    assert {"learned, seed 0", "learned, seed 1", "deadline", "deadline_energy", "static_high"} <= set(found)
    assert any(label.startswith("constant ") for label in found)
    assert found[""]["case"]["table"] == "small.csv"  # type: ignore[index]
    notes = " ".join(found[""]["notes"])  # type: ignore[arg-type]
    assert "Simulated" in notes and "2 learner seeds" in notes and "Idle power is 0 W" in notes
    for name in ("evaluation.csv", "evaluation.png", "evaluation.svg", "runs.jsonl"):
        assert (trained / "run" / "evaluation" / name).stat().st_size > 0


def test_an_ablation_and_another_table_can_be_asked_for(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slower = trained / "slower.csv"
    slower.write_text(small_table(latency_s=2.5).to_csv(), encoding="utf-8")
    found = evaluated(
        capsys,
        str(trained / "run"),
        *("--table", str(slower), "--slo-s", "8", "--out", str(trained / "other")),
        *("--ablation", f"once more={trained / 'run' / 'seed_0.safetensors'}"),
    )
    assert found["once more"]["role"] == "ablation"
    once_more, learned = ({**found[label]["figures"]} for label in ("once more", "learned, seed 0"))  # type: ignore[dict-item]
    for figures in (once_more, learned):
        del figures["decision_mean_s"]  # wall time
    assert once_more == learned
    assert found[""]["case"]["slo_s"] == 8.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "nowhere"], "has no training"),
        (["evaluate", "RUN", "--ablation", "nameless"], "give a label and a policy file"),
        (["evaluate", "RUN", "--ablation", "gone=gone.safetensors"], "is no file"),
        (["train", "TABLE", "--slo-s", "0.5", "--rate", "0.8", "--out", "new"], "at best"),
        (["train", "TABLE", "--slo-s", "7", "--rate", "0.8", "--out", "RUN"], "another case"),
        (["train", "gone.csv", "--slo-s", "7", "--rate", "0.8", "--out", "new"], "gone.csv"),
    ],
)
def test_what_cannot_be_done_is_told(
    trained: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    places = {"RUN": str(trained / "run"), "TABLE": str(trained / "small.csv")}
    assert main([places.get(each, each) for each in arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (trained / "new").exists()


def test_a_table_prints_in_words_what_missed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "run"), "--seeds", "2", "--slo-share", "0.9999"]) == 0
    text = capsys.readouterr().out
    assert "(missed)" in text and "(simulated)" in text and small_case().table.source in text

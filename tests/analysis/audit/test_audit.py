"""Windows, order, repetitions, temperatures, and folders that are not in order."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analysis.audit.audit import Audit, audit_folder, to_json
from analysis.cli import main
from contract.errors import UsageError
from tests.analysis.audit.campaign import LEAD_S, TAIL_S, WRAP_J, Campaign

MIDNIGHT_MS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)


def words(audit: Audit) -> str:
    return "\n".join(audit.findings)


def test_energy_is_cut_at_the_prompts(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, counter_start_j=WRAP_J - 1000)
    (run,) = audit_folder(tmp_path).runs
    watts = campaign.cpu_w + campaign.gpu_w
    figures = [each.total_j for each in (run.before, run.window, run.after, run.whole) if each]
    seconds = [LEAD_S, campaign.prompts_s, TAIL_S, campaign.whole_s]
    assert figures == pytest.approx([watts * each for each in seconds], rel=1e-4)
    assert sum(figures[:3]) == pytest.approx(figures[3], rel=1e-9)
    assert run.window is not None
    assert run.window.cpu_j == pytest.approx(campaign.cpu_w * campaign.prompts_s, rel=1e-6)
    assert (run.n_wraps, run.n_duplicates, run.n_gaps, run.n_prompts) == (1, 1, 0, 2)


def test_a_log_without_prompts_has_no_window(tmp_path: Path) -> None:
    folder = Campaign(tmp_path).add_run(0, 0)
    (folder / "prompts_out.tsv").unlink()
    (run,) = audit_folder(tmp_path).runs
    assert run.window is None and run.before is None
    assert run.measured is run.whole


def test_prompts_of_another_run_are_a_stale_file(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    first, second = campaign.add_run(0, 0), campaign.add_run(0, 1)
    shutil.copy(first / "prompts_out.tsv", second / "prompts_out.tsv")
    audit = audit_folder(tmp_path)
    assert audit.runs[0].window is not None and audit.runs[1].window is None
    assert "stale file" in audit.runs[1].warnings[0]


def test_one_log_in_two_folders_is_a_stale_file(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    first, second = campaign.add_run(0, 0), campaign.add_run(0, 1)
    shutil.copytree(first, second, dirs_exist_ok=True)
    said = words(audit_folder(tmp_path))
    assert "2 runs share 1 log, byte for byte, such as run_0_repetition_0, run_0_repetition_1" in said


def test_runs_that_overlap_measured_each_other(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, start_ms=MIDNIGHT_MS)
    campaign.add_run(1, 0, start_ms=MIDNIGHT_MS + 50_000)
    assert "run_0_repetition_0 and run_1_repetition_0 by 62 s" in words(audit_folder(tmp_path))


def test_a_broken_run_costs_only_itself(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0)
    broken = campaign.add_run(1, 0)
    (broken / "energibridge.csv").write_text("")
    missing = campaign.add_run(2, 0)
    (missing / "energibridge.csv").unlink()
    audit = audit_folder(tmp_path)
    assert [run.whole is not None for run in audit.runs] == [True, False, False]
    assert "2 runs have no figures" in words(audit)
    assert "empty" in audit.runs[1].problem


@pytest.mark.parametrize("shift_h", [0, 2])
def test_a_sheet_of_another_time_zone_is_told(tmp_path: Path, shift_h: int) -> None:
    folder = Campaign(tmp_path).add_run(0, 0)
    sheet = folder / "prompts_out.tsv"
    lines = sheet.read_text().splitlines()
    shifted = [lines[0]]
    for line in lines[1:]:
        start, end, *rest = line.split("\t")
        shifted.append("\t".join([str(int(start) + shift_h * 3600), str(int(end) + shift_h * 3600), *rest]))
    sheet.write_text("\n".join(shifted) + "\n")
    (run,) = audit_folder(tmp_path).runs
    assert (run.window is None) == bool(shift_h)
    assert ("time zone" in " ".join(run.warnings)) == bool(shift_h)


def test_identical_outputs_are_not_independent(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    for repetition in range(3):
        campaign.add_run(0, repetition)
        campaign.add_run(1, repetition, answers=("a", str(repetition)))
    campaign.write_table()
    audit = audit_folder(tmp_path)
    assert [each.n_distinct for each in audit.repetitions.treatments] == [1, 3]
    assert "in 1 of 2 treatments repetitions gave byte-identical outputs (3 pairs)" in words(audit)


@pytest.mark.parametrize("follows", [True, False])
def test_outputs_that_follow_the_date(tmp_path: Path, follows: bool) -> None:
    campaign = Campaign(tmp_path)
    for repetition in range(4):
        late = repetition >= 2
        start_ms = MIDNIGHT_MS + (repetition - 2) * 3_600_000
        answer = "after" if (late if follows else repetition % 2) else "before"
        campaign.add_run(0, repetition, answers=(answer, "x"), start_ms=start_ms)
    campaign.write_table()
    assert ("change with the date" in words(audit_folder(tmp_path))) == follows


def test_thermal_carry_over_is_found_where_it_is(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    previous = "cold"
    for repetition in range(12):
        for level in ("hot", "cold") if repetition % 3 else ("cold", "hot"):
            number = ("hot", "cold").index(level)
            temp_c = (39.0 if previous == "hot" else 35.0) + 0.1 * (repetition % 2)
            # Half a percent per degree.
            gpu_w = (300 + 20 * number) * (1 + 0.005 * (temp_c - 35))
            campaign.add_run(number, repetition, temp_c=temp_c, gpu_w=gpu_w, level=level)
            previous = level
    campaign.write_table()
    thermal = audit_folder(tmp_path).thermal
    assert thermal.previous[0].mean_temp_c == pytest.approx({"cold": 35.0, "hot": 39.0}, abs=0.1)
    assert thermal.previous[0].p_value < 0.001
    assert thermal.effect is not None
    # The CPU's share of the energy knows no temperature here.
    assert 0.2 < thermal.effect.percent_per_c < 0.5
    assert thermal.effect.low < thermal.effect.percent_per_c < thermal.effect.high


def test_logs_of_any_name_in_any_depth(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "deep" / "er")
    folder = campaign.add_run(0, 0)
    (folder / "energibridge.csv").rename(folder / "measurement_7.csv")
    folder.rename(folder.with_name("first try"))
    (run,) = audit_folder(tmp_path).runs
    assert run.run_id == "first try"
    assert run.window is not None


def test_the_document_is_complete_and_valid_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0, cells={"energy": "5000.0"})
    campaign.write_table()
    assert main(["audit", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(to_json(audit_folder(tmp_path)), default=str))
    assert document["runs"][0]["window"]["total_j"] == pytest.approx(35000, rel=1e-4)
    assert document["runs"][0]["treatment"] == {}
    assert document["tables"][0]["rows"][0]["cause"] == "cpu_only"


def test_what_is_printed_names_the_run_and_its_energy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Campaign(tmp_path).add_run(0, 0)
    assert main(["audit", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 runs read" in printed
    assert "run_0 rep 0" in printed and "39200" in printed


@pytest.mark.parametrize("make", [False, True])
def test_nothing_to_audit_is_said(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "results"
    if make:
        folder.mkdir()
        (folder / "run_table.csv").write_text("__run_id,__done\nrun_0_repetition_0,DONE\n")
    with pytest.raises(UsageError, match="no EnergiBridge log" if make else "no folder"):
        audit_folder(folder)


def test_a_table_that_is_none_is_said(tmp_path: Path) -> None:
    Campaign(tmp_path).add_run(0, 0)
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="__run_id"):
        audit_folder(tmp_path, tables=[other])

"""Profiles from files: our own results, our CSVs, shared tables; and files that are wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from control.profile_import import import_table, profile_of_results
from control.profile_table import Profile, ProfileError, make_profile, profile_csv, write_profile
from tests.control.profile_double import SHARED, made_up_cells, write_shared

SHARED_HEADER = "gpu_frequency_mhz,batch_size,latency_s,power_w"
RUN_HEADER = (
    "__run_id,__done,clock_mhz,batch,input_len,output_len,energy_j,gpu_energy_j,energy_method,duration_s,"
    "n_output_tokens,n_prompt_tokens,state,reasons"
)


def write_results(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run_table.csv").write_bytes(("\r\n".join([RUN_HEADER, *rows]) + "\r\n").encode())
    return folder


def run_row(
    number: int, clock: int, batch: int, duration_s: float, gpu_j: str = "400", state: str = "DONE", tokens: int = 0
) -> str:
    """Two batches of 100 tokens in and 50 out."""
    n_tokens = tokens or 2 * batch * 50
    return (
        f"run_{number}_repetition_0,DONE,{clock},{batch},100,50,1000,{gpu_j},counter,{duration_s},{n_tokens},"
        f"{2 * batch * 100},{state},"
    )


def todo_row(number: int, clock: int, batch: int) -> str:
    return f"run_{number}_repetition_0,TODO,{clock},{batch},100,50, , , , , , ,FAILED,no_gpu: gone"


def test_a_run_becomes_latency_of_one_batch_and_mean_power(tmp_path: Path) -> None:
    folder = write_results(
        tmp_path / "e", [run_row(0, 705, 1, 8.0), run_row(1, 705, 2, 10.0), run_row(2, 705, 1, 12.0)]
    )
    profile = profile_of_results(folder).profile
    one, two = profile.cells
    # Repetitions: 4 s and 6 s for each batch, 50 W and 33.3 W.
    assert (one.batch_size, one.n_repetitions, one.latency_s) == (1, 2, 5.0)
    assert one.power_w == pytest.approx((400 / 8 + 400 / 12) / 2)
    assert (two.latency_s, two.power_w, two.domain, two.method) == (5.0, 40.0, "gpu", "counter")
    assert profile_of_results(folder, total_power=True).profile.cells[1].power_w == 100.0


def test_holes_and_runs_that_do_not_count_are_named(tmp_path: Path) -> None:
    rows = [run_row(0, 705, 1, 8.0), run_row(1, 705, 2, 9.0, state="SUSPECT"), todo_row(2, 1410, 1)]
    folder = write_results(tmp_path / "e", [*rows, run_row(3, 1410, 2, 7.0)])
    imported = profile_of_results(folder)
    assert imported.profile.holes == ("705 MHz, batch 2, 100 in, 50 out", "1410 MHz, batch 1, 100 in, 50 out")
    assert [each.split(":")[0] for each in imported.left_out] == ["run_1_repetition_0", "run_2_repetition_0"]
    assert "no_gpu: gone" in imported.left_out[1]
    assert len(profile_of_results(folder, include_suspect=True).profile.cells) == 3


def test_power_is_of_the_gpu_only_where_all_runs_have_it(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "e", [run_row(0, 705, 1, 10.0), run_row(1, 705, 2, 10.0, gpu_j="")])
    assert {(cell.power_w, cell.domain) for cell in profile_of_results(folder).profile.cells} == {(100.0, "total")}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (run_row(0, 705, 2, 8.0, tokens=199), "answers ended early"),
        (run_row(0, 705, 2, 8.0).replace(",400,DONE", ",410,DONE"), "its prompts have 410 tokens"),
        (run_row(0, 705, 2, 0.0), "latency_s of the cell 705 MHz, batch 2, 100 in, 50 out is 0"),
        (todo_row(0, 705, 1), "No run of .* counts: run_0_repetition_0: FAILED"),
    ],
)
def test_results_that_say_what_cannot_be_are_refused(row: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=told):
        profile_of_results(write_results(tmp_path / "e", [row]))


def test_a_folder_without_a_table_or_factors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="orchestrator export"):
        profile_of_results(tmp_path)
    (tmp_path / "run_table.csv").write_text("__run_id,__done,w_star\nrun_0_repetition_0,DONE,50\n")
    with pytest.raises(ProfileError, match=r"runnerconfig/dvfs_profile\.py"):
        profile_of_results(tmp_path)


def test_a_clock_that_was_not_set_is_given_or_not_known(tmp_path: Path) -> None:
    header = RUN_HEADER.replace("clock_mhz,", "")
    row = run_row(0, 705, 1, 8.0).replace(",705,", ",")
    (tmp_path / "run_table.csv").write_text(f"{header}\n{row}\n")
    assert profile_of_results(tmp_path).profile.cells[0].clock_mhz is None
    assert profile_of_results(tmp_path, clock_mhz=2445.0).profile.cells[0].clock_mhz == 2445.0


def test_a_profile_is_written_and_read_to_the_last_bit(tmp_path: Path) -> None:
    cells = made_up_cells(noise=0.05)
    cells[3] = replace(cells[3], n_repetitions=4, method="estimate", clock_mhz=None)
    profile = make_profile(cells, "made up")
    write_profile(profile, tmp_path / "p.csv")
    again = import_table(tmp_path / "p.csv").profile
    assert again.cells == profile.cells and again.sha256 == profile.sha256 and again.is_estimate


def test_the_csv_is_the_same_whatever_the_order() -> None:
    cells = made_up_cells(noise=0.05)
    assert profile_csv(make_profile(cells[::-1], "a")) == profile_csv(make_profile(cells, "a"))


def test_early_answers_of_a_shared_table_are_flagged_and_the_flag_is_kept(tmp_path: Path) -> None:
    cells = made_up_cells(noise=0.01)
    cells[5] = replace(cells[5], latency_s=cells[5].latency_s / 4)
    imported = import_table(write_shared(tmp_path / "t.csv", cells))
    flagged = [cell for cell in imported.profile.cells if cell.flag]
    assert [(cell.clock_mhz, cell.batch_size) for cell in flagged] == [(cells[5].clock_mhz, cells[5].batch_size)]
    assert "ended early" in flagged[0].flag
    write_profile(imported.profile, tmp_path / "p.csv")
    assert import_table(tmp_path / "p.csv").profile.cells == imported.profile.cells


def test_lengths_are_chosen_or_given(tmp_path: Path) -> None:
    cells = made_up_cells()
    path = write_shared(tmp_path / "t.csv", [*cells, *(replace(cell, n_input_tokens=7) for cell in cells)])
    assert import_table(path).profile.pairs == ((7, 50), (100, 50))
    assert import_table(path, n_input_tokens=7).profile.pairs == ((7, 50),)
    with pytest.raises(ProfileError, match="100/50, 7/50"):
        import_table(path, n_input_tokens=8)
    path.write_text(f"{SHARED_HEADER}\n705,1,2,3\n1410,1,1,4\n")
    assert import_table(path, n_input_tokens=500, n_output_tokens=300).profile.pairs == ((500, 300),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no rows"),
        (SHARED_HEADER, "no rows"),
        (f"{SHARED_HEADER}\n705,1,2.0,100\n810,1,1.9\n", "row 3, has 3 cells"),
        (f"{SHARED_HEADER}\n705,1,2.0,-100\n", "power_w of the cell 705 MHz, batch 1 is -100"),
        (f"{SHARED_HEADER}\n705,1,nan,100\n", "row 2, column latency_s: 'nan'"),
        (f"{SHARED_HEADER}\n705,1.5,2,100\n", "row 2, column batch_size: '1.5'"),
        (f"{SHARED_HEADER}\n705,0,2,100\n", "batch 0"),
        (f"{SHARED_HEADER},colour\n705,1,2,100,red\n", "'colour' is unknown"),
        ("gpu_frequency_mhz,batch_size,latency_s\n705,1,2\n", "'power_w' is missing"),
        (f"{SHARED_HEADER},power_w\n705,1,2,100,100\n", "'power_w' twice"),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_column(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ProfileError, match=told):
        import_table(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\x80\x81\xfe\xff")
    with pytest.raises(ProfileError, match="cannot be read as a CSV"):
        import_table(path)
    with pytest.raises(ProfileError, match="cannot be read as a CSV"):
        import_table(tmp_path / "none.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared A100 tables are not here")
def test_the_shared_tables_come_in_whole() -> None:
    def imported(name: str) -> Profile:
        return import_table(SHARED / f"{name}.csv").profile

    lengths = imported("a100_qwen25_7b_lengths")
    assert lengths.pairs == ((50, 50), (150, 100), (250, 150), (500, 300)) and len(lengths.cells) == 4 * 105
    recovered = imported("a100_llama31_8b_recovered")
    assert len(recovered.cells) == 165 and not recovered.holes and not lengths.holes
    assert "10%" in next(cell for cell in recovered.cells if (cell.clock_mhz, cell.batch_size) == (1155, 1)).flag

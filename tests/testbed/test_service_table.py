import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.simulation.service_table import ServiceTable, ServiceTableError, read_service_table

A100 = Path(__file__).resolve().parents[3] / "shared" / "data" / "a100"
needs_shared = pytest.mark.skipif(not A100.exists(), reason="the shared A100 tables are not here")

HEADER = "gpu_frequency_mhz,batch_size,latency_s,power_w"
ROWS = ["705,1,2.5,80.5", "705,2,2.75,90.25", "1410,1,1.5,150.125", "1410,2,1.75,159.75"]


def written(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + end)
    return path


def refused(folder: Path, *lines: str, end: str = "\n") -> str:
    with pytest.raises(ServiceTableError) as caught:
        read_service_table(written(folder, *lines, end=end))
    return caught.value.message


def test_reads_rows_in_any_order(tmp_path: Path) -> None:
    table = read_service_table(written(tmp_path, HEADER, *reversed(ROWS)))
    assert table.clock_mhz.tolist() == [705, 1410] and table.batch_sizes.tolist() == [1, 2]
    assert table.latency_s.tolist() == [[2.5, 2.75], [1.5, 1.75]]
    assert table.power_w[table.row(1410), table.column(2)] == 159.75
    assert table.energy_j[0, 1] == 2.75 * 90.25
    assert (table.source, table.n_input_tokens, table.max_batch) == ("table.csv", None, 2)


def test_columns_in_any_order_and_spaces_in_the_header(tmp_path: Path) -> None:
    table = read_service_table(written(tmp_path, HEADER, *ROWS))
    shuffled = [",".join(line.split(",")[::-1]) for line in (HEADER.replace(",", " , "), *ROWS)]
    assert read_service_table(written(tmp_path, *shuffled)).sha256 == table.sha256


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            st.lists(st.floats(1, 5000), min_size=n, max_size=n, unique=True),
            st.lists(st.floats(1e-9, 1e9), min_size=6 * n, max_size=6 * n),
        )
    )
)
def test_a_table_comes_back_from_its_csv(figures: tuple[list[float], list[float]]) -> None:
    clocks, cells = sorted(figures[0]), np.array(figures[1]).reshape(2, len(figures[0]), 3)
    table = ServiceTable(np.array(clocks), np.arange(1, 4), cells[0], cells[1], "made", 500, 300)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [float(row["latency_s"]) for row in rows] == cells[0].ravel().tolist()
    assert {row["input_len"] for row in rows} == {"500"}


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    table = read_service_table(written(tmp_path, HEADER, *ROWS))
    table.write(tmp_path / "again.csv")
    again = read_service_table(tmp_path / "again.csv")
    assert again.sha256 == table.sha256
    assert (tmp_path / "again.csv").read_text().splitlines()[1] == ROWS[0]
    other = read_service_table(written(tmp_path, HEADER, *ROWS[:3], "1410,2,1.75,159.76"))
    assert other.sha256 != table.sha256


def test_one_of_several_lengths(tmp_path: Path) -> None:
    lines = [f"{HEADER},input_len,output_len"]
    lines += [f"{row},{pair}" for pair in ("50,50", "500,300", "500,50") for row in ROWS]
    path = written(tmp_path, *lines)
    table = read_service_table(path, 500, 300)
    assert (table.n_input_tokens, table.n_output_tokens) == (500, 300)
    assert read_service_table(path, n_output_tokens=300).sha256 == table.sha256
    with pytest.raises(ServiceTableError, match=r"several lengths; choose one.* of 500/50, 500/300 tokens"):
        read_service_table(path, 500)
    with pytest.raises(ServiceTableError, match=r"no rows of the lengths asked for; choose.*50/50, 500/50, 500/300"):
        read_service_table(path, 7)


@pytest.mark.parametrize(
    ("cell", "column"), [("-1", "power_w"), ("0", "power_w"), ("nan", "power_w"), ("inf", "power_w"), ("", "power_w")]
)
def test_a_wrong_figure_is_named(tmp_path: Path, cell: str, column: str) -> None:
    said = refused(tmp_path, HEADER, *ROWS[:2], f"1410,1,1.5,{cell}", ROWS[3])
    assert "line 4" in said and column in said and repr(cell) in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEADER], "no rows"),
        ([], "no rows"),
        (["gpu_frequency_mhz,batch_size,latency_s", *ROWS], "no column power_w"),
        ([f"{HEADER},votes_lat", *(f"{row},3" for row in ROWS)], "unknown column votes_lat"),
        ([f"{HEADER},input_len", *(f"{row},3" for row in ROWS)], "together"),
        ([HEADER, *ROWS[:3]], "1 of 4 cells are missing: 1410 MHz x batch 2"),
        ([HEADER, *ROWS[:2]], "1 clock(s); there is nothing to choose between"),
        ([HEADER, *ROWS, ROWS[1]], "lines 3 and 6 are both 705 MHz, batch 2"),
        ([HEADER, "705,1.5,2,3", *ROWS], "column batch_size: '1.5' is not a whole number above 0"),
        ([HEADER, "705,1,2,3", "705,3,2,3", "1410,1,2,3", "1410,3,2,3"], "batch size 2 is missing"),
        ([HEADER, *ROWS[:3], "1410,2,1.7"], "line 5 has 3 of 4 columns"),
        ([HEADER, *ROWS[:3], "1410,2,1.75,159.75,1"], "line 5 has 5 of 4 columns"),
        ([HEADER, "volts,1,2,3", *ROWS], "line 2, column gpu_frequency_mhz"),
    ],
)
def test_a_wrong_table_is_refused_with_the_next_step(tmp_path: Path, lines: list[str], said: str) -> None:
    assert said in refused(tmp_path, *lines)


def test_every_cut_of_a_file_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = "\n".join([HEADER, *ROWS]) + "\n"
    path = tmp_path / "cut.csv"
    for length in range(len(whole)):
        path.write_text(whole[:length])
        try:
            table = read_service_table(path)
        except ServiceTableError:
            continue
        # What is left of the last figure is off by less than one per cent.
        assert table.power_w[1, 1] == pytest.approx(159.75, rel=0.01)


def test_what_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "binary.csv", tmp_path / "absent.csv", tmp_path):
        with pytest.raises(ServiceTableError, match="cannot be read"):
            read_service_table(path)


def test_a_table_made_by_hand_is_checked() -> None:
    good = {
        "clock_mhz": np.array([1.0, 2.0]),
        "batch_sizes": np.array([1, 2, 3]),
        "latency_s": np.ones((2, 3)),
        "power_w": np.ones((2, 3)),
    }
    wrong: list[tuple[str, object, str]] = [
        ("clock_mhz", np.array([2.0, 1.0]), "rising"),
        ("batch_sizes", np.array([1, 2, 4]), "batch size 3 is missing"),
        ("latency_s", np.ones((3, 2)), r"shape \(3, 2\)"),
        ("power_w", np.array([[1, 1, 1], [1, -1, 1]]), "power_w is -1 at 2 MHz, batch 2"),
    ]
    for name, value, said in wrong:
        with pytest.raises(ServiceTableError, match=said):
            ServiceTable(**(good | {name: value}), source="made")  # type: ignore[arg-type]


def test_nothing_changes_a_table() -> None:
    latency_s = np.ones((2, 1))
    table = ServiceTable(np.array([1.0, 2.0]), np.array([1]), latency_s, np.ones((2, 1)), "made")
    latency_s[0, 0] = 5
    assert table.latency_s[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        table.power_w[0, 0] = 2


def test_a_clock_or_batch_that_is_not_there() -> None:
    table = ServiceTable(np.array([705.0, 1410.0]), np.array([1]), np.ones((2, 1)), np.ones((2, 1)), "made")
    for call in (
        lambda: table.row(1000.0),
        lambda: table.row(2000.0),
        lambda: table.column(2),
        lambda: table.column(0),
    ):
        with pytest.raises(ServiceTableError, match="the table has"):
            call()


@needs_shared
@pytest.mark.parametrize("name", ["a100_qwen25_7b_500_300.csv", "a100_llama31_8b_clean.csv"])
def test_the_shared_tables(name: str) -> None:
    table = read_service_table(A100 / name)
    assert table.latency_s.shape == (15, 64)
    assert table.clock_mhz[[0, -1]].tolist() == [705, 1410]


@needs_shared
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a100_llama31_8b.csv", "batch size 3, 5, 6"),
        ("a100_llama31_8b_recovered.csv", "votes_lat"),
        ("a100_qwen25_7b_lengths.csv", "several lengths"),
    ],
)
def test_the_shared_tables_that_need_a_model_first(name: str, said: str) -> None:
    with pytest.raises(ServiceTableError, match=said):
        read_service_table(A100 / name)


def test_one_clock_is_a_table_only_where_that_is_meant(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER, *ROWS[:2])
    table = read_service_table(path, is_clock_left_alone=True)
    assert (table.n_clocks, table.max_batch) == (1, 2)
    with pytest.raises(ServiceTableError, match="nothing to choose"):
        read_service_table(path)

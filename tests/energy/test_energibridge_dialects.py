"""What an EnergiBridge log may look like, and that the quick and the strict reader never disagree."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import LogFormatError
from energy.energibridge_columns import find_separator
from energy.energibridge_log import EnergiBridgeLog, read_energibridge_log, read_energibridge_logs
from energy.energibridge_rows import Table
from energy.energibridge_table import read_strictly, read_tables
from energy.integrate import CumulativeEnergy
from energy.trace import Quantity

HEADER = "Delta,Time,CPU_USAGE_0,GPU0_MEMORY_USED,GPU0_POWER (mWatts),GPU0_TEMPERATURE,GPU0_USAGE,PACKAGE_ENERGY (J)"
ROWS = [
    "0,1000000,3,357,100000,39,0,10.5",
    "200,1000000,4,357,100000,40,50,12.5",
    "200,1000200,5,358,90000,41,100,22.5",
]
LINES = [HEADER, *ROWS]
TEXT = "".join(f"{line}\n" for line in LINES)
PACKAGE = [12.5, 22.5]


def log(folder: Path, text: str | bytes, name: str = "energibridge.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def package(read: EnergiBridgeLog) -> list[float]:
    return next(trace for trace in read.traces if trace.domain == "cpu_package").values.tolist()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("as it is", TEXT),
        ("carriage returns", TEXT.replace("\n", "\r\n")),
        ("byte order mark", "\ufeff" + TEXT),
        ("quoted names", TEXT.replace(HEADER, ",".join(f'"{each}"' for each in HEADER.split(",")))),
        ("quoted fields", "\n".join(",".join(f'"{each}"' for each in line.split(",")) for line in LINES) + "\n"),
        ("blank lines", "\n \n" + TEXT.replace("\n", "\n\n")),
        ("spaces around fields", TEXT.replace(",", " , ")),
        ("semicolons", TEXT.replace(",", ";")),
        ("tabs", TEXT.replace(",", "\t")),
        ("bars", TEXT.replace(",", "|")),
        ("bars and spaces", TEXT.replace(",", " | ")),
        ("spaces", TEXT.replace(",", " ")),
        ("two characters", TEXT.replace(",", "::")),
        ("columns reversed", "".join(",".join(line.split(",")[::-1]) + "\n" for line in LINES)),
        ("fractions of a millisecond", TEXT.replace("1000000,", "1000000.0,").replace("1000200,", "1000200.00,")),
        ("an early release's spelling", TEXT.replace("PACKAGE", "PACAKGE")),
        ("an unknown column", "".join(line.replace(",", ",x y (z),", 1) + "\n" for line in LINES)),
    ],
)
def test_each_spelling_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    read = read_energibridge_log(log(tmp_path, text))
    assert package(read) == PACKAGE
    assert read.traces[0].time_s.tolist() == [1000.0, 1000.2]
    assert (read.n_rows, read.n_duplicates, read.notes) == (2, 1, ())


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "::", " | ", "~", "\x1f"])
def test_a_separator_is_found_or_given(tmp_path: Path, separator: str) -> None:
    path = log(tmp_path, TEXT.replace(",", separator))
    assert package(read_energibridge_log(path)) == package(read_energibridge_log(path, separator=separator)) == PACKAGE


@pytest.mark.parametrize("separator", ["", "a", "\n", '"'])
def test_what_can_be_no_separator_is_refused(tmp_path: Path, separator: str) -> None:
    with pytest.raises(ValueError, match="no separator"):
        read_energibridge_log(log(tmp_path, TEXT), separator=separator)


def test_a_separator_is_not_guessed() -> None:
    assert find_separator("Delta,Time;CPU_USAGE_0") is None
    assert find_separator("Delta,Something,Time,Else,PP0_ENERGY (J)") == ","
    assert find_separator("Delta,Something;Time") is None
    assert find_separator("one,two,three") is None


def test_gauges_have_si_units(tmp_path: Path) -> None:
    path = log(tmp_path, TEXT)
    gauges: dict[Quantity, list[float]] = {
        each.quantity: each.values.tolist() for each in read_energibridge_log(path).gauges
    }
    assert gauges == {"memory_used_bytes": [357 * 2.0**20, 358 * 2.0**20], "temp_c": [40, 41], "utilisation": [0.5, 1]}
    assert {each.domain for each in read_energibridge_log(path).gauges} == {"gpu:0"}
    without = read_energibridge_log(path, with_gauges=False)
    assert without.gauges == ()
    assert [each.domain for each in without.traces] == ["gpu:0", "cpu_package"]


def test_a_temperature_of_0_throughout_is_no_sensor(tmp_path: Path) -> None:
    text = TEXT.replace(",39,", ",0,").replace(",40,", ",0,").replace(",41,", ",0,")
    assert {each.quantity for each in read_energibridge_log(log(tmp_path, text)).gauges} == {
        "memory_used_bytes",
        "utilisation",
    }


def test_a_stale_gpu_and_a_counter_that_steps_down_are_handed_on_raw(tmp_path: Path) -> None:
    rows = [f"{200 * i},50000,{value}" for i, value in enumerate([262140.0, 262143.0, 2.0, 7.0])]
    read = read_energibridge_log(
        log(tmp_path, "\n".join(["Time,GPU0_POWER (mWatts),PACKAGE_ENERGY (J)", *rows]) + "\n")
    )
    gpu, cpu = read.traces
    assert set(gpu.values) == {50.0}
    assert cpu.values.tolist() == [262140.0, 262143.0, 2.0, 7.0]
    window = CumulativeEnergy(cpu).window(cpu.time_s[0], cpu.time_s[-1])
    assert (window.energy_j, window.n_wraps) == (pytest.approx(11.0), 1)


def test_of_rows_with_one_time_the_last_counts(tmp_path: Path) -> None:
    text = "Time,PACKAGE_ENERGY (J)\n0,1\n200,2\n200,3\n200,4\n400,5\n"
    read = read_energibridge_log(log(tmp_path, text))
    assert (package(read), read.n_rows, read.n_duplicates) == ([1, 4, 5], 3, 2)


def test_a_single_row_is_a_log_without_energy(tmp_path: Path) -> None:
    read = read_energibridge_log(log(tmp_path, TEXT.replace("\n".join(ROWS[1:]) + "\n", "")))
    assert read.n_rows == 1
    assert all(CumulativeEnergy(each).window(0, 2000).energy_j is None for each in read.traces)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (TEXT + "Energy consumption in joules: 12.3 for 4.5 sec of execution.\n", "1 lines that EnergiBridge printed"),
        (TEXT + "Energy consumption in joules: 12.3 for 4.5 sec of execution.", "1 lines that EnergiBridge printed"),
        (TEXT + "\nReceived Ctrl+C, stopping...\n", "1 lines that EnergiBridge printed"),
        (TEXT.replace("3,357,100000,39,0,10.5", "3,357,100000,39,0,10.5,77"), "1 rows are longer"),
        (TEXT.replace(",", ";").replace(".", ","), "decimal commas"),
        (TEXT + "200,1000400,5", "cut off"),
        (TEXT.encode() + b"200,1000400,5\x00\xff\xfe", "cut off"),
    ],
)
def test_what_is_tolerated_is_noted(tmp_path: Path, text: str | bytes, note: str) -> None:
    read = read_energibridge_log(log(tmp_path, text))
    assert package(read) == PACKAGE
    assert len(read.notes) == 1
    assert note in read.notes[0]
    assert all(note in each.note for each in read.traces)


SEMICOLONS = TEXT.replace(",", ";")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("\ufeff\r\n \r\n", 1, "empty"),
        (HEADER, 1, "no complete row"),
        (HEADER + "\n", 2, "no complete row"),
        ("\n\n" + HEADER + "\n\n", 4, "no complete row"),
        (HEADER + "\n" + ROWS[0], 2, "no complete row"),
        (TEXT.replace("Delta,Time,", "Delta,Time,Time,"), 1, "Time is there twice"),
        (TEXT.replace("CPU_USAGE_0", "GPU0_USAGE"), 1, "GPU0_USAGE is there twice"),
        (TEXT.replace("CPU_USAGE_0", "CPU_ENERGY (J)"), 1, "both the energy of cpu_package"),
        ("Hello from the model, that was measured\n" + TEXT, 1, "no separator can be told"),
        ("loading; please wait\n" + TEXT, 1, "no separator can be told"),
        (TEXT.replace(ROWS[1], "Hello\n" + ROWS[1]), 3, "1 fields, but the header has 8"),
        (TEXT.replace(ROWS[1], "\n\nHello, world\n" + ROWS[1]), 5, "2 fields, but the header has 8"),
        (TEXT.replace("12.5", "12.5Hello"), 3, "'12.5Hello', not a number"),
        (TEXT + TEXT, 5, "the header is repeated"),
        (TEXT + "Time,Delta,PACKAGE_ENERGY (J)\n", 5, "the header is repeated"),
        (TEXT.replace("12.5", "1_2.5"), 3, "not a number"),
        (TEXT.replace("12.5", ""), 3, "'', not a number"),
        (TEXT.replace("12.5", "١٢"), 3, "not a number"),
        (TEXT.replace("12.5", "0x12"), 3, "not a number"),
        (TEXT.replace("12.5", "NaN"), 3, "not finite"),
        (TEXT.replace("12.5", "1e999"), 3, "not finite"),
        (TEXT.replace(",1000200,", ",inf,"), 4, "Time is 'inf'"),
        ("\r\n" + TEXT.replace("1000200", "999999").replace("\n", "\r\n\r\n"), 8, "backwards"),
        (TEXT.replace("12.5", '"12.5'), 3, "quotes"),
        (TEXT.encode().replace(b"12.5", b"12\xff5"), 3, "UTF-8"),
        (TEXT.encode("utf-16"), 1, "UTF-16"),
        (SEMICOLONS.replace("10.5", "10,5"), 3, "decimal commas"),
        (SEMICOLONS.replace(".5", "").replace("100000;40", "1,000,000;40"), 3, "not a number"),
        # As many separators as sound rows would have, and what is missing or too much is of a column that is not read.
        ("Time,PP0_ENERGY (J),Delta\n0,1,2\n200,2\n400,3,4,5\n", 3, "2 fields, but the header has 3"),
        ("Time,PP0_ENERGY (J),Delta\n0,1,2,3\n\n200,2\n400,3,4\n", 4, "2 fields, but the header has 3"),
    ],
)
def test_bad_logs_are_named_by_file_and_line(tmp_path: Path, text: str | bytes, line: int, words: str) -> None:
    path = log(tmp_path, text)
    with pytest.raises(LogFormatError, match=re.escape(words)) as caught:
        read_energibridge_log(path)
    assert caught.value.detail == {"file": str(path), "line": line}


def test_many_logs_come_in_order_each_with_its_own_outcome(tmp_path: Path) -> None:
    texts = [TEXT, TEXT.replace("12.5", "x"), TEXT, "", TEXT.replace(",", ";"), TEXT, TEXT + "9"]
    paths = [log(tmp_path, text, f"{index}.csv") for index, text in enumerate(texts)] + [tmp_path / "none.csv"]
    found = list(read_energibridge_logs(paths))
    assert [path for path, _ in found] == paths
    assert [isinstance(outcome, LogFormatError) for _, outcome in found] == [
        False,
        True,
        False,
        True,
        *[False] * 3,
        True,
    ]
    for path, outcome in found:
        if isinstance(outcome, EnergiBridgeLog):
            assert package(outcome) == PACKAGE
        else:
            assert outcome.detail["file"] == str(path)


NUMBERS = st.one_of(
    st.integers(0, 10**13).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(0, 262144).map(repr),
    st.sampled_from(
        ["0", "-0.0", "+5", ".5", "5.", "1e5", "1E-3", " 7", "7 ", "\t7", "0007", "1e400", "inf", "NaN", ""]
    ),
    st.sampled_from(["1_0", "0x1", "1e", ".", "-", "--1", "1f", "1 2", "infinity", "1d5", "true", "1,5", "Energy"]),
)
SOUND_NUMBERS = st.one_of(st.integers(0, 10**6).map(str), st.floats(0, 262144).map(repr))
NAMES = (
    "Delta",
    "CPU_USAGE_0",
    "USED_SWAP",
    "PACKAGE_ENERGY (J)",
    "GPU0_POWER (mWatts)",
    "GPU0_TEMPERATURE",
    "DRAM (x)",
)


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """A log of a random dialect, sound or damaged."""
    names = draw(st.permutations(["Time", *draw(st.sets(st.sampled_from(NAMES), min_size=1))]))
    numbers = draw(st.sampled_from([SOUND_NUMBERS, SOUND_NUMBERS, NUMBERS]))
    rows = [[draw(numbers) for _ in names] for _ in range(draw(st.integers(0, 4)))]
    # Row by row, fields too many and too few: they may balance.
    for row in rows:
        change = draw(st.sampled_from([0, 0, 0, 1, -1]))
        row.extend(["3"] * change)
        del row[len(names) + change :]
    separator = draw(st.sampled_from([",", ",", ",", ";", "\t", "|", " ", "::", "."]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    data = "".join(separator.join(row) + end for row in [list(names), *rows]).encode()
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        junk = draw(
            st.sampled_from([b"", b",", b"\n", b"\r", b'"', b" ", b"x", b"9", b"\xff", b"\xc3\xa9", b"\n\n", b"\x0b"])
        )
        data = data[:at] + junk + data[at + draw(st.sampled_from([0, 0, 1, 5])) :]
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + data


def outcome_of(table: Table | LogFormatError) -> object:
    if isinstance(table, LogFormatError):
        return table.message, table.detail
    columns = [(name, values.view(np.int64).tolist()) for name, values in table.columns.items()]
    return columns, list(table.lines), table.header_line, table.notes


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(logs(), min_size=1, max_size=4), separator=st.sampled_from([None, None, ",", ";"]))
def test_the_quick_and_the_strict_reader_agree_bit_by_bit(
    tmp_path: Path, texts: list[bytes], separator: str | None
) -> None:
    # Twice each, so that batches have more than one log.
    paths = [
        log(tmp_path, text, f"{index}.csv") for index, text in enumerate(each for one in texts for each in (one, one))
    ]
    for path, table in read_tables(paths, separator=separator):
        strict: Table | LogFormatError
        try:
            strict = read_strictly(path, separator=separator)
        except LogFormatError as error:
            strict = error
        assert outcome_of(table) == outcome_of(strict)

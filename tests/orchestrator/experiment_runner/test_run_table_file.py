"""Experiment Runner's run table and metadata, byte by byte, and broken ones."""

import base64
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import ConfigError
from orchestrator.experiment_runner.run_table_file import (
    METADATA,
    RUN_TABLE,
    UNTOUCHED,
    read_any_run_table,
    read_run_table,
    read_sum,
    write_run_table,
    write_sum,
)
from tests.orchestrator.experiment_runner.studies import SHARED, read_as_experiment_runner

GOOD = "__run_id,__done,task,n,energy\r\nrun_1_repetition_0,DONE,RTE,4,12.5\r\nrun_0_repetition_0,TODO,BoolQ,4, \r\n"
FACTORS, COLUMNS = ["task", "n"], ["energy"]


def put(folder: Path, text: str) -> Path:
    (folder / RUN_TABLE).write_bytes(text.encode())
    return folder


def test_a_table_is_read_as_it_stands(tmp_path: Path) -> None:
    done, todo = read_run_table(put(tmp_path, GOOD), FACTORS, COLUMNS).rows
    assert (done.line, done.run_id, done.is_done, done.cells) == (
        2,
        "run_1_repetition_0",
        True,
        {"task": "RTE", "n": "4", "energy": "12.5"},
    )
    assert (todo.line, todo.is_done, todo.cells["energy"]) == (3, False, UNTOUCHED)


_CELL = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8) | st.sampled_from([" ", "", 'a "q"', "x,y"])


@given(st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=5))
def test_what_is_written_is_read_again_and_written_the_same(cells: list[tuple[str, str]]) -> None:
    rows = [
        {"__run_id": f"run_{i}_repetition_0", "__done": "DONE", "task": task, "energy": energy}
        for i, (task, energy) in enumerate(cells)
    ]
    content = write_run_table(["__run_id", "__done", "task", "energy"], rows)
    assert content.count(b"\n") == content.count(b"\r\n")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / RUN_TABLE).write_bytes(content)
        table = read_run_table(Path(folder), ["task"], ["energy"])
    again = [{"__run_id": row.run_id, "__done": "DONE", **row.cells} for row in table.rows]
    assert again == rows
    assert write_run_table(["__run_id", "__done", *table.columns], again) == content


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("energy\r\n", "joules\r\n", 1, "it has 'joules', which the configuration does not declare; it lacks 'energy'"),
        ("energy\r\n", "energy,\r\n", 1, r"it has ''.*populate_run_data\(\) returns a name"),
        ("__run_id,__done", "__done,__run_id", 1, "not in the order"),
        ("DONE,RTE", "RUNNING,RTE", 2, "__done is 'RUNNING'"),
        ("run_1_repetition_0", "run_1", 2, "'run_1' is no run"),
        ("run_1_repetition_0", "run_0_repetition_0", 3, "run_0_repetition_0 is in line 2 already"),
        ("RTE,4,12.5", "RTE,4,12.5,9", 2, "6 cells in place of 5. Mend the line by hand"),
        ("TODO,BoolQ,4, \r\n", "TODO,Bo", 3, "3 cells in place of 5. It was only half written"),
        ("4, \r\n", "4, ", 3, "the last line has no end. It was only half written"),
        ("TODO,BoolQ,4, \r\n", 'TODO,"Bool', 3, "unexpected end of data. It was only half written"),
    ],
)
def test_a_broken_table_names_file_and_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    put(tmp_path, GOOD.replace(old, new, 1) if "4, " not in old else GOOD[: GOOD.rindex(old)] + new)
    with pytest.raises(ConfigError, match=message) as told:
        read_run_table(tmp_path, FACTORS, COLUMNS)
    assert str(told.value).startswith(f"{tmp_path / RUN_TABLE}, line {line}: ")


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no .*run_table.csv. Give the folder that Experiment Runner made"):
        read_run_table(tmp_path, FACTORS, COLUMNS)
    with pytest.raises(ConfigError, match="no rows"):
        read_run_table(put(tmp_path, GOOD.splitlines()[0] + "\r\n"), FACTORS, COLUMNS)
    with pytest.raises(ConfigError, match="line 1: it lacks '__run_id'"):
        read_run_table(put(tmp_path, ""), FACTORS, COLUMNS)


def test_metadata_has_the_form_that_is_restarted_from(tmp_path: Path) -> None:
    md5 = "1f2f0b2abbd2eb780b77a686c6025897"
    (tmp_path / METADATA).write_bytes(write_sum(md5))
    assert read_sum(tmp_path) == md5
    document = json.loads((tmp_path / METADATA).read_text())
    assert document["py/object"] == "ConfigValidator.Config.Models.Metadata.Metadata"
    assert base64.b64decode(document["_md5sum"]["py/b64"]).hex() == md5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"py/object": "os.system"}',
        '{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch /tmp/never"]}]}',
        '{"py/object": "ConfigValidator.Config.Models.Metadata.Metadata", "_md5sum": {"py/b64": "AAAA"}}',
        '{"py/object": "ConfigValidator.Config.Models.Metadata.Metadata", "_md5sum": {"py/b64": "???"}}',
    ],
)
def test_metadata_is_only_ever_text(tmp_path: Path, text: str) -> None:
    assert read_sum(tmp_path) is None
    (tmp_path / METADATA).write_text(text)
    with pytest.raises(ConfigError, match=r"metadata.json, line 1: this is not Experiment Runner's metadata"):
        read_sum(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public LLaMA study is not beside this checkout")
def test_the_public_table_round_trips_to_the_byte(tmp_path: Path) -> None:
    original = (SHARED / RUN_TABLE).read_bytes()
    table = read_any_run_table(SHARED)
    assert len(table.rows) == 900
    rows = [{"__run_id": row.run_id, "__done": "DONE" if row.is_done else "TODO", **row.cells} for row in table.rows]
    content = write_run_table(["__run_id", "__done", *table.columns], rows)
    assert content == original
    put(tmp_path, content.decode())
    assert read_as_experiment_runner(tmp_path / RUN_TABLE) == read_as_experiment_runner(SHARED / RUN_TABLE)
    assert write_sum(read_sum(SHARED) or "") == (SHARED / METADATA).read_bytes()

"""The log of the page's process: the form of both nodes' logs, without secrets."""

import json
import re
from pathlib import Path

import httpx
import pytest

from orchestrator.store.sql_store import SqlStore
from tests.dashboard.campaigns import TOKEN, served
from tests.orchestrator.doubles import plan

TOKEN_OF_TESTBED = "known-token-of-a-testbed-77"
LINE = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z WARNING orchestrator\.dashboard\.app: GET /runs/")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_have_the_form_of_both_nodes_and_no_secret(log_format: str, tmp_path: Path) -> None:
    store = SqlStore.open(tmp_path / "run_table.sqlite", create=True)
    store.create_experiment(plan(1))
    store.close()
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN_OF_TESTBED)
    testbed = ["--testbed", "http://127.0.0.1:9", "--testbed-token-file", str(token_file)]
    with served(tmp_path, tmp_path, "--log-format", log_format, *testbed) as page:
        for run_id in (TOKEN, TOKEN_OF_TESTBED, "run_0_repetition_0/artifacts/x%0aFORGED"):
            answer = httpx.get(f"{page.url}/runs/{run_id}", headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 404
    written = (tmp_path / "page.out").read_text()
    # What the person at the terminal is told, the token with it, is no line of the log.
    lines = [line for line in written.splitlines() if not line.startswith("Dashboard of ")]
    assert TOKEN not in "".join(lines)
    assert TOKEN_OF_TESTBED not in written
    if log_format == "json":
        messages = [json.loads(line)["message"] for line in lines]
    else:
        messages = lines
        assert all(LINE.match(line) or line.startswith("    ") for line in lines)
    assert sum("[hidden]" in message for message in messages) == 2
    assert any("FORGED" in message for message in messages)

"""What must not be imported is not, and the command line answers quickly."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "vllm", "transformers", "ray")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "module", ["orchestrator.cli", "orchestrator.run_command", "testbed.cli", "testbed.http_api", "testbed.node"]
)
def test_no_engine_is_imported(module: str) -> None:
    done = python("-c", f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_command_line_imports_nothing_it_does_not_need() -> None:
    names = ("httpx", "sqlalchemy", "polars", "fastapi", "numpy")
    done = python("-c", f"import sys, orchestrator.cli; print([name for name in {names} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_help_answers_quickly() -> None:
    begin_s = time.monotonic()
    done = python("-m", "orchestrator", "--help")
    took_s = time.monotonic() - begin_s
    assert done.returncode == 0, done.stderr
    for command in ("plan", "run", "status", "export", "doctor"):
        assert command in done.stdout
    assert took_s < 5, "about 0.5 s on an idle machine"

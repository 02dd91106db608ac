"""Fixtures of the orchestrator's tests."""

from pathlib import Path

import pytest

from tests.orchestrator.campaigns import Campaign


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """Three runs, none of them begun."""
    return Campaign(tmp_path)

"""Loaded engines, one of each kind for the whole session: a real one takes up to a minute to start."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.seams.engine_cases import CASES, MAX_CONCURRENCY, EngineCase, Loaded

PARAMS = [pytest.param(name, marks=[pytest.mark.vllm] if name == "vllm" else []) for name in CASES]


@pytest.fixture(scope="session", params=PARAMS)
def case(request: pytest.FixtureRequest) -> EngineCase:
    """Each engine that is installed."""
    found = CASES[request.param]
    if find_spec(found.module) is None:
        pytest.skip(f"{found.module} is not installed")
    return found


@pytest.fixture(scope="session")
def loaded(case: EngineCase) -> Iterator[Loaded]:
    """Each engine, loaded once for `MAX_CONCURRENCY` requests in flight."""
    engine = case.build()
    try:
        yield Loaded(case, engine, engine.load(case.model(), max_concurrency=MAX_CONCURRENCY, seed=7))
    finally:
        engine.close()
        engine.close()

"""The HTTP surface under generated requests: no 5xx with a token, nothing but refusals without.

JOULEBED_OPENAPI_EXAMPLES requests for each route, the same ones each time unless JOULEBED_OPENAPI_SEED draws others.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings

from contract import routes
from contract.errors import ErrorBody
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from testbed.http_api import create_app
from tests.testbed.node_doubles import make_node

TOKEN = "a-token-for-tests-only"
HEADERS = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}


REFUSALS = (401, 405, 413, 429)
"""405 and 413 say nothing that the source code does not say."""

N_EXAMPLES = int(os.environ.get("JOULEBED_OPENAPI_EXAMPLES", "25"))
SEED = os.environ.get("JOULEBED_OPENAPI_SEED")


def ask(operation: schemathesis.schemas.APIOperation, check: Callable[[schemathesis.Case], None]) -> None:
    """Put generated requests to a route."""
    test = settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        derandomize=SEED is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(case=operation.as_strategy())(check))
    (seed(int(SEED))(test) if SEED is not None else test)()


@pytest.fixture
def operations(tmp_path: Path) -> Iterator[list[schemathesis.schemas.APIOperation]]:
    node = make_node(tmp_path / "data")
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", create_app(node, TOKEN), headers=HEADERS)
    found = [result.ok() for result in schema.get_all_operations()]
    # An endless stream has no answer to check; it has a test of its own.
    yield [operation for operation in found if operation.path != routes.TELEMETRY]
    node.close()


def test_whoever_has_the_token_gets_answers_of_the_contract(
    operations: list[schemathesis.schemas.APIOperation],
) -> None:
    assert len(operations) >= 9
    for operation in operations:

        def check(case: schemathesis.Case) -> None:
            response = case.call(headers=HEADERS)
            assert response.status_code < 500, response.text
            assert response.status_code not in (401, 426)
            if response.status_code >= 400:
                assert ErrorBody.model_validate_json(response.content).message

        ask(operation, check)


@pytest.mark.parametrize("authorization", [None, "Bearer guess", TOKEN, f"Basic {TOKEN}"])
def test_nobody_else_gets_in(operations: list[schemathesis.schemas.APIOperation], authorization: str | None) -> None:
    headers = {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    if authorization is not None:
        headers["Authorization"] = authorization
    for operation in operations:
        if operation.path == routes.LIVE:
            continue

        def check(case: schemathesis.Case) -> None:
            assert case.call(headers=headers).status_code in REFUSALS

        ask(operation, check)

"""The wire format is pinned: a change here is a change of the protocol version, made on purpose.

To accept one: raise PROTOCOL_VERSION in contract/units.py if old nodes would misread it, then run
`python -m tests.contract.test_golden` to write the files anew, and read the diff.
"""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.contract.examples import EXAMPLES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", EXAMPLES)
def test_json_is_as_agreed(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_text()
    assert json.loads(EXAMPLES[name].model_dump_json()) == json.loads(golden)


@pytest.mark.parametrize("name", EXAMPLES)
def test_json_reads_back_equal(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_text()
    assert type(EXAMPLES[name]).model_validate_json(golden) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_unknown_fields_are_refused(name: str) -> None:
    message = json.loads((GOLDEN / f"{name}.json").read_text()) | {"surprise": 1}
    with pytest.raises(ValidationError, match="surprise"):
        type(EXAMPLES[name]).model_validate(message)


if __name__ == "__main__":
    for name, example in EXAMPLES.items():
        (GOLDEN / f"{name}.json").write_text(example.model_dump_json(indent=1) + "\n")

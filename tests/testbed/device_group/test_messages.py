"""What crosses between the trial's process and a device's: nothing is lost on the way."""

import json

from contract.trial_spec import SamplingSpec
from testbed.device_group.messages import pack_completions, pack_requests, unpack_completions, unpack_requests
from testbed.engines.base import Completion, GenerationRequest


def test_requests_and_completions_come_back_equal() -> None:
    asked = [
        GenerationRequest(f"r{layer}", ({"role": "user", "content": "x"},), SamplingSpec(max_tokens=3), 5, layer)
        for layer in (None, 9)
    ]
    assert unpack_requests(json.loads(json.dumps(pack_requests(asked)))) == asked
    plain = Completion("r", "text", "a" * 64, 7, 2, "length", 1, (2, 3), 4)
    early = Completion("s", "", "b" * 64, 7, 2, "stop", 1, (2, 3), 4, 0.5, 0.25, (9, 16), (1.5, 0.0))
    assert unpack_completions(json.loads(json.dumps(pack_completions([plain, early])))) == [plain, early]

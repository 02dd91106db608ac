"""A testbed in a process of its own, to be killed: `node_process.py DATA_DIR ATTEMPT_ID SPEC.json`.

Submits the attempt, if it is new, and waits for ever.
"""

import sys
import time
from pathlib import Path

from contract.trial_spec import TrialSpec
from testbed.node import TestbedNode


def main() -> None:
    data_dir, attempt_id, spec_path = sys.argv[1:]
    node = TestbedNode.open(Path(data_dir), default_meter="fake")
    node.submit(attempt_id, TrialSpec.model_validate_json(Path(spec_path).read_bytes()))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()

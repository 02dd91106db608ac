"""Speaks the child's protocol and misbehaves on demand; `workload.options` of the spec say how.

{"after": "ok" | "exit" | "signal" | "error" | "stubborn" | "orphan" | "lingers", "sleep_s": 0.1, "loading_s": 0.0}
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from contract.attempt_state import AttemptState
from contract.errors import ModelNotFoundError
from contract.trial_spec import TrialSpec
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord, Progress, write_atomic


def run(spec_path: Path, out_dir: Path) -> None:
    spec = TrialSpec.model_validate_json(spec_path.read_bytes())
    options = dict(spec.workload.options)
    after = options.get("after", "ok")
    with (out_dir / attempt_folder.PROGRESS).open("a") as progress:

        def note(state: AttemptState, done: int = 0) -> None:
            line = Progress(
                state=state, at_s=time.monotonic(), n_requests_done=done, n_requests=8, power_w={"cpu": 7.0}
            )
            progress.write(line.model_dump_json() + "\n")
            progress.flush()

        note(AttemptState.LOADING)
        time.sleep(float(options.get("loading_s", 0.0)))
        note(AttemptState.MEASURING, 3)
    print("a line for the log", os.environ.get("MARK", ""), file=sys.stderr, flush=True)
    if after == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        after = "ok"
    if after == "orphan":
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (out_dir / "orphan.pid").write_text(str(orphan.pid))
    time.sleep(float(options.get("sleep_s", 0.0)))
    if after == "exit":
        os._exit(3)
    if after == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    error = ModelNotFoundError("There is no such model.").body() if after == "error" else None
    write_atomic(out_dir / attempt_folder.RECORD, ChildRecord(origin_s=0.0, unix_minus_monotonic_s=0.0, error=error))


def main() -> None:
    if "--check" in sys.argv:
        request = json.loads(sys.stdin.read())
        if request["specs"][0]["workload"]["options"].get("after") == "exit":
            sys.exit("the check failed")
        print(json.dumps({"problems": []}))
    elif "--serve" in sys.argv:
        print("a library greets", flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            run(Path(order["spec"]), Path(order["out_dir"]))
            print(json.dumps({"out_dir": order["out_dir"], "done": True}), flush=True)
    else:
        run(Path(sys.argv[1]), Path(sys.argv[2]))
        if '"lingers"' in Path(sys.argv[1]).read_text():
            time.sleep(60)
        (Path(sys.argv[2]) / "arguments.json").write_text(json.dumps(sys.argv[1:]))


if __name__ == "__main__":
    main()

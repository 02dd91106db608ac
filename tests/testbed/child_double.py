"""Speaks the child's protocol and misbehaves on demand; `workload.options` of the spec say how.

{"after": see `misbehave`, "sleep_s": 0.1, "loading_s": 0.0, "hang_in": a state to hang in, "says": a line for the log}
"""

import ctypes
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from contract.attempt_state import AttemptState
from contract.errors import EngineError, JouleBedError, ModelNotFoundError
from contract.trial_spec import TrialSpec
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord, Progress, write_atomic

STATES = (
    AttemptState.LOADING,
    AttemptState.BASELINE,
    AttemptState.WARMUP,
    AttemptState.MEASURING,
    AttemptState.COLLECTING,
)
ORPHAN = "import time; time.sleep(60)"
STUBBORN_ORPHAN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ORPHAN}"


def hang_here() -> None:
    time.sleep(60)


def run(spec_path: Path, out_dir: Path) -> None:
    spec = TrialSpec.model_validate_json(spec_path.read_bytes())
    options = dict(spec.workload.options)
    with (out_dir / attempt_folder.PROGRESS).open("a") as progress:

        def note(state: AttemptState, done: int = 0) -> None:
            line = Progress(
                state=state, at_s=time.monotonic(), n_requests_done=done, n_requests=8, power_w={"cpu": 7.0}
            )
            progress.write(line.model_dump_json() + "\n")
            progress.flush()

        note(AttemptState.LOADING)
        time.sleep(float(options.get("loading_s", 0.0)))
        if "hang_in" in options:
            for state in STATES[: STATES.index(AttemptState(options["hang_in"])) + 1]:
                note(state)
            hang_here()
        note(AttemptState.MEASURING, 3)
    print("a line for the log", os.environ.get("MARK", ""), file=sys.stderr, flush=True)
    if "says" in options:
        print(options["says"], file=sys.stderr, flush=True)
    after = options.get("after", "ok")
    if after == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(float(options.get("sleep_s", 0.0)) if after != "flood" else 0.0)
    error = misbehave(str(after), options, out_dir)
    body = error.body() if error else None
    write_atomic(out_dir / attempt_folder.RECORD, ChildRecord(origin_s=0.0, unix_minus_monotonic_s=0.0, error=body))


def misbehave(after: str, options: dict[str, object], out_dir: Path) -> JouleBedError | None:
    """One way for a child to go wrong; what it would record as its error."""
    if after in ("orphan", "orphan_of_its_own", "orphan_and_death"):
        # Its own session, a title of its own, and SIGTERM ignored: what the worst of engines' workers do.
        code = ORPHAN if after == "orphan" else STUBBORN_ORPHAN
        orphan = subprocess.Popen([sys.executable, "-c", code], start_new_session=after != "orphan")
        (out_dir / "orphan.pid").write_text(str(orphan.pid))
    if after == "orphan_and_death":
        os.kill(os.getpid(), signal.SIGKILL)
    if after == "exit":
        os._exit(3)
    if after == "exit_0":
        os._exit(0)
    if after == "sys_exit":
        sys.exit(3)
    if after == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if after == "segfault":
        ctypes.string_at(0)
    if after == "abort":
        os.abort()
    if after == "raise":
        raise RuntimeError(str(options.get("words", "it broke")))
    if after == "flood":
        line = b"x" * 1023 + b"\n"
        for _ in range(int(str(options["flood_mib"])) * 16):
            os.write(2, line * 64)
        os.write(2, b"the last line\n")
        os._exit(4)
    if after == "closes_stdout":
        os.close(1)
    if after == "error":
        return ModelNotFoundError("There is no such model.")
    if after == "engine_error":
        return EngineError(str(options.get("words", "The engine fell over.")))
    return None


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
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

"""How much shorter is a campaign with a warm engine (`lifetime: block`) than with a process per run (`trial`)?

Runs the campaign of `runnerconfig/vllm_cpu.py` twice, one repetition, real vLLM on the CPU, items of the packaged
sample: orchestrator and testbed as processes over HTTP, one lifetime after the other in one run. Takes some 15 minutes.

    python benchmarks/engine_lifetime.py [--max-tokens N]

Prints the seconds of each campaign, from the start of `orchestrator run` to its end, and how much shorter `block` is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

OVERRIDES = """

RunnerConfig.name = "{lifetime}"
RunnerConfig.lifetime = "{lifetime}"
RunnerConfig.repetitions = 1
RunnerConfig.max_tokens = {max_tokens}
"""


def campaign_s(folder: Path, lifetime: str, max_tokens: int) -> float:
    """Seconds of one campaign.

    Args:
        folder: takes configuration and results.
        lifetime: of the engine.
        max_tokens: per answer.
    """
    text = (ROOT / "runnerconfig" / "vllm_cpu.py").read_text()
    config = folder / f"{lifetime}.py"
    config.write_text(text.replace('"folder"', '"sample"') + OVERRIDES.format(lifetime=lifetime, max_tokens=max_tokens))
    command = [sys.executable, "-m", "orchestrator", "run", str(config), "--local", "--results", str(folder)]
    start_s = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return time.monotonic() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-tokens", type=int, default=24)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="joulebed-lifetime-") as name:
        seconds = {each: campaign_s(Path(name), each, given.max_tokens) for each in ("trial", "block")}
    print(f"trial  {seconds['trial']:7.1f} s")
    print(f"block  {seconds['block']:7.1f} s")
    print(f"block is {1 - seconds['block'] / seconds['trial']:.0%} shorter")


if __name__ == "__main__":
    main()

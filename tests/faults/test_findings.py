"""What the suite found once, each alone. The steps of the clock have a file of their own."""

import sys
from pathlib import Path

import httpx
import pytest

from contract.errors import LogFormatError, MeterError, TestbedUnreachableError
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from energy.trace_log import read_gauges, read_traces
from orchestrator.clients.http_client import HttpClient
from testbed.meters.energibridge_meter import EnergiBridgeMeter
from tests.contract import examples
from tests.faults.stage import STAND_IN

KILLED_UNTIL = """#!/bin/sh
# Killed at its first {n_times} starts.
echo >> {count}
if [ "$(wc -l < {count})" -le {n_times} ]; then kill -9 $$; fi
exec {python} {stand_in} "$@"
"""


def energibridge(folder: Path, n_times: int) -> str:
    """A program that somebody kills at its first starts."""
    path = folder / "energibridge"
    text = KILLED_UNTIL.format(n_times=n_times, count=folder / "count", python=sys.executable, stand_in=STAND_IN)
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


def test_a_killed_energibridge_is_asked_again(tmp_path: Path) -> None:
    assert "stand-in" in EnergiBridgeMeter(program=energibridge(tmp_path, 1)).version()
    (tmp_path / "count").unlink()
    # The first start is of the probe: the version is asked after it.
    probe = EnergiBridgeMeter(program=energibridge(tmp_path, 1), period_s=0.1, gpu=False).probe()
    assert probe.available, probe.message


def test_an_energibridge_that_is_killed_before_it_measures_may_be_tried_again(tmp_path: Path) -> None:
    meter = EnergiBridgeMeter(program=energibridge(tmp_path, 1000), gpu=False)
    with pytest.raises(MeterError, match="killed by signal 9") as caught:
        meter.start(tmp_path)
    assert caught.value.retryable


@pytest.mark.parametrize("read", [read_traces, read_gauges])
def test_a_trace_that_is_no_text(tmp_path: Path, read: object) -> None:
    path = tmp_path / "trace_rapl.csv"
    path.write_bytes(b"\x80\x81domain")
    assert callable(read)
    with pytest.raises(LogFormatError, match=r"trace_rapl\.csv"):
        read(path)


@pytest.mark.parametrize("status", [201, 204])
def test_an_artifact_that_is_answered_with_a_success_of_another_kind(tmp_path: Path, status: int) -> None:
    headers = {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    transport = httpx.MockTransport(
        lambda request: httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"not the file"))
    )
    client = HttpClient("http://testbed:1", "token", unreachable_after_s=0.0, transport=transport)
    with pytest.raises(TestbedUnreachableError, match=f"HTTP {status}"):
        client.fetch_artifacts("a", examples.RESULT.artifacts[:1], tmp_path)
    assert not any(path.suffix != ".part" for path in tmp_path.iterdir())

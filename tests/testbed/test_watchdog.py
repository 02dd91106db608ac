"""Real processes, killed: whoever survives puts the device back."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from contract.attempt_state import AttemptState
from contract.errors import DeviceNotRestoredError
from contract.trial_spec import ActuatorSpec, EngineSpec, MeterSpec, ModelSpec, TrialSpec, WorkloadSpec
from testbed import attempt_folder
from testbed.actuators.simulated_actuator import SimulatedActuator
from testbed.device_settings import SIMULATED_DEVICES
from testbed.node import TestbedNode
from testbed.reclaim import MARK, SPARED
from testbed.restore_ledger import LEDGER, RestoreLedger
from testbed.watchdog import Watchdog
from tests.testbed.node_doubles import wait_final

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).with_name("node_process.py")
FOUND = {"clock_mhz": 1410.0, "power_limit_w": 650.0}
SET = {"clock_mhz": 1005.0, "power_limit_w": 400.0}
FAN_FOUND, FAN_SET = {"fan_duty": 0.6}, {"fan_duty": 1.0}
LIMIT_S = 60.0
"""For a busy machine; none of it is waited for where things work."""


def until(is_so: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < end_s, f"not so after {LIMIT_S:g} s: {what}"
        time.sleep(0.02)


def spec(
    run_id: str = "run_0_repetition_0", *, tokens_per_s: float = 1.0, sets: bool = True, **fields: Any
) -> TrialSpec:
    """A trial with clock, power limit and fan of a simulated GPU set; by default it takes far longer than the test."""
    return TrialSpec(
        experiment="kill",
        run_id=run_id,
        repetition=0,
        treatment={},
        seed=1,
        model=ModelSpec(name="m", source="fake:m"),
        engine=EngineSpec(name="fake", options={"tokens_per_s": tokens_per_s}),
        workload=WorkloadSpec(name="fake", options={"n_items": 8}),
        meter=MeterSpec(name="fake"),
        actuators=[
            ActuatorSpec(name="simulated", domain="gpu:0", setting=SET),
            ActuatorSpec(name="simulated_fan", domain="fan:0", setting=FAN_SET),
        ]
        if sets
        else [],
        warmup_requests=0,
        **fields,
    )


class Bench:
    """A data folder with a simulated GPU; what is started here is ended at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.path = self.data_dir / SIMULATED_DEVICES / "gpu:0.json"
        self.path.parent.mkdir(parents=True)
        self.path.write_text(json.dumps(FOUND))
        self.fan_path = self.path.with_name("fan:0.json")
        self.fan_path.write_text(json.dumps(FAN_FOUND))
        self.env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.started: list[psutil.Process] = []

    def clock_mhz(self) -> float:
        return float(json.loads(self.path.read_text())["clock_mhz"])

    def is_set(self) -> bool:
        return self._devices() == (SET, FAN_SET)

    def is_as_found(self) -> bool:
        return self._devices() == (FOUND, FAN_FOUND)

    def _devices(self) -> tuple[Any, Any]:
        return json.loads(self.path.read_text()), json.loads(self.fan_path.read_text())

    def entries(self) -> list[Path]:
        return list((self.data_dir / LEDGER).glob("*.json"))

    def start(self, *command: str, **env: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(command, env={**self.env, **env}, start_new_session=True)
        self.started.append(psutil.Process(process.pid))
        return process

    def start_child(self) -> "subprocess.Popen[bytes]":
        """A trial without a testbed, in the middle of its measured phase."""
        out_dir = self.data_dir / "attempts" / "a1"
        out_dir.mkdir(parents=True)
        (out_dir / attempt_folder.SPEC).write_text(spec().model_dump_json())
        command = [sys.executable, "-m", "testbed.model_runner", str(out_dir / attempt_folder.SPEC), str(out_dir)]
        child = self.start(*command, **{MARK: str(self.data_dir)})
        self.wait_until_measuring("a1")
        return child

    def start_node(self) -> "subprocess.Popen[bytes]":
        """A testbed that runs a trial, in the middle of its measured phase."""
        path = self.data_dir / "spec.json"
        path.write_text(spec().model_dump_json())
        node = self.start(sys.executable, str(NODE), str(self.data_dir), "a1", str(path))
        self.wait_until_measuring("a1")
        # On a busy machine the child may measure before the node has noted its process.
        until((self.data_dir / "attempts" / "a1" / attempt_folder.PROCESS).exists, "the node has noted its child")
        self.started.append(psutil.Process(self.child_pid()))
        return node

    def wait_until_measuring(self, attempt_id: str) -> None:
        progress = self.data_dir / "attempts" / attempt_id / attempt_folder.PROGRESS
        until(lambda: progress.exists() and AttemptState.MEASURING in progress.read_text(), "measuring")
        assert self.is_set() and len(self.entries()) == 2

    def child_pid(self) -> int:
        record = (self.data_dir / "attempts" / "a1" / attempt_folder.PROCESS).read_text()
        return int(json.loads(record)["pid"])

    def watchdogs(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if str(self.data_dir / LEDGER) in words:
                found.append(process)
        return found

    def open(self) -> TestbedNode:
        return TestbedNode.open(self.data_dir, default_meter="fake", child_env={"PYTHONPATH": str(ROOT)})

    def end(self) -> None:
        for process in [*self.started, *self.watchdogs()]:
            try:
                process.kill()
                process.wait(LIMIT_S)
            except psutil.Error:
                continue


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.end()


class TestKilled:
    def test_the_child_alone_without_a_testbed(self, bench: Bench) -> None:
        child = bench.start_child()
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        until(bench.is_as_found, "put back by the watchdog")
        until(lambda: bench.watchdogs() == [], "the watchdog ends")
        assert bench.entries() == []

    def test_the_child_under_a_testbed(self, bench: Bench) -> None:
        node = bench.open()
        try:
            node.submit("a1", spec())
            bench.wait_until_measuring("a1")
            (guard,) = bench.watchdogs()
            guard.kill()  # the testbed is enough
            os.killpg(bench.child_pid(), signal.SIGKILL)
            status = wait_final(node, "a1", LIMIT_S)
            assert status.state is AttemptState.FAILED
            assert bench.is_as_found() and bench.entries() == []
            node.submit("a2", spec("run_1_repetition_0", tokens_per_s=0.0))
            assert wait_final(node, "a2", LIMIT_S).state is not AttemptState.FAILED
            gpu, fan = node.result("a2").settings
            assert (gpu.taken, fan.taken) == (gpu.at_end, fan.at_end) == (SET, FAN_SET)
            assert gpu.is_restored and fan.is_restored
            assert (gpu.original, fan.original) == (FOUND, FAN_FOUND)
            assert bench.is_as_found() and bench.watchdogs() == []
        finally:
            node.close()

    def test_the_testbed_alone(self, bench: Bench) -> None:
        node = bench.start_node()
        node.kill()
        node.wait()
        assert bench.is_set()  # the trial goes on, at its clock
        again = bench.open()
        try:
            assert bench.is_set()
            assert again.info().running_attempt_id == "a1"
            again.cancel("a1")
            assert wait_final(again, "a1", LIMIT_S).state is AttemptState.CANCELLED
            assert bench.is_as_found() and bench.entries() == []
        finally:
            again.close()

    def test_both_at_once_and_nobody_starts_them_again(self, bench: Bench) -> None:
        node = bench.start_node()
        child = bench.child_pid()
        node.kill()
        os.killpg(child, signal.SIGKILL)
        node.wait()
        until(bench.is_as_found, "put back by the watchdog")
        until(lambda: bench.entries() == [] and bench.watchdogs() == [], "the watchdog ends")

    def test_the_watchdog_as_well_and_the_next_testbed_puts_it_back(self, bench: Bench) -> None:
        node = bench.start_node()
        (guard,) = bench.watchdogs()
        guard.kill()
        os.killpg(bench.child_pid(), signal.SIGKILL)
        node.kill()
        node.wait()
        assert bench.is_set() and len(bench.entries()) == 2
        again = bench.open()
        try:
            assert bench.is_as_found() and bench.entries() == []
        finally:
            again.close()

    def test_warm_trials_at_one_clock_after_the_other(self, bench: Bench) -> None:
        node = bench.open()
        try:
            for i, clock_mhz in enumerate([1005.0, 510.0]):
                wanted = ActuatorSpec(name="simulated", domain="gpu:0", setting={"clock_mhz": clock_mhz})
                changes = {"actuators": [wanted], "engine": EngineSpec(name="fake", lifetime="block")}
                node.submit(f"a{i}", spec(f"run_{i}_repetition_0").model_copy(update=changes))
                assert wait_final(node, f"a{i}", LIMIT_S).state is not AttemptState.FAILED
                result = node.result(f"a{i}")
                assert result.settings[0].at_end == {"clock_mhz": clock_mhz} and result.settings[0].is_restored
                assert result.load is not None and result.load.reused == (i > 0)
                assert bench.is_as_found() and bench.entries() == [] and bench.watchdogs() == []
        finally:
            node.close()

    def test_a_cancelled_trial(self, bench: Bench) -> None:
        node = bench.open()
        try:
            node.submit("a1", spec())
            bench.wait_until_measuring("a1")
            node.cancel("a1")
            assert wait_final(node, "a1", LIMIT_S).state is AttemptState.CANCELLED
            assert bench.is_as_found() and bench.entries() == []
        finally:
            node.close()


class TestRefused:
    def test_no_trial_is_taken_while_a_device_is_still_set(self, bench: Bench) -> None:
        node = bench.open()
        try:
            device = SimulatedActuator(domain="gpu:0", folder=bench.path.parent)
            RestoreLedger(bench.data_dir / LEDGER).hold(device)
            device.apply({"clock_mhz": 1005.0})
            (entry,) = bench.entries()
            entry.write_text(json.dumps({**json.loads(entry.read_text()), "identity": None}))
            bench.path.write_text(json.dumps({**json.loads(bench.path.read_text()), "refuses": "read-only"}))
            for sets in (True, False):
                with pytest.raises(DeviceNotRestoredError, match=r"gpu:0.*read-only.*by hand: echo"):
                    node.submit("a1", spec(sets=sets, tokens_per_s=0.0))
            with pytest.raises(DeviceNotRestoredError, match="gpu:0"):
                node.check([spec()])
            bench.path.write_text(json.dumps({**json.loads(bench.path.read_text()), "refuses": ""}))
            node.submit("a1", spec(tokens_per_s=0.0))
            wait_final(node, "a1", LIMIT_S)
            assert bench.clock_mhz() == 1410.0
        finally:
            node.close()

    def test_a_check_tells_what_a_device_does_not_have(self, bench: Bench) -> None:
        node = bench.open()
        try:
            wrong = ActuatorSpec(name="simulated", domain="gpu:0", setting={"clock_mhz": 1000.0})
            unknown = ActuatorSpec(name="overclocker", domain="gpu:0", setting={"clock_mhz": 1005.0})
            report = node.check(
                [
                    spec("run_0_repetition_0"),
                    spec("run_1_repetition_0").model_copy(update={"actuators": [wrong]}),
                    spec("run_2_repetition_0").model_copy(update={"actuators": [unknown]}),
                ]
            )
            found = {problem.run_id: problem.error for problem in report.problems}
            assert set(found) == {"run_1_repetition_0", "run_2_repetition_0"}
            assert "990 or 1005" in found["run_1_repetition_0"].message
            assert "nvml_clock" in found["run_2_repetition_0"].message
            assert bench.is_as_found()
        finally:
            node.close()


class TestWatchdog:
    @pytest.fixture
    def guard(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
        monkeypatch.setenv(MARK, str(bench.data_dir))
        guard = Watchdog(bench.data_dir / LEDGER)
        process = psutil.Process(guard.pid)
        until(lambda: self.is_at_rest(process), "it waits")
        yield process
        guard.dismiss()
        guard.dismiss()
        assert not process.is_running()

    def is_at_rest(self, process: psutil.Process) -> bool:
        """Whether it is past its start: deaf to signals, asleep, and not woken for a while."""
        ignored = re.search(r"^SigIgn:\s*([0-9a-f]+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        before = self.switches(process)
        time.sleep(0.3)
        is_deaf = ignored is not None and bool(int(ignored[1], 16) & 1 << signal.SIGHUP - 1)
        return is_deaf and process.status() == psutil.STATUS_SLEEPING and self.switches(process) == before

    def switches(self, process: psutil.Process) -> int:
        return int(process.num_ctx_switches().voluntary)

    def test_sleeps_without_polling_and_is_small(self, guard: psutil.Process) -> None:
        before, cpu_s = self.switches(guard), sum(guard.cpu_times()[:2])
        time.sleep(1.0)
        assert self.switches(guard) == before
        assert sum(guard.cpu_times()[:2]) == cpu_s
        assert guard.memory_info().rss < 20 * 2**20

    def test_is_no_orphan_of_the_trial(self, guard: psutil.Process) -> None:
        assert os.getsid(guard.pid) == os.getpgid(guard.pid) == guard.pid
        environ = guard.environ()
        assert MARK not in environ and SPARED in environ

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_an_orderly_end_of_the_service_does_not_end_it(self, guard: psutil.Process, number: int) -> None:
        guard.send_signal(number)
        time.sleep(0.2)
        assert guard.is_running() and guard.status() == psutil.STATUS_SLEEPING

    def test_without_a_pidfd_it_waits_for_the_end_of_its_input(self, bench: Bench) -> None:
        code = (
            "import os, sys, time; from pathlib import Path;"
            "del os.pidfd_open;"
            "from testbed.watchdog import Watchdog;"
            "Watchdog(Path(sys.argv[1]), [sys.executable, '-c', 'import sys; open(sys.argv[1] + \"/done\", \"w\")']);"
            "print('ready', flush=True); time.sleep(600)"
        )
        folder = bench.data_dir / LEDGER
        owner = subprocess.Popen([sys.executable, "-c", code, str(folder)], env=bench.env, stdout=subprocess.PIPE)
        assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"
        assert not (folder / "done").exists()
        owner.kill()
        owner.communicate()
        until((folder / "done").exists, "it woke")

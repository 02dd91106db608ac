"""What is on disk before a device is touched, who may put it back, and what happens when that fails."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from contract.errors import ActuatorError, DeviceNotRestoredError
from testbed.actuators.base import Original
from testbed.actuators.simulated_actuator import SimulatedActuator
from testbed.child_process import process_identity
from testbed.restore import Restorer, main, restore_patiently
from testbed.restore_ledger import RestoreLedger
from tests.testbed.actuator_double import devfreq

FOUND: dict[str, JsonValue] = {"clock_mhz": 1410.0, "power_limit_w": 650.0}


class StillClock:
    """Time moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def monotonic_ns(self) -> int:
        return round(sum(self.slept_s) * 1e9)

    def time_ns(self) -> int:
        return self.monotonic_ns()

    def sleep(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)


class Machine:
    """A simulated device and the ledger beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "devices" / "gpu:0.json"
        self.ledger = RestoreLedger(folder / "restore")
        self.actuator = SimulatedActuator(domain="gpu:0", folder=self.path.parent)
        self.path.parent.mkdir(parents=True)
        self.path.write_text(json.dumps(FOUND))

    @property
    def device(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text()))

    @property
    def entries(self) -> list[Path]:
        return sorted(self.ledger.folder.glob("*.json"))

    def change(self, **values: Any) -> None:
        self.path.write_text(json.dumps({**self.device, **values}))

    def abandon(self, **changes: Any) -> None:
        """A trial set the device and was killed; `changes` are made in its entry."""
        self.ledger.hold(self.actuator)
        self.actuator.apply({"clock_mhz": 1005.0})
        entry = json.loads(self.entries[0].read_text())
        self.entries[0].write_text(json.dumps({**entry, "pid": 2**22 + 1, "identity": "gone", **changes}))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestEntry:
    def test_is_on_disk_before_the_device_is_touched_and_gone_after(self, machine: Machine) -> None:
        original = machine.ledger.hold(machine.actuator)
        assert original.state == FOUND and machine.device == FOUND
        entry = json.loads(machine.entries[0].read_text())
        assert entry["state"] == FOUND
        assert (entry["pid"], entry["identity"]) == (os.getpid(), process_identity(os.getpid()))
        assert machine.entries[0].stat().st_mode & 0o777 == 0o600
        machine.actuator.apply({"clock_mhz": 1005.0})
        machine.ledger.release(machine.actuator)
        assert machine.device == FOUND and machine.entries == []
        machine.change(clock_mhz=900.0)
        machine.ledger.release(machine.actuator)
        assert machine.device["clock_mhz"] == 900.0

    def test_nothing_is_touched_when_it_cannot_be_written(self, machine: Machine) -> None:
        machine.ledger.folder.write_text("a file in the way")
        with pytest.raises(DeviceNotRestoredError, match="cannot be written"):
            machine.ledger.hold(machine.actuator)
        assert machine.device == FOUND

    def test_a_living_process_keeps_its_device(self, machine: Machine) -> None:
        other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        machine.abandon(pid=other.pid, identity=process_identity(other.pid))
        assert machine.ledger.restore_orphans() == []
        assert machine.device["clock_mhz"] == 1005.0
        with pytest.raises(ActuatorError, match=f"Process {other.pid}"):
            machine.ledger.hold(machine.actuator)
        machine.ledger.release(machine.actuator)
        assert machine.device["clock_mhz"] == 1005.0
        other.kill()
        other.communicate()
        assert machine.ledger.restore_orphans() == []
        assert machine.device == FOUND and machine.entries == []

    def test_the_next_trial_puts_back_first(self, machine: Machine) -> None:
        machine.abandon()
        original = machine.ledger.hold(machine.actuator)
        assert original.state == FOUND

    def test_a_device_that_was_not_touched_is_dropped(self, machine: Machine) -> None:
        machine.ledger.hold(machine.actuator)
        machine.ledger.drop(machine.actuator)
        machine.ledger.drop(machine.actuator)
        assert machine.entries == [] and machine.device == FOUND


class TestOrphans:
    def test_are_put_back_once(self, machine: Machine) -> None:
        assert not machine.ledger.has_orphans()
        machine.abandon()
        assert machine.ledger.has_orphans()
        assert machine.ledger.restore_orphans() == []
        assert machine.device == FOUND and not machine.ledger.has_orphans()
        machine.change(clock_mhz=900.0)
        assert machine.ledger.restore_orphans() == []
        assert machine.device["clock_mhz"] == 900.0

    def test_two_restorers_at_once_are_harmless(self, machine: Machine) -> None:
        for _ in range(20):
            machine.abandon()
            ledgers = [RestoreLedger(machine.ledger.folder) for _ in range(4)]
            with ThreadPoolExecutor(4) as pool:
                left = list(pool.map(RestoreLedger.restore_orphans, ledgers))
            assert left == [[]] * 4
            assert machine.device == FOUND and machine.entries == []

    def test_a_file_that_was_never_finished_is_cleared_away(self, machine: Machine) -> None:
        machine.ledger.folder.mkdir()
        half = machine.ledger.folder / ".simulated@gpu:0.json.77.tmp"
        half.write_text('{"actuator": "simul')
        assert not machine.ledger.has_orphans()
        assert machine.ledger.restore_orphans() == []
        assert not half.exists() and machine.device == FOUND

    @pytest.mark.parametrize("content", ["", '{"actuator": "simulated", "domain": "gpu:0", "sta', "[]", "\0" * 100])
    def test_a_damaged_entry_is_kept_and_told(self, machine: Machine, content: str) -> None:
        machine.abandon()
        machine.entries[0].write_text(content)
        (left,) = machine.ledger.restore_orphans()
        assert (left.actuator, left.domain, left.is_gone) == ("simulated", "gpu:0", False)
        assert str(machine.entries[0]) in left.message()
        with pytest.raises(DeviceNotRestoredError, match="gpu:0"):
            machine.ledger.hold(machine.actuator)

    @pytest.mark.parametrize(
        "changes", [{"actuator": "of_tomorrow"}, {"arguments": {"colour": "red"}}, {"actuator": "devfreq", "state": {}}]
    )
    def test_an_entry_of_another_version_is_kept_and_told(self, machine: Machine, changes: dict[str, Any]) -> None:
        machine.abandon(**changes)
        (left,) = machine.ledger.restore_orphans()
        assert not left.is_gone and len(machine.entries) == 1

    def test_of_a_device_that_is_gone_are_kept_and_stop_nobody(self, machine: Machine) -> None:
        machine.abandon()
        machine.path.unlink()
        (left,) = machine.ledger.restore_orphans()
        assert left.is_gone and "not there any more" in left.message()
        assert len(machine.entries) == 1
        Restorer(machine.ledger.folder)()

    def test_a_device_that_refuses_stops_the_next_trial(self, machine: Machine) -> None:
        machine.abandon()
        machine.change(refuses="read-only")
        with pytest.raises(DeviceNotRestoredError, match=r"gpu:0.*read-only.*by hand: echo.*rm ") as caught:
            machine.ledger.hold(machine.actuator)
        assert "echo" in caught.value.detail["mending"]
        with pytest.raises(DeviceNotRestoredError, match=r"gpu:0.*read-only.*by hand: echo"):
            Restorer(machine.ledger.folder)()
        machine.change(refuses="")
        Restorer(machine.ledger.folder)()
        assert machine.device["clock_mhz"] == 1410.0 and machine.entries == []

    def test_others_are_put_back_when_one_refuses(self, machine: Machine, tmp_path: Path) -> None:
        machine.abandon()
        entry = machine.entries[0]
        other = SimulatedActuator(domain="gpu:1", folder=machine.path.parent)
        other.apply({"clock_mhz": 510.0})
        content = {**json.loads(entry.read_text()), "domain": "gpu:1", "state": {"clock_mhz": 1980.0}}
        (machine.ledger.folder / "simulated@gpu:1.json").write_text(json.dumps(content))
        machine.change(refuses="no")
        assert [left.domain for left in machine.ledger.restore_orphans()] == ["gpu:0"]
        assert other.read()["clock_mhz"] == 1980.0

    def test_a_process_that_could_not_put_back_leaves_it_to_others(self, machine: Machine) -> None:
        machine.ledger.hold(machine.actuator)
        machine.actuator.apply({"clock_mhz": 1005.0})
        machine.change(refuses="not now")
        with pytest.raises(DeviceNotRestoredError, match="not now"):
            machine.ledger.release(machine.actuator)
        assert machine.ledger.has_orphans()
        machine.change(refuses="")
        assert machine.ledger.restore_orphans() == []
        assert machine.device["clock_mhz"] == 1410.0

    def test_a_lock_that_is_never_let_go_is_no_hang(self, machine: Machine) -> None:
        machine.abandon()
        holder = RestoreLedger(machine.ledger.folder)
        clock = StillClock()
        waiting = RestoreLedger(machine.ledger.folder, clock=clock, lock_limit_s=5.0)
        with holder._locked(), pytest.raises(DeviceNotRestoredError, match="fuser"):
            waiting.restore_orphans()
        assert sum(clock.slept_s) == pytest.approx(5.0, abs=0.1)
        assert waiting.restore_orphans() == []


class TestRestore:
    def test_tries_again_with_growing_pauses(self, machine: Machine) -> None:
        machine.abandon()

        class Awakening(SimulatedActuator):
            n_tried = 0

            def restore(self, original: Original) -> None:
                Awakening.n_tried += 1
                if Awakening.n_tried < 3:
                    raise ActuatorError("the driver resets the GPU")
                super().restore(original)

        def build(name: str, domain: str, arguments: Mapping[str, str]) -> Awakening:
            return Awakening(domain=domain, **arguments)  # type: ignore[arg-type]

        clock = StillClock()
        assert restore_patiently(RestoreLedger(machine.ledger.folder, build), 5, clock) == []
        assert clock.slept_s == [0.5, 1.0]
        assert machine.device == FOUND

    def test_gives_up_in_the_end(self, machine: Machine) -> None:
        machine.abandon()
        machine.change(refuses="for ever")
        clock = StillClock()
        (left,) = restore_patiently(machine.ledger, 3, clock)
        assert "for ever" in left.reason and clock.slept_s == [0.5, 1.0]

    def test_as_a_command(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        folder = str(machine.ledger.folder)
        assert main([folder]) == 0
        machine.abandon()
        machine.change(refuses="no")
        assert main([folder]) == 1
        assert json.loads(capsys.readouterr().out)["domain"] == "gpu:0"
        machine.change(refuses="")
        assert main([folder]) == 0
        assert machine.device["clock_mhz"] == 1410.0

    def test_works_on_the_kernels_files_from_another_process(self, machine: Machine, tmp_path: Path) -> None:
        root = devfreq(tmp_path / "devfreq")
        code = (
            "import os, signal, sys; from pathlib import Path;"
            "from testbed.actuators.devfreq_actuator import DevfreqActuator as A;"
            "from testbed.restore_ledger import RestoreLedger;"
            "a = A(domain='gpu:0', root=sys.argv[1]); RestoreLedger(Path(sys.argv[2])).hold(a);"
            "a.apply({'clock_mhz': 612.0}); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", code, str(root), str(machine.ledger.folder)], check=False)
        assert (root / "17000000.gpu" / "max_freq").read_text() == "612000000\n"
        Restorer(machine.ledger.folder)()
        assert (root / "17000000.gpu" / "max_freq").read_text() == "1300500000\n"
        assert (root / "17000000.gpu" / "min_freq").read_text() == "306000000\n"

    def test_a_restorer_that_hangs_is_ended(self, machine: Machine) -> None:
        machine.abandon()
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        with pytest.raises(DeviceNotRestoredError, match="a driver may hang"):
            Restorer(machine.ledger.folder, command, limit_s=0.5)()

    def test_a_restorer_that_dies_is_told(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine.abandon()
        monkeypatch.setenv("A_TEST_TOKEN", "known-0123456789\n")
        command = [sys.executable, "-c", "raise SystemExit('no module known-0123456789')"]
        with pytest.raises(DeviceNotRestoredError, match="exit status 1") as caught:
            Restorer(machine.ledger.folder, command)()
        assert caught.value.detail["log_tail"] == ["no module [hidden]"]

    def test_nothing_is_started_where_there_is_nothing(self, machine: Machine) -> None:
        Restorer(machine.ledger.folder, ["/nowhere/at/all"])()
        assert not machine.ledger.folder.exists()

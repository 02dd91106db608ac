"""`testbed doctor`: six answers, each yes or a command that mends it."""

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from contract.node_info import Capability, NodeIdentity, NodeInfo
from contract.units import PROTOCOL_VERSION
from testbed.doctor import Check, checks, hub_folder, kernel_clock_state
from testbed.model_pin import PINS_VARIABLE, ModelPin, write_pin

SYNCHRONISED, NOT_SYNCHRONISED = 0, 5


def node(*capabilities: Capability, gpus: tuple[str, ...] = ()) -> NodeInfo:
    identity = NodeIdentity(
        hostname="box",
        os="Linux",
        cpu_model="a processor",
        n_cpus=2,
        memory_bytes=2**30,
        gpus=list(gpus),
        driver_version=None,
        python_version="3.11.2",
        packages={},
        hardware_sha256="0" * 64,
    )
    return NodeInfo(
        protocol_version=PROTOCOL_VERSION,
        software_version="0.1.0",
        identity=identity,
        capabilities=list(capabilities),
        temperatures=[],
    )


def part(seam: str, name: str, available: bool, message: str = "") -> Capability:
    return Capability.model_validate({"seam": seam, "name": name, "available": available, "message": message})


def look(
    info: NodeInfo,
    root: Path,
    env: Mapping[str, str] | None = None,
    *,
    state: int = SYNCHRONISED,
    machine: str = "x86_64",
    is_root: bool = False,
) -> dict[str, Check]:
    env = {"HF_HOME": str(root / "hf"), **(env or {})}
    found = checks(info, root=root, env=env, machine=machine, is_root=is_root, clock_state=lambda: state)
    return {check.name: check for check in found}


def test_six_questions_always(tmp_path: Path) -> None:
    found = look(node(), tmp_path)
    assert list(found) == ["meter", "engine", "model", "permission", "clock control", "time sync"]
    assert all(check.message for check in found.values())


class TestMeter:
    def test_a_sensor_is_a_yes(self, tmp_path: Path) -> None:
        info = node(part("meter", "rapl", True, "RAPL zones: cpu_package"), part("meter", "estimate", True))
        assert look(info, tmp_path)["meter"].is_fine

    def test_an_estimate_a_fake_and_a_stand_in_are_not(self, tmp_path: Path) -> None:
        stand_in = part("meter", "energibridge", True, "energibridge 0.0.7 (stand-in: replayed power)")
        info = node(stand_in, part("meter", "estimate", True), part("meter", "fake", True))
        found = look(info, tmp_path)["meter"]
        assert not found.is_fine
        assert "measures nothing" in found.message

    def test_the_advice_is_for_this_machine(self, tmp_path: Path) -> None:
        meters = [part("meter", name, False, f"mend {name}") for name in ("energibridge", "rapl", "nvml", "jetson")]
        processor = look(node(*meters), tmp_path)["meter"].message
        assert "mend rapl" in processor and "nvml" not in processor and "jetson" not in processor
        assert "mend nvml" in look(node(*meters, gpus=("H100",)), tmp_path)["meter"].message
        board = look(node(*meters), tmp_path, machine="aarch64")["meter"].message
        assert "mend jetson" in board and "energibridge" not in board


class TestModel:
    def test_what_was_downloaded_and_is_gone(self, tmp_path: Path) -> None:
        pins = tmp_path / "models.json"
        write_pin(pins, "org/small", ModelPin(revision="a" * 40, n_bytes=7))
        env = {PINS_VARIABLE: str(pins)}
        gone = look(node(), tmp_path, env)["model"]
        assert not gone.is_fine
        assert "./init_env.sh --models 'org/small'" in gone.message
        folder = tmp_path / "hf/hub/models--org--small/snapshots" / ("a" * 40)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        found = look(node(), tmp_path, env)["model"]
        assert found.is_fine
        assert "hf:org/small" in found.message

    def test_without_pins_the_cache_is_looked_at(self, tmp_path: Path) -> None:
        folder = tmp_path / "hf/hub/models--org--other--name/snapshots" / ("b" * 40)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        assert "hf:org/other--name" in look(node(), tmp_path)["model"].message

    def test_the_cache_is_where_the_hubs_client_says(self) -> None:
        from huggingface_hub import constants

        assert hub_folder(os.environ) == Path(constants.HF_HUB_CACHE)


class TestPermission:
    def registers(self, root: Path, mode: int) -> None:
        (root / "dev/cpu/0").mkdir(parents=True)
        (root / "dev/cpu/0/msr").touch(mode=mode)

    def test_no_sensor_needs_none(self, tmp_path: Path) -> None:
        assert look(node(), tmp_path)["permission"].is_fine

    def test_a_program_without_its_capability(self, tmp_path: Path) -> None:
        self.registers(tmp_path, 0o644)
        program = tmp_path / "energibridge"
        program.touch()
        env = {"JOULEBED_ENERGIBRIDGE": str(program)}
        found = look(node(), tmp_path, env)["permission"]
        assert not found.is_fine
        assert f"sudo setcap cap_sys_rawio=ep {program}" in found.message
        assert look(node(), tmp_path, env, is_root=True)["permission"].is_fine

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_registers_that_may_not_be_read(self, tmp_path: Path) -> None:
        self.registers(tmp_path, 0o000)
        assert "usermod -aG msr" in look(node(), tmp_path)["permission"].message


class TestClocks:
    def test_control_of_the_kind_that_is_here(self, tmp_path: Path) -> None:
        actuators = [part("actuator", "nvml_clock", False, "needs root"), part("actuator", "simulated", True)]
        assert "nothing to mend" in look(node(*actuators), tmp_path)["clock control"].message
        refused = look(node(*actuators, gpus=("H100",)), tmp_path)["clock control"]
        assert (refused.is_fine, refused.message) == (False, "needs root")
        allowed = node(part("actuator", "nvml_clock", True, "210 to 1980 MHz"), gpus=("H100",))
        assert look(allowed, tmp_path)["clock control"].is_fine

    def test_synchronised_or_not(self, tmp_path: Path) -> None:
        assert look(node(), tmp_path)["time sync"].is_fine
        # TIME_INS to TIME_WAIT: a leap second is at hand, and the clock is synchronised.
        assert look(node(), tmp_path, state=4)["time sync"].is_fine
        for state in (NOT_SYNCHRONISED, -1):
            assert "set-ntp true" in look(node(), tmp_path, state=state)["time sync"].message

    def test_the_kernel_is_asked_right(self) -> None:
        class Timex(ctypes.Structure):
            _fields_ = [("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long)]
            _fields_ += [("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int)]
            _fields_ += [("rest", ctypes.c_byte * 256)]

        answer = Timex()
        ctypes.CDLL(None).adjtimex(ctypes.byref(answer))
        is_unsynchronised = bool(answer.status & 0x40)  # STA_UNSYNC
        assert (kernel_clock_state() == NOT_SYNCHRONISED) == is_unsynchronised

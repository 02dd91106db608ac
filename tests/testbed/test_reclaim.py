"""What trials leave behind is found and ended: real processes, and GPUs that are a double."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from testbed.child_process import process_identity
from testbed.gpu_memory import GpuMemory
from testbed.reclaim import MARK, SPARED, Patience, Reclaimer
from tests.testbed.nvml_double import GpuDouble, NvmlDouble

ENDED = 5_000_000
"""No process has this number: the kernel's largest is 2**22 = 4,194,304."""

SLEEPS = "import time; print('here', flush=True); time.sleep(60)"


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    children = []

    def start(reclaimer: Reclaimer, code: str = SLEEPS, env: Mapping[str, str] | None = None) -> int:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env={**os.environ, **reclaimer.environment(), **(env or {})},
            start_new_session=True,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        return child.pid

    yield start
    for child in children:
        child.kill()
        child.communicate()


def no_gpu() -> GpuMemory:
    return GpuMemory(NvmlDouble(starts=False), is_namespaced=False)


def is_alive(pid: int) -> bool:
    return process_identity(pid) is not None


class TestProcesses:
    def test_in_sessions_of_their_own_are_ended(self, tmp_path: Path, start: Callable[..., int]) -> None:
        reclaimer = Reclaimer(tmp_path, no_gpu())
        stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
        pids = [start(reclaimer), start(reclaimer, stubborn)]
        assert sorted(reclaimer.find()) == sorted(pids)
        assert reclaimer.end_all() == ""
        assert not any(is_alive(pid) for pid in pids)
        assert reclaimer.find() == []

    def test_of_another_testbed_are_left_alone(self, tmp_path: Path, start: Callable[..., int]) -> None:
        ours, theirs = Reclaimer(tmp_path / "a", no_gpu()), Reclaimer(tmp_path / "ab", no_gpu())
        pid = start(theirs)
        assert ours.find() == []
        assert ours.end_all() == ""
        assert is_alive(pid)
        assert theirs.find() == [pid]

    def test_that_are_to_be_spared_are_left_alone(self, tmp_path: Path, start: Callable[..., int]) -> None:
        reclaimer = Reclaimer(tmp_path, no_gpu())
        pid = start(reclaimer, env={SPARED: "1"})
        assert reclaimer.end_all() == ""
        assert is_alive(pid)

    def test_that_give_themselves_a_title_are_found(self, tmp_path: Path, start: Callable[..., int]) -> None:
        pytest.importorskip("setproctitle")
        reclaimer = Reclaimer(tmp_path, no_gpu())
        titled = f"import setproctitle; setproctitle.setproctitle('VLLM::EngineCore ' * 200); {SLEEPS}"
        pid = start(reclaimer, titled)
        assert reclaimer.find() == [pid]

    def test_are_found_by_their_environment_where_there_is_no_proc(
        self, tmp_path: Path, start: Callable[..., int]
    ) -> None:
        reclaimer = Reclaimer(tmp_path, no_gpu(), proc=tmp_path / "no proc")
        pid = start(reclaimer)
        assert reclaimer.find() == [pid]

    def test_that_start_a_program_at_this_very_moment_are_waited_for(
        self, tmp_path: Path, start: Callable[..., int]
    ) -> None:
        """The kernel shows no environment while it sets up a new program; a /proc of files shows that instant."""
        shown = tmp_path / "proc"
        marked = f"{MARK}={tmp_path}\0".encode()
        pid = start(Reclaimer(tmp_path, no_gpu()))
        steps: list[Callable[[], object]] = [
            lambda: (shown / str(pid) / "environ").write_bytes(marked),
            lambda: shutil.rmtree(shown / str(pid)),
        ]
        reclaimer = Reclaimer(tmp_path, no_gpu(), proc=shown, sleep=lambda _: steps.pop(0)())
        for name in ("self/stat", "sys/kernel/random/boot_id", f"{pid}/stat"):
            (shown / name).parent.mkdir(parents=True)
            (shown / name).write_bytes((Path("/proc") / name).read_bytes())
        (shown / str(pid) / "exe").symlink_to(sys.executable)
        (shown / str(pid) / "environ").write_bytes(b"")
        assert reclaimer.find() == []
        assert reclaimer.end_all() == ""
        assert steps == []
        # It was taken out of the shown folder at once: SIGKILL itself may still be on its way.
        deadline_s = time.monotonic() + 10
        while is_alive(pid) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert not is_alive(pid)

    def test_without_any_environment_are_waited_for_once(self, tmp_path: Path, start: Callable[..., int]) -> None:
        clock = TestGpuMemory.Time()
        reclaimer = Reclaimer(tmp_path, no_gpu(), monotonic_s=clock.monotonic, sleep=clock.sleep)
        bare = subprocess.Popen(["sleep", "60"], env={})
        try:
            assert reclaimer.end_all() == ""
            waited_s = clock.now_s
            assert 0.0 < waited_s < 1.0
            assert reclaimer.end_all() == ""
            assert clock.now_s < waited_s + 0.1
            assert bare.poll() is None
        finally:
            bare.kill()
            bare.wait()

    def test_this_one_is_never_found(self, tmp_path: Path) -> None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / str(os.getpid())).mkdir()
        (tmp_path / "proc" / str(os.getpid()) / "environ").write_bytes(f"{MARK}={tmp_path}\0".encode())
        assert Reclaimer(tmp_path, no_gpu(), proc=tmp_path / "proc").find() == []


class TestGpuMemory:
    """Time here is a number that sleeping moves on."""

    class Time:
        def __init__(self) -> None:
            self.now_s = 0.0
            self.at: dict[float, Callable[[], object]] = {}

        def monotonic(self) -> float:
            return self.now_s

        def sleep(self, duration_s: float) -> None:
            self.now_s += duration_s
            for when_s in [when_s for when_s in self.at if when_s <= self.now_s]:
                self.at.pop(when_s)()

    def reclaimer(self, tmp_path: Path, gpu: GpuDouble, clock: "TestGpuMemory.Time", *, container: bool) -> Reclaimer:
        memory = GpuMemory(NvmlDouble([gpu]), is_namespaced=container)
        return Reclaimer(tmp_path, memory, Patience(gpu_s=30.0), monotonic_s=clock.monotonic, sleep=clock.sleep)

    def test_a_driver_that_does_not_answer_stands_in_the_way_and_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        answers = threading.Event()

        class Hung(NvmlDouble):
            n_starts = 0

            def nvmlInit(self) -> None:
                self.n_starts += 1
                answers.wait()

        library = Hung([])
        memory = GpuMemory(library, is_namespaced=False, look_s=0.05)
        reclaimer = Reclaimer(tmp_path, memory, Patience(process_s=0.1, gpu_s=0.1))
        assert "the GPU driver does not answer: restart the machine" in reclaimer.end_all()
        assert "does not answer" in reclaimer.obstacle()
        assert library.n_starts == 1  # not one more thread for each look
        answers.set()
        memory._look_s = 60.0
        while memory._overdue is not None and memory._overdue.goes_on:
            time.sleep(0.01)
        assert reclaimer.obstacle() == ""

    def test_of_an_ended_process_is_waited_for(self, tmp_path: Path) -> None:
        clock, gpu = self.Time(), GpuDouble(compute_pids=[ENDED])
        clock.at[5.0] = gpu.compute_pids.clear
        reclaimer = self.reclaimer(tmp_path, gpu, clock, container=False)
        assert reclaimer.end_all() == ""
        assert 5.0 <= clock.now_s < 6.0
        assert reclaimer.obstacle() == ""

    def test_that_stays_is_an_obstacle_until_it_goes(self, tmp_path: Path) -> None:
        clock, gpu = self.Time(), GpuDouble(compute_pids=[ENDED])
        reclaimer = self.reclaimer(tmp_path, gpu, clock, container=False)
        assert f"gpu:0 still holds memory of process {ENDED}" in reclaimer.end_all()
        assert 30.0 <= clock.now_s < 31.0
        assert str(ENDED) in reclaimer.obstacle()
        gpu.compute_pids.clear()
        assert reclaimer.obstacle() == ""

    def test_of_others_is_no_affair_of_ours(self, tmp_path: Path) -> None:
        clock, gpu = self.Time(), GpuDouble(compute_pids=[os.getpid(), 1])
        assert self.reclaimer(tmp_path, gpu, clock, container=False).end_all() == ""
        assert clock.now_s < 1.0

    def test_of_a_living_process_of_ours_is_told_apart(self) -> None:
        memory = GpuMemory(NvmlDouble([GpuDouble(compute_pids=[11, 12, 13])]), is_namespaced=False)
        held = memory.held(lambda pid: pid != 12, lambda pid: pid == 13)
        assert held.is_certain
        assert held.words == (
            "gpu:0 still holds memory of process 12, which has ended; "
            "gpu:0 holds memory of process 13, which cannot be ended"
        )

    def test_in_a_container_is_told_by_what_is_in_use(self, tmp_path: Path) -> None:
        class Library(NvmlDouble):
            used_bytes = 2**30

            def nvmlDeviceGetMemoryInfo(self, gpu: GpuDouble) -> object:
                return type("Memory", (), {"used": self.used_bytes})

        clock, library = self.Time(), Library([GpuDouble(compute_pids=[ENDED])])
        memory = GpuMemory(library, is_namespaced=True)
        reclaimer = Reclaimer(tmp_path, memory, monotonic_s=clock.monotonic, sleep=clock.sleep)
        reclaimer.before_child()
        library.used_bytes = 9 * 2**30
        held = memory.held(is_alive, lambda pid: False)
        assert (held.words, held.is_certain) == ("gpu:0 has 8.0 GiB more in use", False)
        clock.at[3.0] = lambda: setattr(library, "used_bytes", 2**30 + 1000)
        assert reclaimer.end_all() == ""
        assert 3.0 <= clock.now_s < 4.0
        # Somebody else's, for all that can be told: waited for, and no obstacle.
        library.used_bytes = 9 * 2**30
        assert reclaimer.end_all() == ""
        assert 33.0 <= clock.now_s < 35.0

    @pytest.mark.parametrize("container", [True, False])
    def test_that_cannot_be_asked_for_is_not_waited_for(self, tmp_path: Path, container: bool) -> None:
        clock = self.Time()
        memory = GpuMemory(NvmlDouble(starts=False), is_namespaced=container)
        reclaimer = Reclaimer(tmp_path, memory, monotonic_s=clock.monotonic, sleep=clock.sleep)
        reclaimer.before_child()
        assert reclaimer.end_all() == ""
        assert clock.now_s < 1.0

    def test_library_is_closed_after_each_look(self, tmp_path: Path) -> None:
        failing = frozenset({"nvmlDeviceGetComputeRunningProcesses"})
        library = NvmlDouble([GpuDouble(refuses=failing), GpuDouble(compute_pids=[ENDED])])
        held = GpuMemory(library, is_namespaced=False).held(is_alive, lambda pid: False)
        assert "gpu:1" in held.words
        assert "gpu:0" not in held.words
        assert library.n_open == 0

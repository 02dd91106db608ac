"""What deaths and errors are called: by the words that engines, CUDA and the kernel really use."""

import signal
from pathlib import Path

import pytest

from contract.errors import EngineError, JouleBedError, MeterError, ModelLoadError, TestbedRestartedError
from testbed.child_verdict import count_oom_kills, death, sharpen

TORCH_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.80 GiB "
    "of which 11.69 MiB is free."
)
NO_CACHE = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
NOT_FREE = (
    "ValueError: Free memory on device (5.79/139.8 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 125.8 GiB)."
)
KV_CACHE = (
    "ValueError: To serve at least one request with the models's max seq len (131072), (14.00 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (3.31 GiB)."
)
ASSERT = "RuntimeError: CUDA error: device-side assert triggered"
LAUNCH = "torch.AcceleratorError: CUDA error: unspecified launch failure"


@pytest.mark.parametrize(
    ("words", "code", "memory"),
    [
        (TORCH_OOM, "out_of_memory", "gpu"),
        ("RuntimeError: CUDA error: out of memory", "out_of_memory", "gpu"),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", "out_of_memory", "gpu"),
        (NOT_FREE, "out_of_memory", "gpu"),
        (NO_CACHE, "out_of_memory", "cache"),
        (KV_CACHE, "out_of_memory", "cache"),
        ("MemoryError", "out_of_memory", "host"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB", "out_of_memory", "host"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "out_of_memory", "host"),
        ("OSError: [Errno 12] Cannot allocate memory", "out_of_memory", "host"),
        (ASSERT, "device_error", None),
        (LAUNCH, "device_error", None),
        ("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", "device_error", None),
        ("CUDA_ERROR_ILLEGAL_ADDRESS", "device_error", None),
        ("KeyError: 'a model without that layer'", "child_died", None),
        ("INFO the answer mentions cuda and memory", "child_died", None),
    ],
)
def test_the_last_words_tell_the_class_of_death(words: str, code: str, memory: str | None) -> None:
    tail = ["Traceback (most recent call last):", words]
    error = death(pid=7, returncode=1, tail=tail, text="\n".join(["a line before", *tail, "a line after"]))
    assert (error.code, error.detail.get("memory")) == (code, memory)
    assert error.detail["exit_status"] == 1
    assert error.detail["log_tail"] == tail
    assert error.retryable is (code != "out_of_memory")
    assert words[:100] in error.message or words.startswith("INFO")


def test_memory_comes_before_the_device() -> None:
    assert death(pid=7, returncode=1, tail=[ASSERT, TORCH_OOM]).code == "out_of_memory"


class TestKilled:
    def test_for_want_of_memory(self) -> None:
        error = death(pid=7, returncode=-signal.SIGKILL, tail=["loading"], oom_kills=1)
        assert (error.code, error.detail["memory"], error.detail["signal"]) == ("out_of_memory", "host", "SIGKILL")
        assert not error.retryable

    def test_by_somebody(self) -> None:
        error = death(pid=7, returncode=-signal.SIGKILL, tail=[], oom_kills=0)
        assert error.code == "child_died"
        assert "somebody sent the signal" in error.message

    def test_by_nobody_knows(self) -> None:
        error = death(pid=7, returncode=-signal.SIGKILL, tail=[], oom_kills=None)
        assert error.code == "child_died"
        assert "kernel's log" in error.message

    def test_by_its_own_crash_while_the_kernel_killed_another(self) -> None:
        error = death(pid=7, returncode=-signal.SIGSEGV, tail=[], oom_kills=1)
        assert (error.code, error.detail["signal"]) == ("child_died", "SIGSEGV")

    def test_with_a_status_that_nobody_knows(self) -> None:
        error = death(pid=7, returncode=None, tail=[], oom_kills=1)
        assert error.code == "out_of_memory"
        assert "signal" not in error.detail
        assert death(pid=7, returncode=None, tail=[]).code == "child_died"


class TestSharpening:
    @pytest.mark.parametrize("cls", [EngineError, ModelLoadError, TestbedRestartedError, JouleBedError])
    def test_of_vague_errors_by_message_and_log(self, cls: type[JouleBedError]) -> None:
        told = sharpen(cls(f"It could not be done (OutOfMemoryError: {TORCH_OOM})."), tail=[])
        logged = sharpen(cls("Engine core initialization failed. See root cause above."), tail=["x"], text=NO_CACHE)
        killed = sharpen(cls("EngineDeadError"), tail=["x"], oom_kills=1)
        assert told.code == logged.code == killed.code == "out_of_memory"
        assert told.detail["was"] == cls.code
        assert logged.detail["log_tail"] == ["x"]
        assert sharpen(cls("The engine fell over."), tail=[LAUNCH]).code == "device_error"

    def test_leaves_the_others_what_they_are(self) -> None:
        error = MeterError("NVML says: CUDA out of memory")
        assert sharpen(error, tail=[TORCH_OOM], oom_kills=1) is error
        assert error.detail == {}
        plain = EngineError("The engine fell over.")
        assert sharpen(plain, tail=["one"], oom_kills=0) is plain
        assert plain.detail["log_tail"] == ["one"]


class TestKernelCounter:
    def write(self, root: Path, name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def test_of_a_control_group(self, tmp_path: Path) -> None:
        self.write(tmp_path, "proc/vmstat", "pgfault 1\noom_kill 99\n")
        assert count_oom_kills(tmp_path) == 99
        self.write(tmp_path, "proc/self/cgroup", "0::/user.slice/testbed.service\n")
        assert count_oom_kills(tmp_path) == 99, "the root group has no counter"
        events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"
        self.write(tmp_path, "sys/fs/cgroup/user.slice/testbed.service/memory.events", events)
        assert count_oom_kills(tmp_path) == 2

    def test_of_version_1(self, tmp_path: Path) -> None:
        self.write(tmp_path, "proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/x:y\n0::/\n")
        control = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"
        self.write(tmp_path, "sys/fs/cgroup/memory/docker/x:y/memory.oom_control", control)
        assert count_oom_kills(tmp_path) == 4

    def test_that_is_not_there(self, tmp_path: Path) -> None:
        assert count_oom_kills(tmp_path) is None

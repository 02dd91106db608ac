"""The head in half the bytes: exact weights only, and the model's own where logits must be the library's."""

from typing import Any

import pytest

from contract.errors import InvalidOptionError
from testbed.engines.exit_head import ExitHead, packed_half, why_not_half
from testbed.engines.exit_rule import ExitRule
from tests.testbed.tiny_llama import N_LAYERS, tiny_llama

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

ALL, EARLY, BY_TOKEN = ExitRule(N_LAYERS, N_LAYERS), ExitRule(2, 2), ExitRule(N_LAYERS, 2, 1.0)

needs_fbgemm = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch has no FBGEMM on this machine"
)


@pytest.fixture
def model() -> Any:
    """Weights of bfloat16 held in 32 bits, as those of a GGUF file."""
    return tiny_llama().bfloat16().float()


@needs_fbgemm
@pytest.mark.parametrize("n_rows", [1, 2, 7, 40])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_product_to_32_bits(n_rows: int, with_bias: bool) -> None:
    """Off the exact product by no more than a sum in 32 bits may be; vectors are not rounded to 16."""
    generator = torch.Generator().manual_seed(7)
    n_hidden = 576
    linear = torch.nn.Linear(n_hidden, 1003, bias=with_bias)
    with torch.inference_mode():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator).bfloat16().float())
        hidden = torch.randn(n_rows, 1, n_hidden, generator=generator)
        found = packed_half(linear)(hidden)
        added = linear.bias.double() if with_bias else 0.0
        exact = hidden.double() @ linear.weight.double().T + added
        # Higham, Accuracy and Stability of Numerical Algorithms, 2002, (3.5): n u |x||y| for a sum of n products.
        bound = (n_hidden + 1) * 2.0**-24 * (hidden.double().abs() @ linear.weight.double().abs().T) + 1e-6
        in_16_bits = hidden.bfloat16().double() @ linear.weight.double().T + added
    assert found.dtype == torch.float32 and found.shape == (n_rows, 1, 1003)
    assert bool(((found.double() - exact).abs() <= bound).all())
    assert (found.double() - exact).abs().mean() < 0.01 * (in_16_bits - exact).abs().mean()


@needs_fbgemm
def test_rows_at_all_layers_keep_the_models_own(model: Any) -> None:
    head = ExitHead(model, None)
    assert head.choose([EARLY]) == head.choose([EARLY, BY_TOKEN]) == "half"
    assert head.choose([ALL]) == head.choose([EARLY, ALL]) == "model"
    assert head.of([ALL]) is model.lm_head and head.of([EARLY]) is not model.lm_head
    assert head.of([EARLY]) is head.of([BY_TOKEN]), "packed once"


@needs_fbgemm
def test_either_may_be_asked_for(model: Any) -> None:
    assert ExitHead(model, "model").choose([EARLY]) == "model"
    assert ExitHead(model, "half").choose([ALL]) == "half"


def no_head(model: Any) -> Any:
    del model.lm_head
    return model


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda model: tiny_llama(), "do not hold"),  # all 24 bits are used
        (lambda model: model.bfloat16(), "32 bits on the CPU"),
        (lambda model: model.to("meta"), "32 bits on the CPU"),
        (no_head, "32 bits on the CPU"),
    ],
)
@needs_fbgemm
def test_a_head_that_would_lose_something_stays(model: Any, broken: Any, why: str) -> None:
    changed = broken(model)
    told = why_not_half(changed)
    assert told is not None and why in told
    assert ExitHead(changed, None).choose([EARLY]) == "model"
    with pytest.raises(InvalidOptionError, match=f"cannot be 'half': .*{why}"):
        ExitHead(changed, "half").choose([EARLY])


@needs_fbgemm
@pytest.mark.parametrize("largest", [2.0**17, 2.0**-9])
def test_weights_beyond_the_range_of_16_bits_are_scaled(largest: float) -> None:
    """The largest half is 65504, the smallest one with all its bits 2^-14: bfloat16 goes far beyond both."""
    generator = torch.Generator().manual_seed(9)
    linear = torch.nn.Linear(64, 33, bias=False)
    with torch.inference_mode():
        weights = torch.randn(33, 64, generator=generator)
        weights[::2] *= 1e-4
        linear.weight.copy_((weights / weights.abs().max() * largest).bfloat16().float())
        hidden = torch.randn(2, 64, generator=generator)
        exact = hidden.double() @ linear.weight.double().T
        torch.testing.assert_close(packed_half(linear)(hidden).double(), exact, rtol=1e-5, atol=largest * 1e-9)

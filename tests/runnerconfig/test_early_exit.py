"""The early-exit study: its plan, and that the engine takes every level's options."""

from pathlib import Path

from orchestrator.config_loader import load_config
from orchestrator.design import expand
from testbed.engines.registry import ENGINES

STUDY = Path(__file__).parents[2] / "runnerconfig" / "early_exit.py"


def test_exits_differ_and_nothing_else() -> None:
    runs = expand(load_config(STUDY)[0], "").runs
    assert len(runs) == 9 * 3 * 3
    by_exit = {str(run.spec.treatment["exit"]): run.spec.engine.options for run in runs}
    layers = {str(run.spec.treatment["exit"]): run.spec.sampling.exit_layers for run in runs}
    assert {int(name): each for name, each in layers.items() if name.isdigit()} == {
        layer: (layer,) for layer in (30, 28, 26, 24, 21, 18, 15)
    }
    by_token = {name: each for name, each in by_exit.items() if not name.isdigit()}
    assert len(by_token) == 2 and all(each["exit_entropy"] > 0 and not layers[name] for name, each in by_token.items())
    assert len({run.spec.engine_key() for run in runs if run.spec.sampling.exit_layers}) == 1, "one model for all"
    rest = {
        str({name: value for name, value in options.items() if not name.startswith("exit_")})
        for options in by_exit.values()
    }
    assert len(rest) == 1
    for run in runs:
        assert run.spec.workload.options["task"] == run.spec.treatment["task"]
        assert run.spec.sampling.ignore_eos and run.spec.sampling.temperature == 0


def test_the_engine_takes_every_levels_options() -> None:
    for run in expand(load_config(STUDY)[0], "").runs:
        ENGINES.create(run.spec.engine.name, **run.spec.engine.options).close()


def test_another_model_has_its_own_layers(tmp_path: Path) -> None:
    (tmp_path / "early_exit.py").write_text(STUDY.read_text())
    derived = tmp_path / "derived.py"
    derived.write_text(
        "from early_exit import RunnerConfig as Base\n\n\n"
        "class RunnerConfig(Base):\n    layers = (16, 9)\n    rules = {}\n    tasks = ('RTE',)\n    repetitions = 1\n"
    )
    runs = expand(load_config(derived)[0], "").runs
    assert {run.spec.sampling.exit_layers for run in runs} == {(16,), (9,)} and len(runs) == 2

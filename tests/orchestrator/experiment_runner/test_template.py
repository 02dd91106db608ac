"""Templates: levels in their places, and everything that can be wrong, with file and key."""

from pathlib import Path

import pytest

from contract.errors import ConfigError
from orchestrator.config import RunnerConfig
from orchestrator.experiment_runner.template import parse_template, read_template
from tests.orchestrator.experiment_runner.studies import LLAMA_TEMPLATE, ROOT, TEMPLATE


def test_levels_go_into_their_places_with_their_type() -> None:
    text = TEMPLATE.replace(
        "options = { n_items = 4 }",
        'concurrency = "{n}"\noptions = { n_items = "{n}", of = ["{n}/{task}", "{{task}}"], share = "{ratio}" }',
    )
    trial = parse_template(text, "t.toml").trial_of({"task": "RTE", "n": 8, "ratio": 0.5})
    assert trial.workload.concurrency == 8
    assert trial.workload.options == {"n_items": 8, "of": ["8/RTE", "{task}"], "share": 0.5}


def test_lookups_turn_levels_into_a_model() -> None:
    trial = parse_template(LLAMA_TEMPLATE, "t.toml").trial_of({"generation": "3.2", "model_size": "1B", "task": "CB"})
    assert trial.model.source == "hf:meta-llama/Llama-3.2-1B-Instruct"
    assert (trial.model.name, trial.workload.options["task"]) == ("llama-3.2-1B", "CB")
    with pytest.raises(ConfigError, match=r"\[lookup.model\] of the template has no '3.2-8B'. Add it; it has: '2-7B'"):
        parse_template(LLAMA_TEMPLATE, "t.toml").trial_of({"generation": "3.2", "model_size": "8B", "task": "CB"})


def test_a_template_may_set_everything_that_a_configuration_of_ours_may() -> None:
    settings = parse_template(TEMPLATE, "t.toml").experiment
    own = set(RunnerConfig.__annotations__)
    assert own <= set(type(settings).model_fields)


def test_columns_are_filled_from_equal_names_or_from_what_is_named() -> None:
    template = parse_template(TEMPLATE, "t.toml")
    assert template.source_of("energy") == "energy_j"
    assert template.source_of("duration_s") == "duration_s"
    assert template.source_of("avg_cpu") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "fake"\nsource', "name = \nsource", r"t.toml is not TOML: .*line 7"),
        ("[experiment]", "[experiments]", "experiments: Extra inputs"),
        ("seed = 7", "sed = 7", "experiment.sed: Extra inputs"),
        ("max_wait_s = 0", "max_wait_s = -1", "experiment.cooldown.max_wait_s: "),
        ("[trial.engine]", "[trial.motor]", r"\[trial\] has 'motor'. Choose from: model, engine"),
        ('energy = "energy_j"', 'energy = "joules"', "fills 'energy' from 'joules', which is no column of ours"),
        ("[data_columns]", '[lookup.x]\na = "b"\n[data_columns]', r"\[lookup.x\] has no `key`"),
    ],
)
def test_what_is_wrong_in_a_template_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(TEMPLATE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as told:
        read_template(path)
    assert str(path) in str(told.value)


def test_a_place_that_is_no_factor_is_told() -> None:
    template = parse_template(TEMPLATE.replace("fake:small", "fake:{size}"), "t.toml")
    with pytest.raises(ConfigError, match=r"has \{size\}, which is no factor. Choose from: task"):
        template.trial_of({"task": "RTE"})


def test_a_missing_template_names_the_example() -> None:
    with pytest.raises(ConfigError, match=r"no template .*runnerconfig/experiment_runner.toml"):
        read_template(Path("absent.toml"))
    assert (ROOT / "runnerconfig" / "experiment_runner.toml").is_file()

"""Studies of Experiment Runner on the command line: what is shown, and what is refused with nothing written."""

import json
from pathlib import Path

import pytest

from tests.orchestrator.experiment_runner.studies import (
    LLAMA,
    LLAMA_TEMPLATE,
    OVERLAP,
    line_of,
    snapshot,
    write_study,
)
from tests.orchestrator.test_orchestrator_cli import command, words


def test_plan_shows_rows_and_says_what_experiment_runner_would_have_lost(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path, OVERLAP)
    shown = words(command("plan", "--experiment-runner-config", config, "--spec", spec))
    assert "treatments 4 (5 excluded)" in shown
    assert "Experiment Runner itself would lose 1 of 4 treatments (a=2, b=y)" in shown


def test_plan_as_json_has_all_900_rows(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path, LLAMA, template=LLAMA_TEMPLATE)
    done = command("plan", "--experiment-runner-config", config, "--spec", spec, "--json", "--limit", "1000")
    document = json.loads(done.stdout)
    assert (document["n_runs"], document["n_treatments"], document["n_excluded"]) == (900, 30, 66)
    assert len({run["run_id"] for run in document["runs"]}) == 900


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_configuration_that_raises_names_its_line_and_writes_nothing(tmp_path: Path, verb: str) -> None:
    config, spec = write_study(tmp_path, imports="raise ValueError('no data')  # here")
    before = snapshot(tmp_path)
    options = ["--local", "--results", tmp_path / "results"] if verb == "run" else []
    done = command(verb, "--experiment-runner-config", config, "--spec", spec, *options)
    assert done.returncode == 2
    assert f"{config}, line {line_of(config, '# here')}: the import failed with ValueError: no data." in words(done)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "results").exists()


def test_a_configuration_in_the_wrong_place_is_known(tmp_path: Path) -> None:
    config, _ = write_study(tmp_path)
    done = command("plan", config)
    assert done.returncode == 2
    assert "This is a configuration of Experiment Runner: give it with --experiment-runner-config" in words(done)


def test_a_template_that_makes_no_trial_names_the_treatment(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path)
    spec.write_text(spec.read_text().replace("n_items = 4 }", "n_items = 4 }\nconcurrency = 0"))
    done = command("plan", "--experiment-runner-config", config, "--spec", spec)
    assert done.returncode == 2
    assert "trial({'task': 'BoolQ'}) makes no valid trial: workload.concurrency" in words(done)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan"], "give either CONFIG or --experiment-runner-config FILE"),
        (["plan", "a.py", "--experiment-runner-config", "b.py"], "give either CONFIG or --experiment-runner-config"),
        (["plan", "--experiment-runner-config", "b.py"], "say with --spec TEMPLATE how its levels become trials"),
        (["plan", "a.py", "--spec", "t.toml"], "goes with --experiment-runner-config only"),
        (["run", "a.py", "--continue-from", "x", "--local"], "goes with --experiment-runner-config only"),
        (["export", "x", "--format", "xlsx"], "choose one of: csv, parquet, experiment-runner"),
        (["export", "x", "--output", "y"], "goes with --format experiment-runner only"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert message in " ".join(words(done).replace("│", " ").split())

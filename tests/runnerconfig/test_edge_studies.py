"""The edge studies: their plans, and that all choosers of a seed meet the same board."""

from pathlib import Path

import pytest

from contract.errors import ConfigError, InvalidOptionError
from contract.trial_spec import TrialSpec
from orchestrator.config_loader import load_config
from orchestrator.design import expand
from testbed.edge_trial import edge_parts
from testbed.engines.build import build_engine
from testbed.simulation.orin_grid import CLOCKS_MHZ

FOLDER = Path(__file__).parents[2] / "runnerconfig"


def plan(path: Path) -> list[TrialSpec]:
    return [run.spec for run in expand(load_config(path)[0], "").runs]


def derived(tmp_path: Path, base: str, *lines: str) -> Path:
    for name in ("edge_grid.py", "edge_grpo.py"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    body = "".join(f"    {line}\n" for line in lines)
    path = tmp_path / "derived.py"
    path.write_text(f"from {base} import RunnerConfig as Base\n\n\nclass RunnerConfig(Base):\n{body}")
    return path


def test_the_grid_is_a_part_by_default_and_the_whole_by_one_attribute(tmp_path: Path) -> None:
    assert len(plan(FOLDER / "edge_grid.py")) == 3 * 3 * 3 * 2
    whole = plan(derived(tmp_path, "edge_grid", "is_full = True"))
    assert len(whole) == 5808
    cells = {tuple(spec.edge.chooser.options.values()) for spec in whole if spec.edge}
    assert len(cells) == 5808
    assert len({spec.engine_key() for spec in whole}) == 1


def test_every_cell_of_the_grid_is_one_of_the_space() -> None:
    for spec in plan(FOLDER / "edge_grid.py"):
        assert spec.edge is not None and tuple(spec.edge.space.clocks_mhz) == CLOCKS_MHZ
        parts = edge_parts(spec, build_engine(spec), {})
        assert parts.chooser.settings() == {
            name: spec.treatment[name] for name in ("prefill_bin", "decode_bin", "batch", "exit_layer")
        }
        assert spec.edge.n_evaluations == 0


def test_choosers_of_a_seed_have_the_same_board_budget_and_noise() -> None:
    specs = plan(FOLDER / "edge_grpo.py")
    assert len(specs) == 6 * 2 * 10
    for seed in range(10):
        for fan in ("on", "stops"):
            same = [spec for spec in specs if (spec.treatment["seed"], spec.treatment["fan"]) == (seed, fan)]
            assert (
                len({spec.model_dump_json(include={"engine", "model", "workload", "actuators"}) for spec in same}) == 1
            )
            edges = [spec.edge for spec in same if spec.edge is not None]
            assert len({edge.model_dump_json(exclude={"chooser"}) for edge in edges}) == 1
            assert {edge.seed for edge in edges} == {seed}
            assert {edge.fan_off_at for edge in edges} == ({None} if fan == "on" else {150})
            assert len({edge.chooser.model_dump_json() for edge in edges}) == 6


def test_a_trained_policy_is_a_file_and_the_logs_are_names(tmp_path: Path) -> None:
    path = derived(
        tmp_path,
        "edge_grpo",
        'files = {"grpo_trained": "grpo-0.safetensors"}',
        'grid_fan_on, grid_fan_off = "on.csv", "off.csv"',
        "seeds = (3,)",
    )
    specs = plan(path)
    (trained,) = [
        spec for spec in specs if (spec.treatment["chooser"], spec.treatment["fan"]) == ("grpo_trained", "on")
    ]
    assert trained.edge is not None
    assert (trained.edge.chooser.name, trained.edge.chooser.file) == ("learned", "grpo-0.safetensors")
    assert trained.engine.options == {"grid_fan_on": "on.csv", "grid_fan_off": "off.csv"}


def test_a_real_jetson_has_its_clocks_and_fan_set_by_the_kernels_files(tmp_path: Path) -> None:
    spec = plan(derived(tmp_path, "edge_grid", "is_simulated = False"))[0]
    assert [each.name for each in spec.actuators] == ["devfreq", "fan"]
    assert spec.engine.name == "transformers" and spec.meter.name == "jetson"


def test_a_bin_or_fan_that_there_is_not_is_refused(tmp_path: Path) -> None:
    spec = plan(derived(tmp_path, "edge_grid", "part_bins = (0, 11)"))[-1]
    with pytest.raises(InvalidOptionError, match=r"no (prefill|decode)_bin 11 in the trial's space"):
        edge_parts(spec, build_engine(spec), {})
    spec = plan(derived(tmp_path, "edge_grid", "decode_bins = (0, 11)", "part_bins = (0,)"))[0]
    with pytest.raises(InvalidOptionError, match="clocks_mhz has 0 to 10"):
        edge_parts(spec, build_engine(spec), {})
    with pytest.raises(ConfigError, match="edge"):
        plan(derived(tmp_path, "edge_grid", "n_batches = 0"))

"""The simulated Orin: its grid logs, its thermal model, and the physics that any board keeps."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import UsageError
from testbed.simulation.orin import BoardState, ExitModel, OrinSetting, SimulatedOrin, errors_on, held_out_errors
from testbed.simulation.orin_grid import OrinGrid, OrinGridError, read_orin_grid
from testbed.simulation.orin_thermal import ThermalFit, ThermalModel, fit_thermal
from tests.testbed.orin_logs import BATCHES, GAP_S, JETSON, TRUTH, Row, fan_off_rows, fan_on_rows, row, write_log

needs_shared = pytest.mark.skipif(not JETSON.exists(), reason="the shared Jetson grid logs are not here")

powers_w = st.floats(1.0, 60.0)
temps_c = st.floats(-10.0, 120.0)
times_s = st.floats(0.0, 5000.0)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> OrinGrid:
    return read_orin_grid(write_log(tmp_path_factory.mktemp("grid") / "on.csv", fan_on_rows()))


@pytest.fixture(scope="module")
def fan_off(tmp_path_factory: pytest.TempPathFactory) -> OrinGrid:
    return read_orin_grid(write_log(tmp_path_factory.mktemp("grid") / "off.csv", fan_off_rows()))


@pytest.fixture(scope="module")
def board(grid: OrinGrid) -> SimulatedOrin:
    return SimulatedOrin.of(grid, TRUTH)


def at(grid: OrinGrid, quantity: str, prefill_bin: int, decode_bin: int, batch: float) -> float:
    return float(grid.table().at(quantity, np.array(prefill_bin), np.array(decode_bin), np.array(batch)))


def refused(folder: Path, rows: list[Row]) -> str:
    with pytest.raises(OrinGridError) as caught:
        read_orin_grid(write_log(folder / "grid.csv", rows))
    return caught.value.message


# The log.


def test_a_log_comes_back_as_it_was_written(grid: OrinGrid) -> None:
    assert len(grid) == 11 * 11 * len(BATCHES)
    assert grid.repeated == grid.missing == ()
    assert at(grid, "decode_s", 3, 5, 19) == pytest.approx(row(3, 5, 19)["decode_time"])


def test_between_two_batches_it_is_linear(grid: OrinGrid) -> None:
    assert at(grid, "decode_s", 0, 10, 10) == pytest.approx(row(0, 10, 10)["decode_time"])


def test_a_missing_cell_is_named_and_comes_from_its_neighbours(tmp_path: Path) -> None:
    rows = [each for each in fan_on_rows() if each != row(5, 6, 19, each["temperature"])]
    holed = read_orin_grid(write_log(tmp_path / "grid.csv", rows))
    assert holed.missing == ((5, 6, 19),)
    assert at(holed, "decode_power_w", 5, 6, 19) == pytest.approx(row(5, 6, 19)["decode_power_w"])


def test_a_cell_that_is_there_twice_is_named_and_averaged(tmp_path: Path) -> None:
    other = row(5, 9, 31)
    other["decode_time"] += 1.0
    other["energy"] += other["decode_power_w"]
    twice = read_orin_grid(write_log(tmp_path / "grid.csv", [*fan_on_rows(), other]))
    assert twice.repeated == ((5, 9, 31),)
    assert at(twice, "decode_s", 5, 9, 31) == pytest.approx(row(5, 9, 31)["decode_time"] + 0.5)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("prefill_freq_bin", 11.0, "is no bin; there are 0 to 10"),
        ("effective_batch_size", 0.0, "of 1 or above"),
        ("decode_time", float("nan"), "is not a number"),
        ("temperature", 0.0, "must be above 0"),
        ("energy", 1.0, "is not the power times time"),
    ],
)
def test_a_wrong_cell_is_refused_with_its_row_and_column(tmp_path: Path, column: str, value: float, told: str) -> None:
    rows = [row(0, 0, 1), row(1, 1, 1)]
    if column in ("decode_time",):
        path = write_log(tmp_path / "grid.csv", rows)
        path.write_text(path.read_text().replace(repr(rows[1][column]), "n/a"))
        with pytest.raises(OrinGridError) as caught:
            read_orin_grid(path)
        message = caught.value.message
    else:
        rows[1][column] = value
        message = refused(tmp_path, rows)
    assert f"row 3, column {column}" in message
    assert told in message


def test_a_log_without_a_column_or_rows_is_refused(tmp_path: Path) -> None:
    assert "no rows" in refused(tmp_path, [])
    (tmp_path / "other.csv").write_text("prefill_freq_bin,energy\n0,1\n")
    with pytest.raises(OrinGridError, match="no column decode_freq_bin"):
        read_orin_grid(tmp_path / "other.csv")
    path = write_log(tmp_path / "cut.csv", [row(0, 0, 1)])
    path.write_text(path.read_text().rsplit(",", 2)[0])
    with pytest.raises(OrinGridError, match="row 2 has 10 of 12 columns"):
        read_orin_grid(path)


@pytest.mark.parametrize(("prefill_bin", "decode_bin", "batch"), [(11, 0, 1), (0, -1, 1), (0, 0, 32), (0, 0, 0)])
def test_what_does_not_exist_is_refused(board: SimulatedOrin, prefill_bin: int, decode_bin: int, batch: int) -> None:
    with pytest.raises(OrinGridError, match=r"there are|the log has"):
        board.run(OrinSetting(prefill_bin, decode_bin, batch, 16), BoardState(60.0))


# The thermal model.


@given(temps_c, powers_w, times_s, st.booleans())
def test_the_temperature_goes_from_start_to_end_and_never_beyond(
    temp_c: float, power_w: float, duration_s: float, is_fan_on: bool
) -> None:
    end_c = TRUTH.ambient_c + TRUTH.resistance_c_per_w(is_fan_on) * power_w
    after_c = float(TRUTH.after_c(temp_c, power_w, duration_s, is_fan_on))
    assert min(temp_c, end_c) - 1e-9 <= after_c <= max(temp_c, end_c) + 1e-9
    long_after_c = float(TRUTH.after_c(temp_c, power_w, 50 * TRUTH.time_constant_s(is_fan_on), is_fan_on))
    assert long_after_c == pytest.approx(end_c, abs=1e-6)


@given(temps_c, powers_w, times_s, times_s)
def test_two_stretches_are_as_one(temp_c: float, power_w: float, first_s: float, second_s: float) -> None:
    halfway_c = float(TRUTH.after_c(temp_c, power_w, first_s, False))
    twice_c = float(TRUTH.after_c(halfway_c, power_w, second_s, False))
    assert twice_c == pytest.approx(float(TRUTH.after_c(temp_c, power_w, first_s + second_s, False)), abs=1e-6)


def test_the_fit_finds_the_board_that_made_the_logs(grid: OrinGrid, fan_off: OrinGrid) -> None:
    fit = fit_thermal(grid, fan_off, heating=((0, 50), (60, 120)))
    assert fit.model.ambient_c == pytest.approx(TRUTH.ambient_c, rel=1e-3)
    assert fit.model.resistance_on_c_per_w == pytest.approx(TRUTH.resistance_on_c_per_w, rel=1e-3)
    assert fit.model.resistance_off_c_per_w == pytest.approx(TRUTH.resistance_off_c_per_w, rel=1e-3)
    assert fit.model.time_constant_s(False) == pytest.approx(TRUTH.time_constant_s(False))
    assert max(fit.rmse_on_c, fit.rmse_off_c, fit.rmse_off_all_c) < 1e-3


def test_stretches_that_are_not_there_and_impossible_boards_are_refused(grid: OrinGrid, fan_off: OrinGrid) -> None:
    with pytest.raises(UsageError, match="no rows 100 to 500"):
        fit_thermal(grid, fan_off, heating=((100, 500),))
    with pytest.raises(UsageError, match="above 0"):
        ThermalModel(50.0, 0.0, 2.0, 600.0)


# The board.


@settings(max_examples=50)
@given(st.integers(0, 10), st.integers(0, 10), st.integers(1, 31), st.integers(1, 16), st.integers(0, 2**32))
def test_energy_is_power_times_time_with_noise_too(
    board: SimulatedOrin, prefill_bin: int, decode_bin: int, batch: int, exit_layer: int, seed: int
) -> None:
    run = board.run(
        OrinSetting(prefill_bin, decode_bin, batch, exit_layer), BoardState(60.0), np.random.default_rng(seed)
    )
    service = run.service
    phases_j = service.prefill_s * service.prefill_power_w + service.decode_s * service.decode_power_w
    assert float(service.energy_j) == pytest.approx(float(phases_j))
    assert float(service.mean_power_w * service.latency_s) == pytest.approx(float(service.energy_j))
    assert run.duration_s == pytest.approx(float(service.latency_s) + GAP_S)


def hottest_after(board: SimulatedOrin, setting: OrinSetting, is_fan_on: bool, n_batches: int = 300) -> float:
    state = BoardState(60.0, is_fan_on)
    return max(board.run(setting, state).temp_c for _ in range(n_batches))


def test_it_is_hotter_without_the_fan_and_at_more_power(board: SimulatedOrin) -> None:
    cool, hot = OrinSetting(0, 0, 1, 16), OrinSetting(10, 6, 31, 16)
    assert hottest_after(board, cool, False) > hottest_after(board, cool, True) + 5
    assert hottest_after(board, hot, True) > hottest_after(board, cool, True)


def test_fewer_layers_take_less_time_and_energy_at_the_same_power(board: SimulatedOrin) -> None:
    whole, half = (board.one(OrinSetting(5, 5, 13, layers)) for layers in (16, 8))
    assert float(half.latency_s / whole.latency_s) == pytest.approx(1 - 0.9 / 2)
    assert float(half.energy_j / whole.energy_j) == pytest.approx(1 - 0.9 / 2)
    assert ExitModel(layer_share_decode=0.0).factors(np.array(1))[1] == 1.0
    with pytest.raises(UsageError, match="no exit after layer 17"):
        board.one(OrinSetting(5, 5, 13, 17))


def test_at_its_limit_the_board_throttles_and_stays_there(board: SimulatedOrin) -> None:
    state, setting = BoardState(97.0, is_fan_on=False), OrinSetting(10, 10, 31, 16)
    runs = [board.run(setting, state) for _ in range(400)]
    late = runs[200:]
    assert max(run.n_bins_lowered for run in late) > 0
    assert max(float(run.service.latency_s) for run in late) > float(board.one(setting).latency_s)
    # Lowered clocks draw too little to heat on: some way above the limit for a few batches, no more.
    assert max(run.temp_c for run in late) < board.throttle.limit_c + 1
    assert min(run.temp_c for run in late) > board.throttle.release_c - 1


def test_a_board_has_no_error_at_its_own_cells(board: SimulatedOrin, grid: OrinGrid) -> None:
    assert max(errors_on(board, grid).values()) < 1e-9


def test_held_out_cells_of_a_linear_grid_are_found_exactly(grid: OrinGrid) -> None:
    errors = held_out_errors(grid, share=0.05, seeds=(0,))
    assert set(errors) == {"prefill_s", "decode_s", "prefill_power_w", "decode_power_w", "latency_s", "energy_j"}
    # Cells at corners have neighbours on one side only; all others are exact.
    assert max(errors.values()) < 0.02


# The study's own logs.


@pytest.fixture(scope="module")
def published() -> tuple[OrinGrid, OrinGrid]:
    return read_orin_grid(JETSON / "grid_fan_on.csv"), read_orin_grid(JETSON / "grid_fan_off.csv")


@pytest.fixture(scope="module")
def published_fit(published: tuple[OrinGrid, OrinGrid]) -> ThermalFit:
    return fit_thermal(*published)


@needs_shared
def test_the_published_logs_and_their_defects(published: tuple[OrinGrid, OrinGrid]) -> None:
    fan_on, fan_off = published
    assert (len(fan_on), len(fan_off)) == (3872, 594)
    assert (fan_on.repeated, fan_on.missing) == (((5, 9, 32),), ((5, 6, 32),))
    # The slowest rows are no throttling: they are 9 deg C below where the board throttles.
    slowest = int(fan_off.latency_s.argmax())
    assert fan_off.latency_s[slowest] == pytest.approx(19.6863)
    assert fan_off.figures["temp_c"][slowest] == pytest.approx(89.32, abs=0.01)


@needs_shared
def test_at_its_limit_the_published_board_is_slower(published: tuple[OrinGrid, OrinGrid]) -> None:
    fan_on, fan_off = published
    board = SimulatedOrin.of(fan_on, TRUTH)
    cells = (fan_off.prefill_bin, fan_off.decode_bin, fan_off.batch.astype(float))
    ratio = fan_off.latency_s / board.service(*cells, np.full(len(fan_off), 16)).latency_s
    temp_c, place = fan_off.figures["temp_c"], np.arange(len(fan_off))
    hot = temp_c >= 98.5
    undisturbed = (temp_c < 98) & ((place < 371) | (place > 401))
    assert (hot.sum(), undisturbed.sum()) == (84, 471)
    assert float(np.median(ratio[hot])) == pytest.approx(1.044, abs=0.001)
    assert float(ratio[hot].max()) == pytest.approx(1.215, abs=0.001)
    assert float(np.median(ratio[undisturbed])) == pytest.approx(0.967, abs=0.001)


@needs_shared
def test_held_out_cells_of_the_published_grid(published: tuple[OrinGrid, OrinGrid]) -> None:
    errors = held_out_errors(published[0])
    assert errors["decode_s"] < 0.015
    assert errors["energy_j"] < 0.015
    assert errors["prefill_power_w"] < 0.02
    assert errors["decode_power_w"] < 0.01
    # Prompts differ in length from cell to cell.
    assert 0.05 < errors["prefill_s"] < 0.10


@needs_shared
def test_the_published_temperatures_fit_and_what_they_leave_open(published_fit: ThermalFit) -> None:
    assert published_fit.rmse_off_c < 0.5 < published_fit.sd_off_c
    assert published_fit.rmse_on_c < published_fit.sd_on_c
    assert published_fit.model.resistance_off_c_per_w > 4 * published_fit.model.resistance_on_c_per_w
    low_s, high_s = published_fit.plausible_tau_s()
    assert high_s > 3 * low_s
    # One model for all rows does not do: the board was cooled in between.
    assert published_fit.rmse_off_all_c > 3

"""A simulated AGX Orin: what a batch takes and draws at two clocks and an exit layer, and how warm the board gets.

Times and powers are those of a grid log (`orin_grid`), temperature is that of `orin_thermal`. What no log tells is
assumed, and is a parameter: how much of a phase goes with the number of layers (`ExitModel`), and that at its limit the
board lowers both clocks a bin per batch until it is cool again (`Throttle`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contract.errors import UsageError
from testbed.simulation.orin_grid import CLOCKS_MHZ, QUANTITIES, OrinGrid, OrinGridError, OrinTable
from testbed.simulation.orin_thermal import ThermalModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OrinSetting:
    """What can be chosen for a batch.

    Attributes:
        prefill_bin: clock of the prefill, an index into `CLOCKS_MHZ`.
        decode_bin: clock of the decode.
        batch: requests.
        exit_layer: layers that are run of each token.
    """

    prefill_bin: int
    decode_bin: int
    batch: int
    exit_layer: int


@dataclass(frozen=True)
class ExitModel:
    """Time by exit layer, an assumption: a share of each phase goes with the layers, the rest stays; power stays.

    Attributes:
        n_layers: of the whole model; Llama-3.2-1B has 16.
        layer_share_prefill: of the prefill's time, 0 to 1.
        layer_share_decode: of the decode's time, 0 to 1.

    Raises:
        UsageError: a share outside 0 to 1, or no layers.
    """

    n_layers: int = 16
    layer_share_prefill: float = 0.9
    layer_share_decode: float = 0.9

    def __post_init__(self) -> None:
        shares = (self.layer_share_prefill, self.layer_share_decode)
        if self.n_layers < 1 or not all(0 <= each <= 1 for each in shares):
            raise UsageError(f"exit model: give 1 layer or more and shares of 0 to 1; got {self}.")

    def factors(self, exit_layer: Ints) -> tuple[Floats, Floats]:
        """What prefill and decode time are multiplied with.

        Args:
            exit_layer: (...), 1 to `n_layers`.

        Raises:
            UsageError: a layer that the model does not have.
        """
        layers = np.asarray(exit_layer)
        wrong = (layers < 1) | (layers > self.n_layers)
        if wrong.any():
            raise UsageError(
                f"no exit after layer {np.extract(wrong, layers)[0]}; the model has 1 to {self.n_layers}. Choose one "
                "of these."
            )
        share = layers / self.n_layers
        prefill = 1 - self.layer_share_prefill * (1 - share)
        return prefill, 1 - self.layer_share_decode * (1 - share)


@dataclass(frozen=True)
class Throttle:
    """What the board does at its limit, an assumption: both clocks fall a bin per batch, and rise again when cool.

    Attributes:
        limit_c: from here on they fall; the fan-off log stays at 98.6 to 99.4 once it is there.
        release_c: below it they rise again.
    """

    limit_c: float = 98.8
    release_c: float = 97.8


@dataclass(frozen=True, eq=False)
class Service:
    """A batch, or many: all arrays have the same shape.

    Attributes:
        prefill_s: time of the prefill.
        decode_s: time of the decode.
        prefill_power_w: mean over the prefill.
        decode_power_w: mean over the decode.
        n_prompt_tokens: of all requests; each of the log's mean length.
        n_output_tokens: of all requests.
    """

    prefill_s: Floats
    decode_s: Floats
    prefill_power_w: Floats
    decode_power_w: Floats
    n_prompt_tokens: Floats
    n_output_tokens: Floats

    @property
    def latency_s(self) -> Floats:
        """Both phases."""
        return self.prefill_s + self.decode_s

    @property
    def energy_j(self) -> Floats:
        """Power times time of both phases."""
        return self.prefill_s * self.prefill_power_w + self.decode_s * self.decode_power_w

    @property
    def mean_power_w(self) -> Floats:
        """Energy over latency."""
        return self.energy_j / self.latency_s

    @property
    def throughput_per_s(self) -> Floats:
        """Prompt and output tokens over latency, as in the study's log."""
        return (self.n_prompt_tokens + self.n_output_tokens) / self.latency_s


@dataclass(frozen=True)
class BatchRun:
    """A batch that the simulated board has run.

    Attributes:
        service: what it took and drew, each with the noise.
        start_s: the board's time at its start.
        duration_s: to the next start: latency and the gap.
        temp_c: at its end.
        is_fan_on: during it.
        n_bins_lowered: by which throttling lowered both clocks.
    """

    service: Service
    start_s: float
    duration_s: float
    temp_c: float
    is_fan_on: bool
    n_bins_lowered: int


@dataclass
class BoardState:
    """What a board remembers from batch to batch.

    Attributes:
        temp_c: now.
        is_fan_on: now.
        time_s: since the start.
        n_bins_lowered: by throttling.
    """

    temp_c: float
    is_fan_on: bool = True
    time_s: float = 0.0
    n_bins_lowered: int = 0


@dataclass(frozen=True, eq=False)
class SimulatedOrin:
    """The board; its state is apart (`BoardState`), so that many can be tried from one.

    Attributes:
        table: of a grid log.
        thermal: fitted.
        tokens_per_request: mean prompt tokens, mean output tokens of a request.
        gap_s: between two batches, at the same power (no log has what is drawn in it).
        exits: time by layers.
        throttle: at the limit.
        noise: relative standard deviation of times and powers from run to run.
    """

    table: OrinTable
    thermal: ThermalModel
    tokens_per_request: tuple[float, float]
    gap_s: float
    exits: ExitModel = field(default_factory=ExitModel)
    throttle: Throttle = field(default_factory=Throttle)
    noise: float = 0.01

    @classmethod
    def of(
        cls, grid: OrinGrid, thermal: ThermalModel, exits: ExitModel | None = None, noise: float = 0.01
    ) -> "SimulatedOrin":
        """From a log.

        Args:
            grid: with the fan on.
            thermal: see `fit_thermal`.
            exits: None: as `ExitModel` has it.
            noise: see there.
        """
        n_requests = float(grid.batch.sum())
        tokens = (
            grid.figures["n_prompt_tokens"].sum() / n_requests,
            grid.figures["n_output_tokens"].sum() / n_requests,
        )
        gap_s = float(np.median(grid.figures["duration_s"] - grid.latency_s))
        return cls(
            grid.table(), thermal, (float(tokens[0]), float(tokens[1])), gap_s, exits or ExitModel(), noise=noise
        )

    def service(self, prefill_bin: Ints, decode_bin: Ints, batch: Floats, exit_layer: Ints) -> Service:
        """What batches take and draw without noise and throttling.

        Args:
            prefill_bin: (...).
            decode_bin: (...).
            batch: (...); between two measured ones it is linear.
            exit_layer: (...).

        Raises:
            OrinGridError: a bin or batch that there is not.
            UsageError: a layer that there is not.
        """
        size = np.asarray(batch, dtype=float)
        found = {name: self.table.at(name, prefill_bin, decode_bin, size) for name in QUANTITIES[:4]}
        prefill, decode = self.exits.factors(exit_layer)
        prompt, output = self.tokens_per_request
        return Service(
            found["prefill_s"] * prefill,
            found["decode_s"] * decode,
            found["prefill_power_w"],
            found["decode_power_w"],
            prompt * size,
            output * size,
        )

    def one(self, setting: OrinSetting) -> Service:
        """`service` of a single setting."""
        return self.service(
            np.array(setting.prefill_bin),
            np.array(setting.decode_bin),
            np.array(float(setting.batch)),
            np.array(setting.exit_layer),
        )

    def run(self, setting: OrinSetting, state: BoardState, rng: np.random.Generator | None = None) -> BatchRun:
        """Run a batch; `state` is changed.

        Args:
            setting: what is chosen; throttling may lower its clocks.
            state: of the board.
            rng: for the noise; None: none.

        Raises:
            OrinGridError: a bin or batch that there is not.
        """
        lowered = state.n_bins_lowered
        for name, chosen in (("prefill", setting.prefill_bin), ("decode", setting.decode_bin)):
            if not 0 <= chosen < len(CLOCKS_MHZ):
                raise OrinGridError(
                    f"no {name} bin {chosen}; there are 0 to {len(CLOCKS_MHZ) - 1}. Choose one of these."
                )
        effective = OrinSetting(
            max(setting.prefill_bin - lowered, int(self.table.prefill_bins[0])),
            max(setting.decode_bin - lowered, int(self.table.decode_bins[0])),
            setting.batch,
            setting.exit_layer,
        )
        service = self.one(effective)
        if rng is not None and self.noise > 0:
            times, powers = np.exp(self.noise * rng.standard_normal((2, 2)))
            service = Service(
                service.prefill_s * times[0],
                service.decode_s * times[1],
                service.prefill_power_w * powers[0],
                service.decode_power_w * powers[1],
                service.n_prompt_tokens,
                service.n_output_tokens,
            )
        start_s, duration_s = state.time_s, float(service.latency_s) + self.gap_s
        state.temp_c = float(
            self.thermal.after_c(state.temp_c, float(service.mean_power_w), duration_s, state.is_fan_on)
        )
        state.time_s += duration_s
        if state.temp_c >= self.throttle.limit_c:
            state.n_bins_lowered = min(lowered + 1, len(CLOCKS_MHZ) - 1)
        elif state.temp_c < self.throttle.release_c:
            state.n_bins_lowered = max(lowered - 1, 0)
        return BatchRun(service, start_s, duration_s, state.temp_c, state.is_fan_on, lowered)


def held_out_errors(grid: OrinGrid, share: float = 0.2, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> dict[str, float]:
    """Mean absolute error of cells that were left out of the table and interpolated, relative to what was measured.

    Args:
        grid: a log.
        share: of the cells that is left out each time.
        seeds: one for each time.

    Returns:
        MAPE, as a share, of `prefill_s`, `decode_s`, `prefill_power_w`, `decode_power_w`, `latency_s` and `energy_j`.

    Raises:
        UsageError: a share that leaves none in or out.
    """
    errors: dict[str, list[Floats]] = {}
    cells = np.array(grid.cells)
    unique, number = np.unique(cells, axis=0, return_inverse=True)
    if not 0 < math.floor(share * len(unique)) < len(unique):
        raise UsageError(f"a share of {share} of {len(unique)} cells leaves none in or out; give one between.")
    for seed in seeds:
        chosen = np.random.default_rng(seed).permutation(len(unique))[: math.floor(share * len(unique))]
        is_out = np.isin(number.reshape(-1), chosen)
        table, out = grid.rows(~is_out).table(), grid.rows(is_out)
        place = (out.prefill_bin, out.decode_bin, out.batch.astype(float))
        found = {name: table.at(name, *place) for name in QUANTITIES[:4]}
        found["latency_s"] = found["prefill_s"] + found["decode_s"]
        found["energy_j"] = found["prefill_s"] * found["prefill_power_w"] + found["decode_s"] * found["decode_power_w"]
        truth = {**out.figures, "latency_s": out.latency_s}
        for name, values in found.items():
            errors.setdefault(name, []).append(np.abs(values / truth[name] - 1))
    return {name: float(np.concatenate(each).mean()) for name, each in errors.items()}


def errors_on(board: SimulatedOrin, grid: OrinGrid) -> dict[str, float]:
    """Mean absolute error of a board at another log's cells, all layers, relative to what was measured there.

    Args:
        board: simulated.
        grid: another log, such as one with the fan off, or some of its rows.

    Returns:
        MAPE, as a share, of the same quantities as `held_out_errors`.

    Raises:
        OrinGridError: a cell that the board does not have.
    """
    layers = np.full(len(grid), board.exits.n_layers)
    found = board.service(grid.prefill_bin, grid.decode_bin, grid.batch.astype(float), layers)
    truth = {**grid.figures, "latency_s": grid.latency_s}
    names = (*QUANTITIES[:4], "latency_s", "energy_j")
    return {name: float(np.abs(getattr(found, name) / truth[name] - 1).mean()) for name in names}

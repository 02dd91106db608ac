"""Batch after batch on a device: a chooser seeks a setting, then it serves, and the fan may stop meanwhile."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contract.edge import EdgeSetting, EdgeSpec
from testbed.clock import Clock
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Chooser, best_fixed
from testbed.edge_control.phase_dial import PhaseDial
from testbed.edge_control.phased import PhasedBatch, PhasedEngine
from testbed.edge_control.record import EdgeBatch, EdgeRecord, EdgeUpdate
from testbed.edge_control.task import BatchFigures, EdgeTask
from testbed.engines.base import Completion, GenerationRequest

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Board:
    """What a device tells while batches run, and what stops its fan.

    Attributes:
        temp_c: of it, now; None: not known.
        is_fan_on: as read back; True where there is no fan to ask.
        stop_fan: does it.
        power_w: of all that is measured, now; None: not known.
    """

    temp_c: Callable[[], float | None]
    is_fan_on: Callable[[], bool] = lambda: True
    stop_fan: Callable[[], None] = lambda: None
    power_w: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Seen:
    """See `testbed.edge_control.choosers.Sensed`."""

    temp_c: float
    is_fan_on: bool


@dataclass(frozen=True)
class EdgeServed:
    """What came of it.

    Attributes:
        requests: that were answered, in order.
        completions: of each.
        batch_of: request id -> index of its batch.
        record: for the result.
    """

    requests: list[GenerationRequest]
    completions: list[Completion]
    batch_of: dict[str, int]
    record: EdgeRecord


@dataclass
class _Cost:
    """Seconds of choosing, by the machine's own clock."""

    n: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0

    def add(self, took_s: float) -> None:
        self.n += 1
        self.total_s += took_s
        self.longest_s = max(self.longest_s, took_s)


@dataclass
class EdgeDrive:
    """Drives an engine through one measured phase.

    Attributes:
        spec: of the trial.
        task: space and reward.
        chooser: seeks and serves.
        engine: loaded.
        dial: of its clock.
        board: its sensors.
        requests: to answer, without end.
        clock: of the measurement.
        on_batch: called as batches complete.
        timer: seconds of the machine's own clock, for the time that choosing takes.
    """

    spec: EdgeSpec
    task: EdgeTask
    chooser: Chooser
    engine: PhasedEngine
    dial: PhaseDial
    board: Board
    requests: Iterator[GenerationRequest]
    clock: Clock
    on_batch: Callable[[], None] = lambda: None
    timer: Callable[[], float] = time.perf_counter
    _batches: list[EdgeBatch] = field(default_factory=list, init=False)
    _updates: list[EdgeUpdate] = field(default_factory=list, init=False)
    _asked: list[GenerationRequest] = field(default_factory=list, init=False)
    _done: list[Completion] = field(default_factory=list, init=False)
    _batch_of: dict[str, int] = field(default_factory=dict, init=False)

    def run(self) -> EdgeServed:
        """Seek, then serve; blocking, for the whole of the measured phase.

        Raises:
            EngineError: generation failed.
            ActuatorError: a clock or the fan refused; what was set is put back by who holds it.
            EdgeRewardError: a reward is not a number.
        """
        start_s = self.clock.monotonic_ns() / 1e9
        self._seek()
        n_sought, recommended = len(self._batches), self.chooser.recommended()
        selection = self._serve()
        return EdgeServed(
            self._asked,
            self._done,
            self._batch_of,
            EdgeRecord(
                chooser=self.chooser.name,
                chooser_settings=dict(self.chooser.settings()),
                is_simulated=isinstance(self.task, EdgeCase),
                fan_off_at=None if self.spec.fan_off_at is None else n_sought + self.spec.fan_off_at,
                temp_limit_c=self.task.reward.limits.temp_c,
                start_s=start_s,
                end_s=self.clock.monotonic_ns() / 1e9,
                batches=self._batches,
                updates=self._updates,
                recommended=None if recommended is None else self._setting(recommended),
                **self._judged(recommended),
                n_selections=selection.n,
                selection_s=selection.total_s,
                selection_max_s=selection.longest_s,
                n_clock_switches=self.dial.n_switches,
                clock_switch_s=self.dial.switch_s,
            ),
        )

    def _seek(self) -> None:
        n_left, best = self.spec.n_evaluations, -np.inf
        while n_left > 0:
            began = self.timer()
            choices = self.chooser.propose(n_left)
            sampling_s = self.timer() - began
            if not len(choices):
                return
            rewards = np.array([self._batch(choice, is_evaluation=True) for choice in choices])
            began = self.timer()
            self.chooser.learn(choices, rewards)
            update_s = self.timer() - began
            n_left -= len(choices)
            best = max(best, float(rewards.max()))
            self._updates.append(
                EdgeUpdate(
                    n_evaluations=self.spec.n_evaluations - n_left,
                    reward_mean=float(rewards.mean()),
                    reward_best=best,
                    sampling_s=sampling_s,
                    update_s=update_s,
                )
            )

    def _serve(self) -> _Cost:
        cost = _Cost()
        for number in range(self.spec.n_batches):
            if number == self.spec.fan_off_at:
                self.board.stop_fan()
            temp_c = self.board.temp_c()
            seen = Seen(float("nan") if temp_c is None else temp_c, self.board.is_fan_on())
            began = self.timer()
            choice = self.chooser.choose(seen)
            cost.add(self.timer() - began)
            self._batch(choice, is_evaluation=False)
        return cost

    def _batch(self, choice: Ints, *, is_evaluation: bool) -> float:
        """Run a batch; its reward, NaN where it is not known."""
        setting = self._setting(choice)
        batch = [next(self.requests) for _ in range(setting.batch)]
        is_fan_on, powers_w = self.board.is_fan_on(), [self.board.power_w()]
        self.dial.turn(setting.prefill_bin)

        def decode() -> None:
            powers_w.append(self.board.power_w())
            self.dial.turn(setting.decode_bin)

        served = self.engine.generate_phased(
            batch, exit_layer=setting.exit_layer, decode_mhz=self.dial.mhz(setting.decode_bin), on_decode=decode
        )
        powers_w.append(self.board.power_w())
        energy_j = served.energy_j if served.energy_j is not None else _energy_j(served, powers_w)
        temp_c = self.board.temp_c()
        reward = self._reward(served, setting.exit_layer, energy_j, temp_c, is_fan_on)
        for request in batch:
            self._batch_of[request.request_id] = len(self._batches)
        known = {done.request_id for done in served.completions}
        self._asked += [each for each in batch if each.request_id in known]
        self._done += served.completions
        self._batches.append(
            EdgeBatch(
                is_evaluation=is_evaluation,
                setting=setting,
                start_s=served.start_ns / 1e9,
                decode_s=served.decode_ns / 1e9,
                end_s=served.end_ns / 1e9,
                n_tokens=served.n_tokens,
                energy_j=energy_j,
                temp_c=temp_c,
                is_fan_on=is_fan_on,
                reward=reward,
            )
        )
        self.on_batch()
        return float("nan") if reward is None else reward

    def _reward(
        self, served: PhasedBatch, exit_layer: int, energy_j: float | None, temp_c: float | None, is_fan_on: bool
    ) -> float | None:
        has_scale = self.spec.scale is not None or isinstance(self.task, EdgeCase)
        if energy_j is None or temp_c is None or not has_scale:
            return None
        latency_s = (served.end_ns - served.start_ns) / 1e9
        figures = BatchFigures(
            n_tokens=np.array(float(served.n_tokens)),
            latency_s=np.array(latency_s),
            energy_j=np.array(energy_j),
            temp_c=np.array(temp_c),
            exit_layer=np.array(exit_layer),
            entropy_nats=None if served.entropy_nats is None else np.array(served.entropy_nats),
        )
        ahead_c = self.task.ahead_c(np.array(energy_j / latency_s), temp_c, is_fan_on)
        return float(self.task.reward_of(figures, ahead_c))

    def _setting(self, choice: Ints) -> EdgeSetting:
        values = (int(each) for each in self.task.space.meaning(choice))
        return EdgeSetting(**dict(zip(self.task.space.names, values, strict=True)))

    def _judged(self, recommended: Ints | None) -> dict[str, float]:
        """By the simulation's own model; a device cannot tell."""
        if recommended is None or not isinstance(self.task, EdgeCase):
            return {}
        rewards = self.task.steady_reward(np.stack([recommended, best_fixed(self.task)]))
        return {"expected_reward": float(rewards[0]), "best_reward": float(rewards[1])}


def _energy_j(served: PhasedBatch, powers_w: list[float | None]) -> float | None:
    """Watts told at the ends of each phase x its seconds: what a reward can know before the samples are integrated."""
    if len(powers_w) < 3 or any(each is None for each in powers_w):
        return None
    first, middle, last = (float(each or 0.0) for each in powers_w)
    prefill_s, decode_s = (served.decode_ns - served.start_ns) / 1e9, (served.end_ns - served.decode_ns) / 1e9
    return (first + middle) / 2 * prefill_s + (middle + last) / 2 * decode_s

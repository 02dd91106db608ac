"""A simulated AGX Orin as an engine: times and powers of a grid log, temperature of a model; nothing is measured."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from contract.errors import InvalidOptionError
from contract.serving import FileName
from contract.trial_result import LoadReport
from contract.trial_spec import DomainName, ModelSpec
from contract.units import sha256_of
from testbed.clock import Clock, SystemClock
from testbed.data_folder import ORIN_GRIDS, named_file
from testbed.edge_control.phased import PhasedBatch
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.checks import check_concurrency
from testbed.engines.made_up import check_made_up, made_up_report
from testbed.options import PartOptions, parse_options
from testbed.simulation import made_up_orin
from testbed.simulation.orin import SimulatedOrin
from testbed.simulation.orin_grid import CLOCKS_MHZ, read_orin_grid
from testbed.simulation.orin_machine import OrinMachine
from testbed.simulation.orin_thermal import fit_thermal


class SimulatedOrinOptions(PartOptions):
    """Options of the simulated Orin."""

    grid_fan_on: FileName | None = None
    """Grid log with the fan on, in the testbed's folder `orin_grids`; None, both: a made-up board."""
    grid_fan_off: FileName | None = None
    """Grid log with the fan off, in the order it was run."""
    device: DomainName = "gpu:0"
    """Simulated device whose clock counts: the domain of an actuator `simulated_orin`."""
    fan: DomainName = "fan:0"
    """Simulated fan: another such domain. Without one, it runs."""
    start_c: float = Field(default=60.0, ge=-20, le=150)
    """Temperature of the board at the start."""
    idle_power_w: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """While nothing is served."""
    speedup: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Simulated seconds per real one, for those who watch; None: as fast as the machine goes."""


class SimulatedOrinEngine:
    """See `Engine` and `PhasedEngine`. One completion stands for a whole batch. Takes models of source `fake:NAME`.

    Args:
        **options: see `SimulatedOrinOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option, or a log that is not there.
        OrinGridError: a log that cannot be used.
    """

    name = "simulated_orin"

    def __init__(self, **options: Any) -> None:
        self.options = parse_options("engine", self.name, SimulatedOrinOptions, options)
        self.board, self._source, self._source_sha256 = board_of(
            self.options.grid_fan_on, self.options.grid_fan_off, os.environ
        )
        self.n_layers = self.board.exits.n_layers
        self._model: ModelSpec | None = None
        self._max_concurrency: int | None = None
        self.machine = self.connect(SystemClock(), lambda: CLOCKS_MHZ[-1], lambda: True, 0)

    def connect(
        self, clock: Clock, read_clock_mhz: Callable[[], float], read_fan_on: Callable[[], bool], seed: int
    ) -> OrinMachine:
        """Spend time on this clock from now on, at what the simulated devices are set to.

        Args:
            clock: of the trial.
            read_clock_mhz: of the device.
            read_fan_on: of the fan.
            seed: of the board's noise.
        """
        self.machine = OrinMachine(
            self.board,
            clock,
            read_clock_mhz,
            read_fan_on,
            seed=seed,
            start_c=self.options.start_c,
            idle_power_w=self.options.idle_power_w,
            source=self._source,
            source_sha256=self._source_sha256,
        )
        return self.machine

    def check(self, model: ModelSpec) -> None:
        """See `Engine`."""
        check_made_up(model, self.name, ": it is a simulation. Write fake:NAME.")

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`."""
        self.check(model)
        self._model, self._max_concurrency = model, max_concurrency
        return made_up_report(
            self.name,
            model,
            {
                **self.options.model_dump(mode="json"),
                "max_concurrency": max_concurrency,
                "simulated": "times, powers and temperatures are a model's; nothing is measured",
                "board": self._source,
                "board_sha256": self._source_sha256,
            },
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`: batches of `concurrency` at the clock that is set, through all layers."""
        check_concurrency(concurrency, self._max_concurrency)
        done = []
        for first in range(0, len(requests), concurrency):
            batch = requests[first : first + concurrency]
            now_mhz = self.machine.clock_mhz
            served = self.generate_phased(
                batch, exit_layer=self.n_layers, decode_mhz=now_mhz, on_decode=lambda: None
            ).completions[0]
            for request in batch:
                one = _completion(request, served.submitted_ns, served.finished_ns, *self._tokens(1))
                done.append(one)
                if on_completion is not None:
                    on_completion(one)
        return done

    def generate_phased(
        self,
        requests: Sequence[GenerationRequest],
        *,
        exit_layer: int,
        decode_mhz: float,
        on_decode: Callable[[], None],
    ) -> PhasedBatch:
        """See `PhasedEngine`."""
        check_concurrency(len(requests), self._max_concurrency)
        clock = self.machine.clock
        start_ns, decode_ns = clock.monotonic_ns(), 0

        def decode() -> None:
            nonlocal decode_ns
            decode_ns = clock.monotonic_ns()
            on_decode()

        run, end_ns = self.machine.serve(len(requests), exit_layer, decode_mhz, decode)
        n_prompt, n_output = self._tokens(len(requests))
        whole = _completion(requests[0], start_ns, end_ns, n_prompt, n_output, decode_ns)
        return PhasedBatch(
            [whole], start_ns, decode_ns, end_ns, n_prompt + n_output, energy_j=float(run.service.energy_j)
        )

    def close(self) -> None:
        """See `Engine`."""
        self._model = self._max_concurrency = None

    def _tokens(self, n_requests: int) -> tuple[int, int]:
        prompt, output = self.board.tokens_per_request
        return max(round(prompt * n_requests), 1), max(round(output * n_requests), 1)


def board_of(fan_on: str | None, fan_off: str | None, env: Mapping[str, str]) -> tuple[SimulatedOrin, str, str]:
    """The board of two grid logs, where it comes from, and a hash of that.

    Args:
        fan_on: name of a log in the testbed's folder.
        fan_off: the same; None, both: the made-up board.
        env: of the process.

    Raises:
        InvalidOptionError: no such file, or one without the other.
        OrinGridError: a log that cannot be used.
    """
    if fan_on is None or fan_off is None:
        if fan_on != fan_off:
            raise InvalidOptionError(
                "The simulated Orin needs two logs, grid_fan_on and grid_fan_off: without the second it cannot know "
                "how warm the board gets. Give both, or none for a made-up board."
            )
        return made_up_orin.made_up_orin(), made_up_orin.SOURCE, sha256_of(made_up_orin.SOURCE)
    paths = tuple(named_file(ORIN_GRIDS, name, env) for name in (fan_on, fan_off))
    return _fitted(paths, tuple(path.stat().st_mtime_ns for path in paths))


@lru_cache(maxsize=1)
def _fitted(paths: tuple[Path, ...], written_ns: tuple[int, ...]) -> tuple[SimulatedOrin, str, str]:
    # A plan of thousands of runs is checked in one process, and all of them have the same logs.
    on, off = (read_orin_grid(path) for path in paths)
    board = SimulatedOrin.of(on, fit_thermal(on, off).model)
    texts = [path.read_text(encoding="utf-8-sig") for path in paths]
    return board, f"grid logs {on.source} and {off.source}", sha256_of(texts)


def _completion(
    request: GenerationRequest, start_ns: int, end_ns: int, n_prompt: int, n_output: int, first_ns: int | None = None
) -> Completion:
    return Completion(
        request_id=request.request_id,
        text="(simulated)",
        prompt_sha256=sha256_of([dict(message) for message in request.messages]),
        n_prompt_tokens=n_prompt,
        n_output_tokens=n_output,
        finish_reason="length",
        submitted_ns=start_ns,
        token_ns=() if first_ns is None else (first_ns,),
        finished_ns=end_ns,
    )

"""A server that is a table of latency and power by clock and batch: no model, no device, and no joule is measured."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, JsonValue

from contract.trial_result import LoadReport
from contract.trial_spec import DomainName, ModelSpec
from contract.units import sha256_of
from testbed.clock import Clock, SystemClock
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.checks import check_concurrency, check_no_exit, room_for_answer
from testbed.engines.made_up import check_made_up, made_up_report
from testbed.options import PartOptions, parse_options
from testbed.simulation.service_table import ServiceTable
from testbed.simulation.simulated_machine import SimulatedMachine
from testbed.table_source import service_table

_DEFAULT_MODEL_LEN = 8192


class SimulatedOptions(PartOptions):
    """Options of the simulated engine."""

    table: JsonValue
    """Name of a file in the testbed's folder `service_tables`, or a table that travels along: see
    `contract.serving.TableSpec`."""
    device: DomainName = "gpu:0"
    """Simulated device whose clock counts: the domain of an actuator `simulated`. Without one, the highest clock of the
    table."""
    idle_power_w: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """While nothing is served."""
    switch_s: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    """Without service, for each change of the clock."""
    switch_energy_j: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of it; None: idle power x time."""
    speedup: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Simulated seconds per real one, for those who watch; None: as fast as the machine goes."""


class SimulatedEngine:
    """See `Engine`. Serves in batches of `concurrency`, each to its end. Takes models of source `fake:NAME`.

    Until it is connected to a simulated clock it takes real time, as long as the table says.

    Args:
        **options: see `SimulatedOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option.
        ServiceTableError: the table has holes, or a figure that is none.
    """

    name = "simulated"

    def __init__(self, **options: Any) -> None:
        self.options = parse_options("engine", self.name, SimulatedOptions, options)
        self.table: ServiceTable = service_table(self.options.table, os.environ)
        self.highest_mhz = float(self.table.clock_mhz[-1])
        self.machine = self.connect(SystemClock(), lambda: self.highest_mhz)
        self._model: ModelSpec | None = None
        self._max_concurrency: int | None = None

    def connect(self, clock: Clock, read_clock_mhz: Callable[[], float]) -> SimulatedMachine:
        """Spend time on this clock from now on, at the clock that the device is set to.

        Returns:
            The machine, for the meter and for what a switch costs.
        """
        options = self.options
        self.machine = SimulatedMachine(
            self.table,
            clock,
            read_clock_mhz,
            idle_power_w=options.idle_power_w,
            switch_s=options.switch_s,
            switch_energy_j=options.switch_energy_j,
        )
        return self.machine

    def check(self, model: ModelSpec) -> None:
        """See `Engine`."""
        check_made_up(model, "simulated", ": it is a table. Write fake:NAME.")

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`.

        Raises:
            ServiceTableError: the table has no batch as large as `max_concurrency`.
        """
        self.check(model)
        self.table.column(max_concurrency)
        self._model, self._max_concurrency = model, max_concurrency
        options = self.options.model_dump(mode="json", exclude={"table"})
        return made_up_report(
            self.name,
            model,
            {
                **options,
                "max_concurrency": max_concurrency,
                "simulated": "latency and power are figures of a table; nothing is measured",
                "table": self.table.source,
                "table_sha256": self.table.sha256,
            },
            max_model_len=self._max_model_len,
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`. The table knows whole batches only: a completion has an end, and no time for each token."""
        check_concurrency(concurrency, self._max_concurrency)
        check_no_exit(requests, self.name)
        planned = [self._answer(request) for request in requests]
        clock, done = self.machine.clock, []
        for first in range(0, len(planned), concurrency):
            batch = planned[first : first + concurrency]
            start_ns = clock.monotonic_ns()
            self.machine.serve(len(batch))
            for answer in batch:
                done.append(answer(start_ns, clock.monotonic_ns()))
                if on_completion is not None:
                    on_completion(done[-1])
        return done

    def close(self) -> None:
        """See `Engine`."""
        self._model = self._max_concurrency = None

    @property
    def _max_model_len(self) -> int:
        return (self._model.max_model_len if self._model else None) or _DEFAULT_MODEL_LEN

    def _answer(self, request: GenerationRequest) -> Callable[[int, int], Completion]:
        """The answer, but for its times."""
        n_words = sum(len(message["content"].split()) for message in request.messages)
        n_prompt_tokens = self.table.n_input_tokens or n_words  # what the table's requests had, where it says
        room = room_for_answer(request, n_prompt_tokens, self._max_model_len)
        prompt_sha256 = sha256_of([dict(message) for message in request.messages])
        return lambda start_ns, end_ns: Completion(
            request_id=request.request_id,
            text="(simulated)",
            prompt_sha256=prompt_sha256,
            n_prompt_tokens=n_prompt_tokens,
            n_output_tokens=min(request.sampling.max_tokens, room),
            finish_reason="length",
            submitted_ns=start_ns,
            token_ns=(),
            finished_ns=end_ns,
        )

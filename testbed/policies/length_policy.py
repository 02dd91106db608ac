"""Policies that look at the lengths of requests: by tokens, and by pools of alike ones."""

from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from pydantic import Field

from contract.errors import InvalidOptionError
from testbed.options import PartOptions, parse_options
from testbed.policies.base import Decision, Observation
from testbed.policies.table_policy import TablePolicy
from testbed.simulation.service_table import ServiceTable


class TokenAwareOptions(PartOptions):
    """Options of `token_aware`."""

    token_budget: int | None = Field(default=None, ge=1)
    """Prompt and output tokens of a batch together; None: as many as the table's largest batch has."""
    switch_s: float = Field(default=0.05, ge=0)
    """What a change of the clock takes."""


class TokenAware(TablePolicy[TokenAwareOptions]):
    """Batches up to a budget of tokens, and the slowest clock at which the batch's longest output is in time.

    Token budgets are how serving engines bound a step (Orca, Sarathi), and energy schedulers scale their latency model
    by tokens. Simplified: latency grows in proportion to the longest output of a batch over the table's output length,
    and the prompt's part is left in that proportion; requests of unknown length, and tables without one, count as the
    table's own.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        **options: see `TokenAwareOptions`.

    Raises:
        InvalidOptionError: an unknown option.
    """

    name = "token_aware"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        super().__init__(table, slo_s, parse_options("policy", self.name, TokenAwareOptions, options))
        own = (self.table.n_input_tokens, self.table.n_output_tokens)
        self._own_tokens = None if None in own else sum(each for each in own if each is not None)
        budget = self._options.token_budget
        if budget is None and self._own_tokens is not None:
            budget = self._own_tokens * self.table.max_batch
        self._budget = budget

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        batch = self._batch(observation)
        scale = self._scale(batch, observation)
        left_s = self.slo_s - observation.head_wait_s
        for row, clock_mhz in enumerate(self._clocks_mhz):
            switch_s = self._options.switch_s if clock_mhz != observation.clock_mhz else 0.0
            if switch_s + scale * self._latency_s[row][batch - 1] <= left_s:
                return Decision(clock_mhz, batch)
        return Decision(self._clocks_mhz[self._fastest[batch - 1]], batch)

    def _batch(self, observation: Observation) -> int:
        most = max(1, min(observation.n_queued, self.table.max_batch))
        if self._budget is None:
            return most
        if observation.n_input_tokens is not None and observation.n_output_tokens is not None:
            pairs = zip(observation.n_input_tokens, observation.n_output_tokens, strict=True)
            sums = accumulate(prompt + output for prompt, output in pairs)
            fit = sum(1 for _ in takewhile(lambda total: total <= (self._budget or 0), sums))
        elif self._own_tokens is not None:
            fit = self._budget // self._own_tokens
        else:
            fit = most
        return max(1, min(most, fit))

    def _scale(self, batch: int, observation: Observation) -> float:
        own, outputs = self.table.n_output_tokens, observation.n_output_tokens
        if own is None or not outputs:
            return 1.0
        return max(outputs[:batch]) / own


class DynamoLikeOptions(PartOptions):
    """Options of `dynamo_like`."""

    input_edges: tuple[int, int] = (256, 1024)
    """Prompt tokens up to which a request is short, and up to which it is medium."""
    output_edges: tuple[int, int] = (100, 350)
    """Output tokens up to which a request is short, and up to which it is medium."""
    headroom: float = Field(default=1.2, ge=1)
    """How much more than the load a clock must be able to serve."""
    latency_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the SLO that service may take; the rest is for the queue, of which the choice knows nothing."""
    max_batch: int | None = Field(default=None, ge=1)
    """Largest batch; None: the table's."""


class DynamoLike(TablePolicy[DynamoLikeOptions]):
    """Batches of one pool, requests alike in length, at the cheapest clock that carries the load within the SLO.

    DynamoLLM (Stojkovic et al., HPCA 2025) sorts requests by predicted input and output length into nine pools (short,
    medium, long), and sets instances, tensor parallelism and frequency of each from profiles, by load. Simplified: one
    device, so no instances and no parallelism; the head's pool is served, as far as the queue has it in a row, since
    the queue is first come, first served; one profile for all pools; the load is the recent rate of arrivals, and with
    none the queue over one SLO. The edges of the buckets are options; their defaults are ours.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        **options: see `DynamoLikeOptions`.

    Raises:
        InvalidOptionError: an unknown option, edges that fall, or a batch that the table lacks.
    """

    name = "dynamo_like"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        # JSON has lists only; a strict model takes tuples only.
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        super().__init__(table, slo_s, parse_options("policy", self.name, DynamoLikeOptions, given))
        for option in ("input_edges", "output_edges"):
            low, high = getattr(self._options, option)
            if not 0 < low < high:
                raise InvalidOptionError(
                    f"Policy 'dynamo_like': {option} is {low}, {high}; give two token counts that rise.", name=self.name
                )
        self._limit = self.batch_limit(self._options.max_batch)

    def settings(self) -> dict[str, Any]:
        """See `Policy`."""
        flat = dict(super().settings())
        for option in ("input_edges", "output_edges"):
            flat[option] = " ".join(str(each) for each in getattr(self._options, option))
        return flat

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        batch = self._batch(observation)
        rate = observation.arrival_rate_per_s
        load_per_s = self._options.headroom * (observation.n_queued / self.slo_s if rate is None else rate)
        most_s = self._options.latency_share * self.slo_s
        carries = [
            row
            for row, latency_s in enumerate(self._latency_s)
            if latency_s[batch - 1] <= most_s and self._limit / latency_s[self._limit - 1] >= load_per_s
        ]
        row = min(carries, key=lambda each: self._energy_j[each][batch - 1], default=self._fastest[batch - 1])
        return Decision(self._clocks_mhz[row], batch)

    def _batch(self, observation: Observation) -> int:
        most = max(1, min(observation.n_queued, self._limit))
        pools = [
            self._pool(observation, position)
            for position in range(min(most, observation.n_queued))
            if observation.n_output_tokens is not None or observation.n_input_tokens is not None
        ]
        same = sum(1 for _ in takewhile(lambda pool: pool == pools[0], pools))
        return max(1, min(most, same)) if pools else most

    def _pool(self, observation: Observation, position: int) -> tuple[int, int]:
        prompts, outputs = observation.n_input_tokens, observation.n_output_tokens
        return (
            0 if prompts is None else _bucket(prompts[position], self._options.input_edges),
            0 if outputs is None else _bucket(outputs[position], self._options.output_edges),
        )


def _bucket(n_tokens: int, edges: tuple[int, int]) -> int:
    """0 short, 1 medium, 2 long."""
    return sum(n_tokens > edge for edge in edges)

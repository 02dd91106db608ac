"""An experiment as it stands: the frame with a row per planned run, and what belongs to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import JsonValue

from analysis.columns import COLUMNS, METRIC_COLUMNS, polars_type
from contract.attempt_state import RunState
from contract.edge import EdgeReport
from contract.serving import ServingReport

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["joulebed", "experiment_runner"]


@dataclass(frozen=True)
class Exclusion:
    """A planned run that is not counted.

    Attributes:
        run_id: planned row.
        state: its state.
        why: in words, what is missing or doubted.
        is_decided: a person left it out; it is not counted whatever its state is.
    """

    run_id: str
    state: str
    why: str
    is_decided: bool = False


class Reading(NamedTuple):
    """Joules of one domain in one phase of a run; `analysis.columns.PHASE_COLUMNS` has each field's meaning."""

    run_id: str
    phase: str
    domain: str
    component: str
    method: str
    source: str
    energy_j: float | None
    uncertainty_j: float | None
    n_gaps: int
    n_wraps: int
    is_added: bool


@dataclass(frozen=True)
class Experiment:
    """An experiment as it stands now.

    Attributes:
        name: as in the configuration; of Experiment Runner, of the folder.
        source: run table or folder that was read; a database's address without its password.
        factors: names of the factor columns in `runs`.
        runs: one row per planned run in execution order; `analysis.columns.COLUMNS` has each column's meaning
            and unit. None is "not measured".
        excluded: what is not counted, and why.
        facts: what the orchestrator noted about the campaign, such as its idle temperature.
        design: order, cooldown and so on, as declared.
        seed: of the plan.
        software_version: that wrote the plan.
        kind: whose results they are.
        folder: where the files of the runs are; None where only a database was given.
        devices: rows of single devices, for `analysis.device_rows`; empty where no trial names any.
        readings: each domain in each phase, for `analysis.phases`.
        notes: what a reader must know of the reading, in sentences.
        serving: run id -> what came of its open loop, for `analysis.serving`; empty where there was none.
        edge: run id -> what came of its edge control, for `analysis.edge_control`; empty where there was none.
    """

    name: str
    source: str
    factors: tuple[str, ...]
    runs: "pl.DataFrame"
    excluded: tuple[Exclusion, ...]
    facts: dict[str, JsonValue]
    design: dict[str, JsonValue]
    seed: int | None
    software_version: str | None
    kind: Kind = "joulebed"
    folder: Path | None = None
    readings: Sequence[Reading] = field(default=(), repr=False)
    devices: Sequence[dict[str, Any]] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    serving: Mapping[str, ServingReport] = field(default_factory=dict, repr=False)
    edge: Mapping[str, EdgeReport] = field(default_factory=dict, repr=False)

    def counted(self, *, include_suspect: bool = False) -> "pl.DataFrame":
        """The rows that enter means.

        Args:
            include_suspect: also those with a result that is doubted.
        """
        import polars as pl

        is_suspect = (pl.col("state") == RunState.SUSPECT.value) & pl.col("attempt_id").is_not_null()
        decided = [each.run_id for each in self.excluded if each.is_decided]
        is_wanted = is_suspect & ~pl.col("run_id").is_in(decided)
        return self.runs.filter(pl.col("counted") | is_wanted if include_suspect else pl.col("counted"))


def factor_column(name: str) -> str:
    """Name of a factor's column: where a measurement is called the same, the measurement keeps the name."""
    return f"factor_{name}" if name in COLUMNS or name in METRIC_COLUMNS else name


def runs_frame(rows: Sequence[dict[str, Any]], factors: Sequence[str]) -> "pl.DataFrame":
    """The frame of `Experiment.runs`.

    Args:
        rows: one per planned run; what a row lacks is None.
        factors: columns of the factors; they go before `state`.
    """
    import polars as pl

    data: dict[str, pl.Series] = {}
    for name, column in COLUMNS.items():
        if name == "state":
            for factor in factors:
                data[factor] = _level_series(factor, [row.get(factor) for row in rows])
        data[name] = pl.Series(name, [row.get(name) for row in rows], dtype=polars_type(column.kind))
    return pl.DataFrame(data)


def _level_series(name: str, levels: list[Any]) -> "pl.Series":
    """A factor's levels in the narrowest type that holds them all; mixed levels become text."""
    import polars as pl

    present = {type(level) for level in levels if level is not None}
    if present == {bool}:
        return pl.Series(name, levels, dtype=pl.Boolean)
    if present == {int}:
        return pl.Series(name, levels, dtype=pl.Int64)
    if present and present <= {int, float}:
        return pl.Series(name, levels, dtype=pl.Float64)
    return pl.Series(name, [None if level is None else str(level) for level in levels], dtype=pl.String)

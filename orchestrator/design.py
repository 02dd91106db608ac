"""From a configuration to an ordered, seeded plan. Pure: no files, no clock, no network."""

import hashlib
import itertools
import math
import random
import traceback
from collections.abc import Iterable, Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from contract.errors import ConfigError, JouleBedError
from contract.trial_spec import TrialSpec
from contract.units import Identifier, Scalar, sha256_of
from orchestrator.config import Factor, OnSuspect, Order, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.device_option import device_specs
from orchestrator.run_table_columns import DATA_COLUMNS, DONE, RUN_ID
from orchestrator.store.base import Plan, PlannedRun

RESERVED_COLUMNS = frozenset({RUN_ID, DONE, *(column.name for column in DATA_COLUMNS)})
"""Columns of the exported run table that no factor may take."""

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


def expand(config: RunnerConfig, config_text: str = "") -> Plan:
    """The plan of an experiment: which runs, with which specs, in which order.

    Full factorial in design order, less the union of the exclusions, times the repetitions; run ids count treatments
    that are left, from 0. The order is drawn from the configuration's seed.

    Args:
        config: the declarations.
        config_text: source of the configuration, kept with the plan.

    Raises:
        ConfigError: the declarations make no plan; the message names the item and the next step.
    """
    _check_name(config.name)
    _check_seed(config.seed)
    model = _run_table_model(config)
    if not isinstance(model, RunTableModel):
        raise ConfigError(
            f"create_run_table_model() returned {type(model).__name__}. Return RunTableModel(factors=[...], ...)."
        )
    treatments = expand_treatments(model)
    trials = [_trial(config, treatment) for treatment in treatments]
    cells = [(i, j) for j in range(model.repetitions) for i in range(len(treatments))]
    ordered = _order(config, treatments, cells)
    runs = tuple(
        PlannedRun(
            position=position,
            run_id=f"run_{i}_repetition_{j}",
            treatment=dict(treatments[i]),
            repetition=j,
            spec=_spec(config, treatments[i], trials[i], f"run_{i}_repetition_{j}", j),
        )
        for position, (i, j) in enumerate(ordered)
    )
    factors = tuple(factor.name for factor in model.factors)
    return Plan(
        experiment=config.name,
        seed=config.seed,
        factors=factors,
        runs=runs,
        max_attempts=_positive("max_attempts", config.max_attempts),
        config_text=config_text,
        design=_describe(config, model, len(treatments)),
        sha256=plan_sha256(config, factors, runs),
    )


def plan_sha256(config: RunnerConfig, factors: Sequence[str], runs: Sequence[PlannedRun]) -> str:
    """Identity of a plan: two plans with equal hashes are the same runs in the same order."""
    identity = [config.name, config.seed, list(factors), [(run.run_id, run.spec.sha256()) for run in runs]]
    return sha256_of(identity)


def expand_treatments(model: RunTableModel) -> list[dict[str, Scalar]]:
    """Treatments in design order, the last factor fastest, less what is excluded.

    Raises:
        ConfigError: factors, exclusions or repetitions are wrong, or nothing is left.
    """
    if model.factors or not model.allows_no_factors:
        _check_factors(model.factors)
    _positive("repetitions", model.repetitions)
    names = [factor.name for factor in model.factors]
    levels = {factor.name: list(factor.levels) for factor in model.factors}
    excluded_cells = [*model.exclude_combinations, *(each.cells for each in model.unavailable)]
    for number, exclusion in enumerate(excluded_cells):
        if not isinstance(exclusion, Mapping):
            raise ConfigError(f"Exclusion {number} is {exclusion!r}. Give a dict: factor -> list of levels.")
        if not exclusion:
            raise ConfigError(f"Exclusion {number} names no factor and would exclude everything. Remove it.")
        for name, excluded in exclusion.items():
            if name not in levels:
                raise ConfigError(f"Exclusion {number} names the factor {name!r}. Choose from: {', '.join(names)}.")
            if isinstance(excluded, str) or not isinstance(excluded, Iterable):
                raise ConfigError(f"Exclusion {number}: give {name!r} a list of levels, such as [{excluded!r}].")
            for level in excluded:
                if all(_key(level) != _key(known) for known in levels[name]):
                    raise ConfigError(f"Exclusion {number}: {level!r} is no level of {name!r}. It has: {levels[name]}.")
    treatments = [
        dict(zip(names, combination, strict=True))
        for combination in itertools.product(*(levels[name] for name in names))
    ]
    exclusions = [
        {name: {_key(level) for level in excluded} for name, excluded in exclusion.items()}
        for exclusion in excluded_cells
    ]
    kept = [
        treatment
        for treatment in treatments
        if not any(
            all(_key(treatment[name]) in excluded for name, excluded in exclusion.items()) for exclusion in exclusions
        )
    ]
    if not kept and model.unavailable:
        reasons = "; ".join(dict.fromkeys(each.reason for each in model.unavailable))
        raise ConfigError(
            f"All {len(treatments)} treatments are excluded: {reasons}. Add levels that the machine runs."
        )
    if not kept:
        raise ConfigError(f"The exclusions exclude all {len(treatments)} treatments. Remove some of them.")
    return kept


def _key(level: Scalar) -> tuple[type, Scalar]:
    # 1, 1.0 and True are equal in Python, and different levels in a run table.
    return type(level), level


def _check_name(name: str) -> None:
    try:
        _IDENTIFIER.validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"The experiment's name is {name!r}. Give RunnerConfig a `name` of 1 to 128 letters, digits, '.', '_' or "
            "'-', starting with a letter or digit: it names the folder of the results."
        ) from error


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
        raise ConfigError(f"seed is {seed!r}. Set it to a whole number of at most 63 bits, such as 1.")


def _check_factors(factors: Sequence[Factor]) -> None:
    if not factors:
        raise ConfigError("The run table model has no factors. Give RunTableModel at least one Factor.")
    seen: set[str] = set()
    for factor in factors:
        if not isinstance(factor, Factor):
            raise ConfigError(f"{factor!r} is no factor. Write Factor(name, [level, ...]).")
        if not isinstance(factor.name, str) or not factor.name.strip():
            raise ConfigError(f"{factor.name!r} cannot be the name of a factor. Give it a text that is not empty.")
        if factor.name in RESERVED_COLUMNS:
            raise ConfigError(f"The factor {factor.name!r} has the name of a column of the run table. Rename it.")
        if factor.name in seen:
            raise ConfigError(f"Two factors are named {factor.name!r}. Rename one.")
        seen.add(factor.name)
        if isinstance(factor.levels, str) or not isinstance(factor.levels, Sequence) or len(factor.levels) == 0:
            raise ConfigError(f"The factor {factor.name!r} has no levels. Give it a list of at least one.")
        known: set[tuple[type, Scalar]] = set()
        for level in factor.levels:
            if not isinstance(level, str | int | float | bool) or (
                isinstance(level, float) and not math.isfinite(level)
            ):
                raise ConfigError(
                    f"The factor {factor.name!r} has the level {level!r}. Levels are text, finite numbers or booleans."
                )
            if _key(level) in known:
                raise ConfigError(f"The factor {factor.name!r} has the level {level!r} twice. Remove one.")
            known.add(_key(level))


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}. Set it to a whole number of at least 1.")
    return value


def _run_table_model(config: RunnerConfig) -> RunTableModel:
    try:
        return config.create_run_table_model()
    except JouleBedError:
        raise
    except Exception as error:
        raise ConfigError(f"create_run_table_model() raised {_told(error)}. Mend it.") from error


def _told(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"


def _trial(config: RunnerConfig, treatment: Treatment) -> Trial:
    try:
        # A copy: what a configuration does to its argument must not change the plan.
        trial = config.trial(dict(treatment))
    except JouleBedError as error:
        raise ConfigError(f"trial({dict(treatment)}): {error.message}") from error
    except ValidationError as error:
        raise ConfigError(f"trial({dict(treatment)}) makes no valid trial: {_readable(error)}") from error
    except Exception as error:
        raise ConfigError(f"trial({dict(treatment)}) raised {_told(error)}. Mend it.") from error
    if not isinstance(trial, Trial):
        raise ConfigError(f"trial({dict(treatment)}) returned {type(trial).__name__}. Return Trial(model=..., ...).")
    return trial


def _spec(config: RunnerConfig, treatment: Treatment, trial: Trial, run_id: str, repetition: int) -> TrialSpec:
    if trial.devices and config.devices:
        raise ConfigError(
            f"trial({dict(treatment)}) names devices itself: leave out --devices, and `devices` of the configuration."
        )
    try:
        return TrialSpec(
            experiment=config.name,
            run_id=run_id,
            repetition=repetition,
            treatment=dict(treatment),
            seed=derive_seed(config.seed, run_id),
            **{**vars(trial), "devices": list(trial.devices) or device_specs(config.devices)},
        )
    except ValidationError as error:
        raise ConfigError(f"trial({dict(treatment)}) makes no valid trial: {_readable(error)}") from error


def _readable(error: ValidationError) -> str:
    parts = (f"{'.'.join(map(str, item['loc'])) or 'trial'}: {item['msg']}" for item in error.errors())
    return "; ".join(parts) + ". Mend it in the configuration."


def derive_seed(seed: int, purpose: str) -> int:
    """A seed below 2^31 for one purpose, independent of all others of the same experiment."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "big") >> 1


def _order(
    config: RunnerConfig, treatments: Sequence[Treatment], cells: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Execution order of (treatment, repetition) cells, which come repetition by repetition."""
    try:
        order = Order(config.order)
    except ValueError as error:
        known = ", ".join(f"Order.{member.name}" for member in Order)
        raise ConfigError(f"order is {config.order!r}. Choose one of: {known}.") from error
    if order is Order.DECLARED:
        return list(cells)
    chance = random.Random(derive_seed(config.seed, "order"))
    if order is Order.RANDOM:
        shuffled = list(cells)
        chance.shuffle(shuffled)
        return shuffled
    blocks = [list(block) for _, block in itertools.groupby(cells, key=lambda cell: cell[1])]
    for block in blocks:
        chance.shuffle(block)
    if order is Order.GROUPED:
        blocks = [_grouped(config, treatments, block) for block in blocks]
    return [cell for block in blocks for cell in block]


def _grouped(
    config: RunnerConfig, treatments: Sequence[Treatment], block: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    if isinstance(config.group_by, str) or not config.group_by:
        raise ConfigError(
            f"order is Order.GROUPED, but group_by is {config.group_by!r}. "
            "Give it a list of factors whose runs stay together."
        )
    unknown = [name for name in config.group_by if name not in treatments[0]]
    if unknown:
        raise ConfigError(f"group_by names {unknown[0]!r}. Choose from: {', '.join(treatments[0])}.")
    # The block is shuffled already: groups in the order of their first run are in random order too.
    groups: dict[tuple[tuple[type, Scalar], ...], list[tuple[int, int]]] = {}
    for cell in block:
        groups.setdefault(tuple(_key(treatments[cell[0]][name]) for name in config.group_by), []).append(cell)
    return [cell for group in groups.values() for cell in group]


def _on_suspect(config: RunnerConfig) -> OnSuspect:
    try:
        return OnSuspect(config.on_suspect)
    except ValueError as error:
        known = ", ".join(f"OnSuspect.{member.name}" for member in OnSuspect)
        raise ConfigError(f"on_suspect is {config.on_suspect!r}. Choose one of: {known}.") from error


def _describe(config: RunnerConfig, model: RunTableModel, n_treatments: int) -> dict[str, object]:
    return {
        "factors": {factor.name: list(factor.levels) for factor in model.factors},
        "exclude_combinations": [
            {name: list(levels) for name, levels in exclusion.items()} for exclusion in model.exclude_combinations
        ],
        "unavailable": [
            {"cells": {name: list(levels) for name, levels in each.cells.items()}, "reason": each.reason}
            for each in model.unavailable
        ],
        "n_treatments": n_treatments,
        "n_excluded": math.prod(len(factor.levels) for factor in model.factors) - n_treatments,
        "repetitions": model.repetitions,
        "order": str(Order(config.order)),
        "group_by": list(config.group_by),
        "cooldown": vars(config.cooldown),
        "on_suspect": str(_on_suspect(config)),
        "max_attempts": config.max_attempts,
    }

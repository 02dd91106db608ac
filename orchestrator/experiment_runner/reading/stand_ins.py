"""Modules that stand in for Experiment Runner's own, so that its configurations can be imported without it.

The design's classes keep what they are told; events are subscribed to nothing; everything else, plugins above all,
takes any attribute, call or decoration, and does nothing.
"""

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

PACKAGES = ("ConfigValidator", "EventManager", "ExperimentOrchestrator", "ExtendedTyping", "Plugins", "ProgressManager")
"""Experiment Runner's top-level packages."""


class BaseError(Exception):
    """Root of Experiment Runner's own errors."""


class FactorModel:
    """A factor: its name, and its levels, which may be any objects that have a text."""

    def __init__(self, factor_name: str, treatments: Sequence[Any]) -> None:
        if len(set(treatments)) != len(treatments):
            raise BaseError(f"The levels of the factor {factor_name!r} are not unique: {list(treatments)}.")
        self.factor_name = factor_name
        self.treatments = treatments

    def get_factor_name(self) -> str:
        """Name, as older versions ask for it."""
        return self.factor_name

    def get_treatments(self) -> Sequence[Any]:
        """Levels, as older versions ask for them."""
        return self.treatments


class RunTableModel:
    """The design; parameters in the order of the current version, with the name that exclusions had before."""

    def __init__(
        self,
        factors: Sequence[FactorModel],
        exclude_combinations: Sequence[dict[FactorModel, Sequence[Any]]] | None = None,
        repetitions: int = 1,
        data_columns: Sequence[str] | None = None,
        shuffle: bool = False,
        *,
        exclude_variations: Sequence[dict[FactorModel, Sequence[Any]]] | None = None,
    ) -> None:
        names = [factor.factor_name for factor in factors]
        for name in names:
            if names.count(name) > 1:
                raise BaseError(f"Two factors are named {name!r}.")
        columns = list(data_columns or ())
        for name in columns:
            if columns.count(name) > 1:
                raise BaseError(f"Two data columns are named {name!r}.")
        if repetitions < 1:
            raise BaseError(f"repetitions is {repetitions!r}; it must be at least 1.")
        self.factors = list(factors)
        self.exclusions = list(exclude_combinations or exclude_variations or ())
        for exclusion in self.exclusions:
            for factor in exclusion:
                if factor not in self.factors:
                    raise BaseError(f"An exclusion names {_named(factor)!r}, which is none of this table's factors.")
        self.repetitions = repetitions
        self.data_columns = columns
        self.shuffle = shuffle

    def get_factors(self) -> list[FactorModel]:
        """The factors."""
        return self.factors

    def get_data_columns(self) -> list[str]:
        """The data columns: the list itself, to which plugins append."""
        return self.data_columns

    def rows(self) -> list[tuple[int, ...]]:
        """The full factorial, as indices of levels, the last factor fastest."""
        return list(itertools.product(*(range(len(factor.treatments)) for factor in self.factors)))

    def hits(self) -> list[int]:
        """Row numbers as the exclusions mark them: one that several combinations meet is there several times."""
        rows = self.rows()
        marked: list[int] = []
        for exclusion in self.exclusions:
            places = [self.factors.index(factor) for factor in exclusion]
            levels = [self.factors[place].treatments for place in places]
            for combination in itertools.product(*exclusion.values()):
                marked += [
                    number
                    for number, row in enumerate(rows)
                    if all(
                        of_factor[row[place]] == level
                        for of_factor, place, level in zip(levels, places, combination, strict=True)
                    )
                ]
        return marked


def _named(factor: object) -> object:
    return factor.factor_name if isinstance(factor, FactorModel) else factor


class RunnerEvents(Enum):
    """When Experiment Runner calls a hook."""

    BEFORE_EXPERIMENT = auto()
    BEFORE_RUN = auto()
    START_RUN = auto()
    START_MEASUREMENT = auto()
    INTERACT = auto()
    CONTINUE = auto()
    STOP_MEASUREMENT = auto()
    STOP_RUN = auto()
    POPULATE_RUN_DATA = auto()
    AFTER_EXPERIMENT = auto()


class OperationType(Enum):
    """Whether runs follow by themselves."""

    AUTO = auto()
    SEMI = auto()


class RunProgress(Enum):
    """The two marks of a row."""

    TODO = auto()
    DONE = auto()


@runtime_checkable
class SupportsStr(Protocol):
    """Anything that has a text."""

    def __str__(self) -> str:
        """The text."""
        ...


class Nothing:
    """Takes everything and does nothing: any attribute, call, index, base class or decoration.

    Attributes:
        told: what it stands for, for messages.
    """

    def __init__(self, told: str) -> None:
        self.told = told

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Nothing(f"{self.told}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As a decorator it leaves what it decorates as it is."""
        if len(args) == 1 and not kwargs and (isinstance(args[0], type) or type(args[0]) is type(_no_event)):
            return args[0]
        return Nothing(f"{self.told}()")

    def __getitem__(self, key: Any) -> Any:
        return Nothing(f"{self.told}[...]")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)

    def __repr__(self) -> str:
        return f"<{self.told}>"


def _no_event(*args: Any, **kwargs: Any) -> None:
    return None


class _Column:
    def __init__(self, name: str) -> None:
        self.name = f"codecarbon__{name.lower()}"


class _Columns:
    def __getattr__(self, name: str) -> _Column:
        return _Column(name)


def _add_data_columns(columns: Sequence[_Column]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Experiment Runner's CodeCarbon plugin: a decorator that adds columns to the table of the design."""

    def decorator(create: Callable[..., Any]) -> Callable[..., Any]:
        def create_with_columns(config: Any) -> Any:
            model = create(config)
            model.get_data_columns().extend(column.name for column in columns)
            return model

        return create_with_columns

    return decorator


def _emission_tracker(*args: Any, **kwargs: Any) -> Callable[[type], type]:
    columns = kwargs.get("data_columns", [_Column("EMISSIONS")])

    def decorator(cls: Any) -> Any:
        cls.create_run_table_model = _add_data_columns(columns)(cls.create_run_table_model)
        return cls

    return decorator


class _Subscriptions:
    subscribe_to_single_event = staticmethod(_no_event)
    subscribe_to_multiple_events = staticmethod(_no_event)
    raise_event = staticmethod(_no_event)
    get_event_callback = staticmethod(_no_event)


class _Output:
    """Swallows what a configuration tells on the console."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _no_event


class _RunnerContext:
    """Only ever named in annotations: no hook is called."""


class _Metadata:
    """Likewise."""


class _RunnerConfig:
    """What a configuration may derive from."""


KNOWN: dict[str, dict[str, Any]] = {
    "ConfigValidator.Config.Models.FactorModel": {"FactorModel": FactorModel},
    "ConfigValidator.Config.Models.Metadata": {"Metadata": _Metadata},
    "ConfigValidator.Config.Models.OperationType": {"OperationType": OperationType},
    "ConfigValidator.Config.Models.RunTableModel": {"RunTableModel": RunTableModel},
    "ConfigValidator.Config.Models.RunnerContext": {"RunnerContext": _RunnerContext},
    "ConfigValidator.Config.RunnerConfig": {"RunnerConfig": _RunnerConfig},
    "ConfigValidator.CustomErrors.BaseError": {"BaseError": BaseError},
    "EventManager.EventSubscriptionController": {"EventSubscriptionController": _Subscriptions},
    "EventManager.Models.RunnerEvents": {"RunnerEvents": RunnerEvents},
    "ExtendedTyping.Typing": {"SupportsStr": SupportsStr},
    "Plugins.CodecarbonWrapper": {
        "DataColumns": _Columns(),
        "add_data_columns": _add_data_columns,
        "emission_tracker": _emission_tracker,
    },
    "ProgressManager.Output.OutputProcedure": {"OutputProcedure": _Output()},
    "ProgressManager.RunTable.Models.RunProgress": {"RunProgress": RunProgress},
}
"""Module -> what a configuration may import from it; of all other modules, anything may be imported."""


class _StandInModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        inner = f"{self.__name__}.{name}"
        if any(known == inner or known.startswith(f"{inner}.") for known in KNOWN):
            return importlib.import_module(inner)  # `from Plugins import CodecarbonWrapper`
        return Nothing(inner)


class _StandInLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _StandInModule(spec.name)
        module.__path__ = []  # every module may have modules inside
        vars(module).update(KNOWN.get(spec.name, {}))
        return module

    def exec_module(self, module: ModuleType) -> None:
        return None


class ExperimentRunnerFinder(MetaPathFinder):
    """Finds Experiment Runner's modules, before any that may be installed."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        return ModuleSpec(fullname, _StandInLoader(), is_package=True)


class MissingModuleFinder(MetaPathFinder):
    """Finds what nobody else found, a profiler's package for instance: hooks need it, the design does not.

    Attributes:
        missing: top-level names that were stood in for.
    """

    def __init__(self, importers: Callable[[], bool]) -> None:
        self.missing: set[str] = set()
        self._is_configs = importers

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        top = fullname.partition(".")[0]
        if top in sys.stdlib_module_names or not (top in self.missing or self._is_configs()):
            return None  # a package's own probing for what it could use must fail as ever
        if "." in fullname and top not in self.missing:
            return None
        self.missing.add(top)
        return ModuleSpec(fullname, _StandInLoader(), is_package=True)

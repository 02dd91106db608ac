"""How the levels of a study become trials: a TOML file, so that a study needs no code to move here.

```toml
[experiment]                      # all optional
seed = 42

[lookup.model]                    # a table of texts: {model} below is looked up by its key
key = "{generation}-{model_size}"
"3.2-1B" = "meta-llama/Llama-3.2-1B-Instruct"

[trial.model]                     # [trial] is a contract.trial_spec.TrialSpec without what belongs to one run
name = "llama-{generation}-{model_size}"
source = "hf:{model}"
```

`{factor}` stands for the level in any text. A text that is nothing but `{factor}` becomes the level itself, a number
where it is one. `{{` and `}}` are braces.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contract.errors import ConfigError
from contract.units import Scalar
from orchestrator.config import OnSuspect, Order, Treatment, Trial
from orchestrator.run_table_columns import DATA_COLUMNS

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_KEY = "key"
_TRIAL: TypeAdapter[Trial] = TypeAdapter(Trial)
_TRIAL_FIELDS = [field.name for field in fields(Trial)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CooldownSettings(_Strict):
    """See `orchestrator.config.Cooldown`; what is not given keeps its default."""

    floor_s: Annotated[float, Field(ge=0)] | None = None
    max_wait_s: Annotated[float, Field(ge=0)] | None = None
    delta_c: float | None = None
    slope_c_per_min: float | None = None


class ExperimentSettings(_Strict):
    """What Experiment Runner's configuration has no word for; see `orchestrator.config.RunnerConfig`.

    Attributes:
        name: in place of the configuration's.
        order: in place of what its `shuffle` says.
    """

    name: str | None = None
    results_output_path: str = "results"
    artifacts: str = ""
    seed: int = 0
    order: Order | None = None
    group_by: list[str] = Field(default_factory=list)
    cooldown: CooldownSettings = CooldownSettings()
    on_suspect: OnSuspect = OnSuspect.KEEP
    max_attempts: int = 3
    devices: list[str | int] = Field(default_factory=list)


class Template(_Strict):
    """A whole template.

    Attributes:
        experiment: settings of the campaign.
        lookup: name -> key and texts.
        trial: what each treatment becomes: fields of `orchestrator.config.Trial`, with places for levels.
        data_columns: column of the study's run table -> column of ours that fills it.
    """

    experiment: ExperimentSettings = ExperimentSettings()
    lookup: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    trial: dict[str, Any]
    data_columns: dict[str, str] = Field(default_factory=dict)

    def trial_of(self, treatment: Treatment) -> Trial:
        """The trial of a treatment.

        Raises:
            ConfigError: a place names no factor, or a level is in no lookup.
            pydantic.ValidationError: the trial's own fields do not fit.
        """
        values = dict(treatment)
        for name, table in self.lookup.items():
            values[name] = self._look_up(name, table, treatment)
        return _TRIAL.validate_python(_fill(self.trial, values))

    def source_of(self, data_column: str) -> str | None:
        """The column of ours that fills a column of the study's run table; None: none does."""
        own = {column.name for column in DATA_COLUMNS}
        return self.data_columns.get(data_column, data_column if data_column in own else None)

    def _look_up(self, name: str, table: Mapping[str, Scalar], treatment: Treatment) -> Scalar:
        key = str(_fill(table[_KEY], treatment))
        if key not in table or key == _KEY:
            known = ", ".join(repr(each) for each in table if each != _KEY)
            raise ConfigError(f"[lookup.{name}] of the template has no {key!r}. Add it; it has: {known or 'nothing'}.")
        return table[key]


def read_template(path: Path) -> tuple[Template, str]:
    """Read a template.

    Returns:
        The template, and its text.

    Raises:
        ConfigError: the file is missing, is not TOML, or has unknown names; the message names file and line or key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no template {path}. Write one as runnerconfig/experiment_runner.toml: how levels become trials."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The template {path} cannot be read: {error}.") from error
    return parse_template(text, str(path)), text


def parse_template(text: str, where: str) -> Template:
    """The template that a text holds.

    Args:
        text: TOML.
        where: for messages.

    Raises:
        ConfigError: see `read_template`.
    """
    try:
        template = Template.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}. Mend that line.") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        raise ConfigError(
            f"{where}: {told}. A template has the tables [experiment], [lookup.NAME], [trial.*] and [data_columns]."
        ) from error
    for name, table in template.lookup.items():
        if not isinstance(table.get(_KEY), str):
            raise ConfigError(f'{where}: [lookup.{name}] has no `key`. Give it a text such as key = "{{factor}}".')
    unknown = [name for name in template.trial if name not in _TRIAL_FIELDS]
    if unknown:
        raise ConfigError(f"{where}: [trial] has {unknown[0]!r}. Choose from: {', '.join(_TRIAL_FIELDS)}.")
    own = {column.name for column in DATA_COLUMNS}
    for theirs, ours in template.data_columns.items():
        if ours not in own:
            raise ConfigError(
                f"{where}: [data_columns] fills {theirs!r} from {ours!r}, which is no column of ours. Choose from: "
                f"{', '.join(column.name for column in DATA_COLUMNS)}."
            )
    return template


def _fill(value: Any, levels: Mapping[str, Scalar]) -> Any:
    if isinstance(value, str):
        whole = _PLACE.fullmatch(value)
        if whole and whole.group(1):
            return _level(whole.group(1), levels)
        return _PLACE.sub(lambda match: str(_level(match[1], levels)) if match[1] else match[0][0], value)
    if isinstance(value, Mapping):
        return {name: _fill(each, levels) for name, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, levels) for each in value]
    return value


def _level(name: str, levels: Mapping[str, Scalar]) -> Scalar:
    if name not in levels:
        raise ConfigError(f"The template has {{{name}}}, which is no factor. Choose from: {', '.join(levels)}.")
    return levels[name]

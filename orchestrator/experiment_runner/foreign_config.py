"""A study of Experiment Runner as a configuration of ours: its design, with a template for its trials."""

import re
from collections.abc import Sequence

from contract.units import Scalar
from orchestrator.config import Cooldown, Factor, Order, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.experiment_runner.design_reader import ReadDesign
from orchestrator.experiment_runner.template import Template

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class ForeignConfig(RunnerConfig):
    """What `design.expand` takes, made of what was read.

    Args:
        design: of Experiment Runner's configuration.
        template: of its trials.
        rows: treatments that the plan has, as numbers of rows; None: all that no exclusion names.

    Attributes:
        read: the design as it was read.
        template: of its trials.
    """

    def __init__(self, design: ReadDesign, template: Template, rows: Sequence[int] | None = None) -> None:
        settings = template.experiment
        self.read = design
        self.template = template
        self.rows = _by_union(design) if rows is None else list(rows)
        self.name = settings.name or _name_of(design.name)
        self.results_output_path = settings.results_output_path
        self.artifacts = settings.artifacts
        self.seed = settings.seed
        self.order = settings.order or (Order.RANDOM if design.shuffle else Order.DECLARED)
        self.group_by = settings.group_by
        given = settings.cooldown.model_dump(exclude_none=True)
        self.cooldown = Cooldown(**{"floor_s": design.pause_ms / 1000, **given})
        self.on_suspect = settings.on_suspect
        self.max_attempts = settings.max_attempts
        self.devices = settings.devices

    def create_run_table_model(self) -> RunTableModel:
        """The study's factors and repetitions; its exclusions, one treatment each."""
        kept = set(self.rows)
        # One exclusion for each line of the last factor: few, also where much is excluded.
        lines: dict[tuple[int, ...], list[Scalar]] = {}
        for number, row in enumerate(self.read.rows):
            if number not in kept:
                lines.setdefault(row[:-1], []).append(self.read.factors[-1].levels[row[-1]].value)
        excluded = [
            {
                **{
                    factor.name: [factor.levels[level].value]
                    for factor, level in zip(self.read.factors, line, strict=False)
                },
                self.read.factors[-1].name: levels,
            }
            for line, levels in lines.items()
        ]
        return RunTableModel(
            factors=[Factor(factor.name, [level.value for level in factor.levels]) for factor in self.read.factors],
            exclude_combinations=excluded,
            repetitions=self.read.repetitions,
            allows_no_factors=True,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """The template, with the treatment's levels in its places."""
        return self.template.trial_of(treatment)


def order_notes(design: ReadDesign, config: ForeignConfig) -> list[str]:
    """What differs from Experiment Runner in a campaign that begins here: rows that it would lose, and the order."""
    notes = [_lost(design)] if design.kept_by_experiment_runner != _by_union(design) else []
    if design.shuffle and config.order is Order.RANDOM:
        notes.append(
            f"Experiment Runner's shuffle has no seed; this order is drawn from seed {config.seed}, and repeats."
        )
    return notes


def design_notes(design: ReadDesign, config: ForeignConfig) -> list[str]:
    """What else a person should know about a study before it runs here, in words."""
    notes = []
    if config.name != design.name:
        notes.append(f"The experiment is named {config.name!r} here; the configuration says {design.name!r}.")
    if design.is_semi:
        notes.append("operation_type is SEMI: a person starts every run there. Here runs follow by themselves.")
    texts = [factor.name for factor in design.factors if any(level.is_text_of for level in factor.levels)]
    if texts:
        notes.append(f"Levels of {', '.join(texts)} are objects; their text is the level, as in the run table.")
    renumbered = [
        f"{level.value!r} of {factor.name}"
        for factor in design.factors
        for level in factor.levels
        if isinstance(level.value, str) and level.value.isnumeric() and _as_they_read(level.value) != level.value
    ]
    if renumbered:
        notes.append(
            f"Experiment Runner reads {', '.join(renumbered)} back as another number, and refuses to restart; here it "
            "stays a text."
        )
    if not design.keeps_model:
        notes.append("create_run_table_model() does not set self.run_table_model: Experiment Runner cannot restart it.")
    if design.stood_in:
        notes.append(f"Not installed here, and not needed for the design: {', '.join(design.stood_in)}.")
    unfilled = [name for name in design.data_columns if config.template.source_of(name) is None]
    if unfilled:
        notes.append(
            f"Data columns that the template does not fill stay empty in the export: {', '.join(unfilled)}. Name "
            "their sources in its table [data_columns]."
        )
    return notes


def lost_treatments(design: ReadDesign) -> list[dict[str, Scalar]]:
    """Treatments that no exclusion names and that Experiment Runner would lose; none where it would not even begin."""
    if design.kept_by_experiment_runner is None:
        return []
    kept = set(design.kept_by_experiment_runner)
    return [design.treatment(row) for row in _by_union(design) if row not in kept]


def _by_union(design: ReadDesign) -> list[int]:
    excluded = set(design.excluded)
    return [row for row in range(len(design.rows)) if row not in excluded]


def _lost(design: ReadDesign) -> str:
    union = _by_union(design)
    if design.kept_by_experiment_runner is None:
        return (
            "Its exclusions overlap: Experiment Runner itself would stop with an IndexError. Here all "
            f"{len(union)} treatments that no exclusion names are run."
        )
    lost = lost_treatments(design)
    told = [", ".join(f"{name}={level}" for name, level in treatment.items()) for treatment in lost[:5]]
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    back = len(set(design.kept_by_experiment_runner) - set(union))
    wrong = f", and would run {back} that are excluded" if back else ""
    return (
        f"Its exclusions overlap: Experiment Runner itself would lose {len(lost)} of {len(union)} treatments "
        f"({'; '.join(told)}{more}){wrong}. They are in this plan, so its run ids differ from there."
    )


def _as_they_read(text: str) -> str | None:
    try:
        return str(int(text))
    except ValueError:  # a digit such as ²
        return None


def _name_of(name: str) -> str:
    """A folder's name that the rest of JouleBed takes, too."""
    return _NO_NAME.sub("_", name).lstrip("._-")[:128]

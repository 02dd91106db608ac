"""How to cite the software and the data, and how the report came about."""

import hashlib
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from analysis.experiment import Experiment
from analysis.report.document import Code, Section, Table, Text

_PACKAGES = ("joulebed", "polars", "numpy", "scipy", "statsmodels", "matplotlib", "plotly", "jinja2")


def data_sha256(experiment: Experiment) -> str:
    """Hash over the runs: of `Experiment.runs` as CSV (polars' `write_csv`) in execution order.

    Two readers of the same results get the same hash; any changed figure, level or state changes it.
    """
    return hashlib.sha256(experiment.runs.write_csv().encode()).hexdigest()


def citation_section(experiment: Experiment, now: datetime) -> Section:
    """BibTeX for software and data.

    Args:
        experiment: that was read.
        now: of the report, aware.
    """
    digest = data_sha256(experiment)
    key = "".join(letter if letter.isalnum() else "_" for letter in experiment.name)
    bibtex = (
        "@software{joulebed,\n"
        "  title   = {{JouleBed}: energy of {LLM} inference on a remote testbed},\n"
        "  author  = {{The JouleBed developers}},\n"
        f"  version = {{{_version('joulebed')}}},\n"
        f"  year    = {{{now.year}}}\n"
        "}\n\n"
        f"@misc{{{key}_data,\n"
        f"  title   = {{Measurements of the experiment {_escaped(experiment.name)}}},\n"
        "  author  = {[who measured]},\n"
        f"  year    = {{{_year(experiment, now)}}},\n"
        f"  note    = {{SHA-256 of the runs: {digest}}}\n"
        "}"
    )
    return Section(
        "cite",
        "How to cite",
        (
            Text(
                "The hash is of the runs as CSV in execution order; `analysis.report.citation_section.data_sha256` "
                "computes it again. Put in who measured."
            ),
            Code(bibtex),
        ),
    )


def making_section(command: str, seeds: Sequence[tuple[str, str]], now: datetime) -> Section:
    """How this report was made: command, versions, seeds.

    Args:
        command: as it was typed.
        seeds: (what for, seed).
        now: of the report, aware.
    """
    rows = [("Python", platform.python_version()), *((name, _version(name)) for name in _PACKAGES)]
    rows += [(f"seed: {name}", seed) for name, seed in seeds]
    return Section(
        "made",
        "How this report was made",
        (
            Code(command),
            Table(
                f"Versions and seeds; made {now:%Y-%m-%d %H:%M} UTC", ("what", "which"), tuple(rows), n_label_columns=2
            ),
        ),
    )


def _year(experiment: Experiment, now: datetime) -> int:
    created = str(experiment.facts.get("created_at", ""))[:4]
    return int(created) if created.isdigit() else now.year


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)

"""The report: sections in the order in which they are read."""

from datetime import datetime

from analysis.report.ablation_section import ablation_section
from analysis.report.answer import answer
from analysis.report.caution import cautions
from analysis.report.citation_section import citation_section, making_section
from analysis.report.design_section import design_section
from analysis.report.document import Caution, Document
from analysis.report.environment_section import environment_section
from analysis.report.figure_section import figure_section
from analysis.report.inference_section import inference_section
from analysis.report.phase_table import phase_table
from analysis.report.published_section import published_section
from analysis.report.quantity import many
from analysis.report.result_section import excluded_section, result_section
from analysis.report.run_table_section import run_table_section
from analysis.report.source import Source
from analysis.report.testbed_section import testbed_section


def make_report(source: Source, *, command: str, now: datetime, seed: int) -> Document:
    """Put the report together.

    Args:
        source: what was read.
        command: as it was typed.
        now: aware, for the date.
        seed: of the bootstrap.
    """
    experiment, summary = source.experiment, source.summary
    tests = inference_section(summary, seed, is_audited=source.audit is not None)
    testbeds = testbed_section(summary, seed)
    ablation = ablation_section(summary, seed)
    sections = [
        result_section(summary, phase_table(summary)),
        *([ablation] if ablation is not None else []),
        tests.section,
        *([testbeds.section] if testbeds is not None else []),
        figure_section(summary, source.power),
        design_section(experiment),
        environment_section(experiment, summary, source.results),
        excluded_section(summary),
    ]
    wrong: tuple[Caution, ...] = ()
    if source.audit is not None:
        sections.append(run_table_section(source.audit))
    if source.published is not None:
        published = published_section(source.published)
        sections.append(published.section)
        wrong = published.cautions
    seeds = [("bootstrap", str(seed))]
    if experiment.seed is not None:
        seeds.append(("plan", str(experiment.seed)))
    sections += [citation_section(experiment, now), making_section(command, seeds, now)]
    word = ", energies are estimates" if summary.is_estimate else ""
    return Document(
        title=f"{experiment.name}: energy of LLM inference",
        subtitle=f"{many(summary.n_counted, 'run')} of {summary.n_planned:,}, "
        f"{many(len(summary.treatments), 'treatment')}{word}; report of {now:%Y-%m-%d}",
        answer=answer(summary, tests.sentence),
        cautions=cautions(
            summary, (*wrong, *source.cautions, *tests.cautions, *(testbeds.cautions if testbeds is not None else ()))
        ),
        sections=tuple(sections),
    )

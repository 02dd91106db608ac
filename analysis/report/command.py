"""What `python -m analysis report` does: read, write, and say where it is."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from analysis.figures import save_figure
from analysis.report.document import Document
from analysis.report.html import to_html
from analysis.report.markdown import figure_folder, to_markdown
from analysis.report.report import make_report
from analysis.report.source import read_source
from contract.errors import UsageError


def report_command(
    path: Path,
    *,
    out: Path | None,
    md: Path | None,
    figures: Path | None,
    include_suspect: bool,
    seed: int,
) -> None:
    """Write the report in the forms that were asked for; the paths go to the output.

    Args:
        path: results/EXPERIMENT, or a folder of Experiment Runner.
        out: HTML file; None without `md` and `figures`: report.html.
        md: Markdown file; its figures go to a folder beside it.
        figures: folder for PDF, SVG and PNG of each figure.
        include_suspect: also count results that are doubted.
        seed: of the bootstrap.

    Raises:
        UsageError: there is nothing to report, or it cannot be written.
    """
    if out is None and md is None and figures is None:
        out = Path("report.html")
    for target in (out, md):
        if target is not None and target.is_dir():
            raise UsageError(f"{target} is a folder. Give a file, such as {target}/report.html.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # On the error stream, so that a pipe gets the paths alone.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading runs", total=None)
        source = read_source(
            path, include_suspect=include_suspect, on_run=lambda done, of: bar.update(task, completed=done, total=of)
        )
        bar.update(task, description="Writing", total=None)
        command = _command(path, out, md, figures, include_suspect=include_suspect, seed=seed)
        document = make_report(source, command=command, now=datetime.now(UTC), seed=seed)
        written = _write(document, out, md, figures)
    for file in written:
        print(file)
    grave = sum(caution.level == "wrong" for caution in document.cautions)
    if grave:
        print(f"{grave} published figures or columns are wrong: see the top of the report.", file=sys.stderr)


def _command(
    path: Path, out: Path | None, md: Path | None, figures: Path | None, *, include_suspect: bool, seed: int
) -> str:
    """What to type to get the same report again."""
    words = ["python", "-m", "analysis", "report", str(path)]
    for option, value in (("--out", out), ("--md", md), ("--figures", figures)):
        words += [option, str(value)] if value is not None else []
    words += ["--include-suspect"] if include_suspect else []
    return shlex.join([*words, "--seed", str(seed)])


def _write(document: Document, out: Path | None, md: Path | None, figures: Path | None) -> list[Path]:
    written = []
    if out is not None:
        written.append(_write_text(out, to_html(document)))
    if md is not None:
        folder = figure_folder(md)
        written.append(_write_text(md, to_markdown(document, folder.name)))
        for picture in document.pictures():
            save_figure(picture.figure, folder / picture.name)
        written.append(folder)
    if figures is not None:
        for picture in document.pictures():
            save_figure(picture.figure, figures / picture.name)
        written.append(figures)
    return written


def _write_text(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}. Give another place with --out or --md.") from error
    return path

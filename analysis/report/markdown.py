"""A report as Markdown, with its figures as files in a folder beside it."""

from collections.abc import Iterator
from pathlib import Path

from analysis.report.document import Block, Bullets, Code, Document, Picture, Plot, Table, Text
from analysis.report.html import WORDS


def to_markdown(document: Document, figures: str) -> str:
    """The report; interactive figures are left out, the pictures that stand for them are there.

    Args:
        document: what to write.
        figures: folder of the figures, relative to the file, with `NAME.svg` in it.
    """
    lines = [f"# {document.title}", "", document.subtitle, "", document.answer, ""]
    lines += [f"- **{WORDS[each.level]}** {_line(each.text)}" for each in document.cautions]
    for section in document.sections:
        lines += ["", f"## {section.title}", ""]
        for block in section.blocks:
            lines += [*_block(block, figures), ""]
    return "\n".join(lines).rstrip() + "\n"


def figure_folder(path: Path) -> Path:
    """Where the figures of a Markdown file go."""
    return path.with_name(f"{path.stem}_figures")


def _block(block: Block, figures: str) -> Iterator[str]:
    if isinstance(block, Text):
        yield block.text
    elif isinstance(block, Bullets):
        yield from (f"- {_line(item)}" for item in block.items)
    elif isinstance(block, Code):
        yield from ("```", block.text.rstrip("\n"), "```")
    elif isinstance(block, Picture):
        yield f"![{_line(block.caption)}]({figures}/{block.name}.svg)"
        yield ""
        yield f"*{_line(block.caption)}*"
    elif isinstance(block, Table):
        yield f"**{_line(block.caption)}**"
        yield ""
        yield _row(block.header)
        yield _row(["---" if i < block.n_label_columns else "---:" for i in range(len(block.header))])
        yield from (_row(row) for row in block.rows)
        if block.note:
            yield ""
            yield block.note
    else:
        assert isinstance(block, Plot)
        yield f"*{_line(block.caption)} To look into: in the HTML report. Here: figure `{block.stands_for}`.*"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _line(text: str) -> str:
    return " ".join(text.split())

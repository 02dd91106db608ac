"""What a report consists of, whatever it is written as."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Level = Literal["wrong", "doubt", "note"]
"""How grave a warning is: a figure is wrong; a conclusion may be; good to know."""


@dataclass(frozen=True)
class Caution:
    """Something a reader must know before the figures.

    Attributes:
        level: how grave.
        text: in words.
    """

    level: Level
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """What is to be copied as it is: a command, a BibTeX entry."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        caption: what it shows, with units.
        header: one per column.
        rows: each as long as the header.
        note: below it; empty for none.
        n_label_columns: leading columns that are words; the others are aligned as numbers.
        marked: indices of rows that stand out, because a published figure in them is wrong.
        fold: whether it starts folded, for long tables.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    n_label_columns: int = 1
    marked: frozenset[int] = frozenset()
    fold: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure for print.

    Attributes:
        name: of its files; unique in the document.
        caption: what it shows, for those who see it and those who do not.
        figure: matplotlib's.
    """

    name: str
    caption: str
    figure: "Figure" = field(repr=False)


@dataclass(frozen=True)
class Plot:
    """A figure to look into.

    Attributes:
        name: unique in the document.
        caption: what it shows.
        figure: plotly's.
        stands_for: name of the picture that shows the same on paper.
    """

    name: str
    caption: str
    figure: Any = field(repr=False)
    stands_for: str


Block = Text | Bullets | Code | Table | Picture | Plot


@dataclass(frozen=True)
class Section:
    """A heading with what is below it."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: of the page.
        subtitle: counts and date, in a line.
        answer: what was found, in one paragraph.
        cautions: the gravest first.
        sections: in order.
    """

    title: str
    subtitle: str
    answer: str
    cautions: tuple[Caution, ...]
    sections: tuple[Section, ...]

    def pictures(self) -> Iterator[Picture]:
        """All figures for print, in order."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Picture):
                    yield block

"""What a part of the suite found, for people and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Report:
    """Figures and problems of one part.

    Attributes:
        name: of the part.
        figures: what was counted and measured, in the order of the report.
        problems: what must not be, in words; empty when the part passed.
        log_tail: of the nodes, where there is a problem.
    """

    name: str
    figures: dict[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    log_tail: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether nothing was lost."""
        return not self.problems

    def text(self) -> str:
        """For a person."""
        lines = [f"{self.name}: {'fine' if self.is_fine else 'NOT FINE'}"]
        lines += [f"  {name}: {_told(value)}" for name, value in self.figures.items()]
        lines += [f"  PROBLEM {problem}" for problem in self.problems[:40]]
        return "\n".join([*lines, self.log_tail] if self.problems else lines)


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number}" for key, number in value.items()) or "none"
    return f"{value:.1f}" if isinstance(value, float) else str(value)

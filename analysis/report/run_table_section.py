"""Run tables held against the logs: published figures, and what they should have been."""

from collections.abc import Sequence

from analysis.audit.audit import Audit
from analysis.audit.hypothesis import CAUSES
from analysis.audit.table_check import CellCheck, ColumnCheck
from analysis.report.document import Bullets, Section, Table, Text
from analysis.report.quantity import number

_SHOWN = 12


def run_table_section(audit: Audit) -> Section:
    """Run tables held against the logs: each wrong column with published and corrected figures side by side.

    Args:
        audit: of the folder.
    """
    blocks: list[Table | Text | Bullets] = []
    wrong = [column for column in audit.columns if any(cell.verdict == "wrong" for cell in column.cells)]
    if audit.columns:
        blocks.append(_overview(audit.columns))
    if not wrong:
        blocks.append(Text("No figure of a run table disagrees with the logs that are here."))
    for column in wrong:
        blocks.append(_column(column))
    if audit.findings:
        blocks.append(Text("All findings of the audit:"))
        blocks.append(Bullets(audit.findings))
    return Section("audit", "Published and corrected: run tables", tuple(blocks))


def _overview(columns: Sequence[ColumnCheck]) -> Table:
    rows = []
    marked = set()
    for i, column in enumerate(columns):
        counts = [sum(cell.verdict == verdict for cell in column.cells) for verdict in ("right", "wrong", "unchecked")]
        causes = dict.fromkeys(CAUSES[cell.cause] for cell in column.cells if cell.verdict == "wrong")
        if counts[1]:
            marked.add(i)
        rows.append((column.table.name, column.column, "; ".join(causes) or "–", *(str(count) for count in counts)))
    return Table(
        "Energy and time columns of the run tables, held against the logs",
        ("table", "column", "what is wrong", "right", "wrong", "no log to check"),
        tuple(rows),
        n_label_columns=3,
        marked=frozenset(marked),
    )


def _column(column: ColumnCheck) -> Table:
    """A few rows of each cause, so that a rare one is seen too."""
    by_cause: dict[str, list[CellCheck]] = {}
    for cell in column.cells:
        if cell.verdict == "wrong":
            by_cause.setdefault(cell.cause, []).append(cell)
    each = max(3, _SHOWN // len(by_cause))
    shown = [cell for cells in by_cause.values() for cell in cells[:each]]
    total = sum(len(cells) for cells in by_cause.values())
    unit = "J" if column.quantity != "duration" else "s"
    rows = tuple(
        (
            cell.run_id,
            CAUSES[cell.cause] + (f" ({cell.note})" if cell.note else ""),
            cell.text,
            number(cell.truth, 7),
            number(cell.factor, 4),
        )
        for cell in shown
    )
    more = f"{total - len(shown)} more are in `python -m analysis audit --json`." if total > len(shown) else ""
    return Table(
        f"{column.table.name}, {column.column}: {total} wrong figures",
        ("run", "cause", f"published, {unit}", f"corrected, {unit}", "published / corrected"),
        rows,
        note=f"{more} – : no log is here to compute it from.".strip(),
        n_label_columns=2,
    )

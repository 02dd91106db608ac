"""Verdicts, kept in one SQLite file beside the experiment, each as soon as it is there."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from analysis.judge.question import Outcome
from contract.errors import UsageError

JUDGEMENTS = "judgements.sqlite"

_BATCH = 500
"""Keys in one query: SQLite takes a limited number of values."""

_METADATA = MetaData()
_TABLE = Table(
    "judgement",
    _METADATA,
    Column("key", String, primary_key=True),
    Column("prompt_version", String, nullable=False),
    Column("model", String, nullable=False),
    Column("endpoint_model", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("item_id", String, nullable=False),
    Column("task", String, nullable=False),
    Column("gold_label", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("answered_label", String),
    Column("reason", String, nullable=False),
    Column("n_asked", Integer, nullable=False),
    Column("n_prompt_tokens", Integer),
    Column("n_output_tokens", Integer),
    Column("judged_at", String, nullable=False),
)


@dataclass(frozen=True)
class Judgement:
    """One kept verdict.

    Attributes:
        key: see `Question.key`.
        prompt_version: wording of the question.
        model: name that was asked for.
        endpoint_model: what the endpoint has behind it.
        endpoint: its address.
        seed: that was sent.
        item_id: the item; where several answers are the same, of the first.
        task: SuperGLUE's name.
        gold_label: that the judge was told.
        outcome: the verdict, or `invalid`.
        answered_label: that the judge read; None: none.
        reason: in the judge's words; of an invalid one, what was wrong with the reply.
        n_asked: 1, or 2 where it was asked again.
        n_prompt_tokens: over both; None where the endpoint does not count.
        n_output_tokens: the same.
        judged_at: aware UTC, ISO 8601.
    """

    key: str
    prompt_version: str
    model: str
    endpoint_model: str
    endpoint: str
    seed: int
    item_id: str
    task: str
    gold_label: str
    outcome: Outcome
    answered_label: str | None
    reason: str
    n_asked: int
    n_prompt_tokens: int | None
    n_output_tokens: int | None
    judged_at: str


class JudgementStore:
    """Reads and adds verdicts. One writer; a kill loses at most the verdict that is being written.

    Args:
        path: the file; made where it is not there and `create` is set.
        create: False: it must be there.

    Raises:
        UsageError: it cannot be opened.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.is_file():
            raise UsageError(f"There are no verdicts at {path}. Run `python -m analysis judge` first.")
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30.0})
        try:
            _METADATA.create_all(self._engine)
        except SQLAlchemyError as error:
            raise UsageError(
                f"{path} cannot be opened for verdicts ({error}). Give --store a file in a folder you may write to."
            ) from error

    def __enter__(self) -> "JudgementStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def find(self, keys: Collection[str]) -> dict[str, Judgement]:
        """The verdicts among these keys, by key."""
        columns = [_TABLE.c[each.name] for each in fields(Judgement)]
        wanted, found = sorted(set(keys)), {}
        with self._engine.connect() as connection:
            for first in range(0, len(wanted), _BATCH):
                some = _TABLE.c.key.in_(wanted[first : first + _BATCH])
                for row in connection.execute(select(*columns).where(some)):
                    found[row.key] = Judgement(**row._mapping)
        return found

    def judges(self) -> list[tuple[str, str, int]]:
        """Who has judged: model that was asked for, model behind it, seed."""
        query = select(_TABLE.c.model, _TABLE.c.endpoint_model, _TABLE.c.seed).distinct()
        with self._engine.connect() as connection:
            return sorted((row.model, row.endpoint_model, row.seed) for row in connection.execute(query))

    def all(self) -> list[Judgement]:
        """Every verdict, the oldest first."""
        names = [each.name for each in fields(Judgement)]
        with self._engine.connect() as connection:
            rows = connection.execute(select(*(_TABLE.c[name] for name in names)).order_by(_TABLE.c.judged_at)).all()
        return [Judgement(**row._mapping) for row in rows]

    def add(self, judgement: Judgement) -> None:
        """Keep a verdict, at once; one that is there stays."""
        with self._engine.begin() as connection:
            connection.execute(insert(_TABLE).values(asdict(judgement)).on_conflict_do_nothing())


def utc_now() -> str:
    """Aware UTC, as `judged_at` holds it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""The run table: filtered, sorted and cut into pages on this side, from the light index."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse

from contract.attempt_state import RunState
from contract.units import Scalar
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.glance import run_document
from orchestrator.dashboard.run_index import LightRun, RunIndex
from orchestrator.dashboard.watch import CampaignWatch
from orchestrator.dashboard.words import STATE_WORDS

EXCLUDED = "EXCLUDED"
"""In place of a state: runs that are left out of the results."""

PAGE = 50
"""Rows of a page; a request may ask for up to `MAX_PAGE`."""
MAX_PAGE = 500

_FACTOR = "factor."
_ORDER = {state: i for i, state in enumerate(RunState)}

Key = Callable[[LightRun], Any]

SORTS: dict[str, Key] = {
    **{
        name: attrgetter(name)
        for name in (
            "position",
            "run_id",
            "repetition",
            "energy_j",
            "energy_net_j",
            "duration_s",
            "tokens_per_s",
            "accuracy",
            "n_attempts",
        )
    },
    "state": lambda row: _ORDER[row.state],
    "reasons": lambda row: row.codes[0] if row.codes else None,
    "ended": attrgetter("ended_at"),
}
"""What may be sorted by, and `factor.NAME`; None comes last either way."""


@dataclass(frozen=True)
class RunQuery:
    """What is asked of the table.

    Attributes:
        offset: rows that are left out before the page.
        limit: rows of the page.
        sort: of `SORTS`, or `factor.NAME`; with `-` before it: downwards.
        state: of `RunState`, or `EXCLUDED`; empty: all.
        reason: code of a suspect reason or an error; empty: all.
        search: part of a run's id; empty: all.
        factors: factor -> level, as text.
    """

    offset: int = 0
    limit: int = PAGE
    sort: str = "position"
    state: str = ""
    reason: str = ""
    search: str = ""
    factors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, parameters: QueryParams) -> "RunQuery":
        """From an address; what makes no sense there is left out: a link may be old."""
        state = parameters.get("state", "")
        sort = parameters.get("sort", "position")
        is_known = sort.removeprefix("-") in SORTS or sort.removeprefix("-").startswith(_FACTOR)
        return cls(
            offset=_whole(parameters.get("offset"), 0, 0, 10_000_000),
            limit=_whole(parameters.get("limit"), PAGE, 1, MAX_PAGE),
            sort=sort if is_known else "position",
            state=state if state in {*RunState, EXCLUDED} else "",
            reason=parameters.get("reason", ""),
            search=parameters.get("search", "").strip(),
            factors={
                name.removeprefix(_FACTOR): level
                for name, level in parameters.multi_items()
                if name.startswith(_FACTOR) and level
            },
        )

    def address(self, path: str = "/runs", **changed: Any) -> str:
        """The address that asks for the same, with some of it changed."""
        values = {
            "state": self.state,
            "reason": self.reason,
            "search": self.search,
            "sort": self.sort,
            "offset": self.offset,
            "limit": self.limit,
            **{f"{_FACTOR}{name}": level for name, level in self.factors.items()},
            **changed,
        }
        usual = {"sort": "position", "offset": 0, "limit": PAGE}
        asked = {name: value for name, value in values.items() if value not in ("", None) and value != usual.get(name)}
        return path + (f"?{urlencode(asked)}" if asked else "")

    def toggled(self, column: str) -> str:
        """The address that sorts by a column, or turns its order round."""
        return self.address(sort=f"-{column}" if self.sort == column else column, offset=0)

    def direction(self, column: str) -> str:
        """For `aria-sort`."""
        return {column: "ascending", f"-{column}": "descending"}.get(self.sort, "none")


@dataclass(frozen=True)
class RunPage:
    """A page of the table.

    Attributes:
        rows: of the page.
        n_found: that fit the filters.
        n_runs: of the plan.
    """

    rows: Sequence[LightRun]
    n_found: int
    n_runs: int
    query: RunQuery

    @property
    def first(self) -> int:
        """Number of the first row, from 1; 0: there is none."""
        return self.query.offset + 1 if self.rows else 0

    @property
    def last(self) -> int:
        """Number of the last row."""
        return self.query.offset + len(self.rows)


def find(index: RunIndex, query: RunQuery) -> RunPage:
    """Filter, sort and cut.

    Raises:
        RunTableError: the run table is gone, or cannot be read.
    """
    # An order is the same for every page and filter: it is made once per state of the run table.
    rows = index.derived(f"order {query.sort}", partial(_in_order, query.sort))
    found = rows
    for fits in _filters(query):
        found = [row for row in found if fits(row)]
    # A page that is no longer there, since rows went: the last one.
    offset = min(query.offset, max(len(found) - 1, 0) // query.limit * query.limit)
    shown = RunQuery(offset, query.limit, query.sort, query.state, query.reason, query.search, query.factors)
    return RunPage(found[offset : offset + query.limit], len(found), len(rows), shown)


def run_table_routes(board: Dashboard, watch: CampaignWatch) -> APIRouter:
    """`/runs` as a page, its rows alone, and the same as JSON.

    Args:
        board: the experiment.
        watch: with the index of its runs.
    """
    router = APIRouter()
    index = watch.index

    def values(request: Request) -> dict[str, Any]:
        found = find(index, RunQuery.read(request.query_params))
        return {
            "page": found,
            "query": found.query,
            "factors": index.factors,
            "levels": {name: levels for name, levels in index.levels().items() if 1 < len(levels) <= 200},
            "codes": index.codes().most_common(100),
            "states": STATE_WORDS,
            "excluded": EXCLUDED,
        }

    @router.get("/runs", response_class=HTMLResponse)
    def runs(request: Request) -> HTMLResponse:
        # Before the rows are read: they are as new as this, or newer.
        version = watch.version
        return board.page(request, "runs.html.j2", section="runs", campaign_version=version, **values(request))

    @router.get("/api/runs/rows", response_class=HTMLResponse)
    def rows(request: Request) -> HTMLResponse:
        return board.page(request, "_run_rows.html.j2", **values(request))

    @router.get("/api/runs")
    def document(request: Request) -> dict[str, Any]:
        found = find(index, RunQuery.read(request.query_params))
        return {
            "n_runs": found.n_runs,
            "n_found": found.n_found,
            "offset": found.query.offset,
            "limit": found.query.limit,
            "factors": index.factors,
            "rows": [run_document(row) for row in found.rows],
        }

    return router


def _in_order(sort: str, rows: Sequence[LightRun], _: object) -> Sequence[LightRun]:
    """All rows in an order of `RunQuery.sort`; equal ones in that of the plan, and those without a value last."""
    name = sort.removeprefix("-")
    if sort == "position":
        return rows
    key = SORTS.get(name) or _factor_key(name.removeprefix(_FACTOR))
    values = [key(row) for row in rows]
    known = [i for i, value in enumerate(values) if value is not None]
    known.sort(key=values.__getitem__, reverse=sort.startswith("-"))
    return [rows[i] for i in known] + [row for row, value in zip(rows, values, strict=True) if value is None]


def _filters(query: RunQuery) -> list[Callable[[LightRun], bool]]:
    filters: list[Callable[[LightRun], bool]] = []
    if query.state == EXCLUDED:
        filters.append(lambda row: row.exclusion is not None)
    elif query.state:
        state = RunState(query.state)
        filters.append(lambda row: row.state is state)
    if query.reason:
        filters.append(lambda row: query.reason in row.codes)
    if query.search:
        wanted = query.search.lower()
        filters.append(lambda row: wanted in row.run_id.lower())
    for name, level in query.factors.items():
        filters.append(partial(_has_level, name=name, level=level))
    return filters


def _has_level(row: LightRun, name: str, level: str) -> bool:
    return str(row.treatment.get(name)) == level


def _factor_key(name: str) -> Key:
    """Numbers among themselves, then words: levels of one factor may be of both kinds."""
    # Few levels stand in many rows; True and 1 are one key of a dictionary, and two levels.
    known: dict[tuple[type, Scalar], tuple[int, Scalar, str]] = {}

    def key(row: LightRun) -> Any:
        level = row.treatment.get(name)
        if level is None:
            return None
        which = type(level), level
        if which not in known:
            is_number = isinstance(level, int | float) and not isinstance(level, bool)
            known[which] = (0, level, "") if is_number else (1, 0, str(level))
        return known[which]

    return key


def _whole(text: str | None, usual: int, least: int, most: int) -> int:
    if text is None or not text.isdecimal() or len(text) > 9:
        return usual
    return min(max(int(text), least), most)

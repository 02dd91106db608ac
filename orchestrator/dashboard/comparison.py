"""The comparison: energy, accuracy and both together, by treatment; and two treatments side by side."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse

from contract.attempt_state import RunState
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.desk import SHARE, Desk
from orchestrator.dashboard.run_index import LightRun, RunIndex

# As in `comparison_view`, which this process does not load.
LIMITS = (20, 50, 200)
SORTS = {
    "design": "as planned",
    "energy": "least energy first",
    "token": "least energy per token first",
    "edp": "least energy-delay product first",
    "accuracy": "most accurate first",
}
FigureName = Literal["energy", "token", "accuracy", "pareto", "edp"]
"""In the order of the page; `comparison_view.FIGURES` draws them."""

_MAX_WORDS = 200
_MAX_LEVELS = 40


def comparison_routes(board: Dashboard, index: RunIndex) -> APIRouter:
    """Routes of the comparison. Each answers from what was computed beside the page.

    Args:
        board: what is shown.
        index: its runs; tells when there is something new to compare.
    """
    desk = Desk(board.experiment, lambda: fingerprint(index), background=board.background, now=board.now)
    router = APIRouter(on_shutdown=[desk.close])

    @router.get("/comparison")
    async def comparison(request: Request) -> HTMLResponse:
        await desk.nudge()
        first = desk.first
        return board.page(
            request,
            "comparison.html.j2",
            section="comparison",
            uses_plotly=True,
            first=first,
            status_of=desk.status(),
            share=SHARE,
            sorts=SORTS,
            limits=LIMITS,
            figures=get_args(FigureName),
        )

    @router.get("/api/comparison")
    async def status() -> dict[str, Any]:
        """What is asked every few seconds: whether there is a newer one."""
        await desk.nudge()
        return desk.status()

    @router.get("/comparison/overview")
    async def overview(request: Request) -> HTMLResponse:
        return board.page(request, "comparison_overview.html.j2", first=desk.first, status_of=desk.status())

    @router.get("/comparison/tables")
    async def tables(
        request: Request,
        q: Annotated[str, Query(max_length=_MAX_WORDS)] = "",
        sort: str = "design",
        limit: int = LIMITS[0],
    ) -> HTMLResponse:
        """Numbers and ranking of some treatments, as a part of the page."""
        choice = choice_of(request, q, sort, limit)
        is_filtered = bool(q.strip() or choice["levels"])
        if choice == _ALL and desk.first is not None:
            found = desk.first["tables"]
        else:
            found = await desk.ask({"do": "tables", "choice": choice})
        return board.page(request, "comparison_tables.html.j2", view=found, is_filtered=is_filtered)

    @router.get("/api/comparison/figures/{name}")
    async def figure(
        request: Request,
        name: FigureName,
        q: Annotated[str, Query(max_length=_MAX_WORDS)] = "",
        sort: str = "design",
        limit: int = LIMITS[0],
    ) -> dict[str, Any]:
        choice = choice_of(request, q, sort, limit)
        if choice == _ALL and desk.first is not None:
            found: dict[str, Any] = desk.first["figures"][name]
            return found
        return await desk.ask({"do": "figure", "name": name, "choice": choice})

    @router.get("/comparison/pair")
    async def pair(request: Request, first: int, second: int) -> HTMLResponse:
        found = await desk.ask({"do": "pair", "first": first, "second": second})
        return board.page(request, "comparison_pair.html.j2", pair=found)

    @router.get("/api/comparison/pair/figure")
    async def pair_figure(first: int, second: int) -> dict[str, Any]:
        return await desk.ask({"do": "pair_figure", "first": first, "second": second})

    return router


_ALL: dict[str, Any] = {"words": "", "levels": [], "sort": "design", "limit": LIMITS[0]}


def choice_of(request: Request, words: str, sort: str, limit: int) -> dict[str, Any]:
    """What was asked for, with what makes no sense left out.

    Args:
        request: its query's `factor.NAME=LEVEL` choose levels.
        words: to look for in the treatments.
        sort: one of `SORTS`.
        limit: one of `LIMITS`.
    """
    levels = [
        [name.removeprefix("factor."), level]
        for name, level in request.query_params.multi_items()
        if name.startswith("factor.") and level
    ]
    return {
        "words": words.strip(),
        "levels": levels[:_MAX_LEVELS],
        "sort": sort if sort in SORTS else "design",
        "limit": limit if limit in LIMITS else LIMITS[0],
    }


def fingerprint(index: RunIndex) -> str:
    """Changes when a result is counted that was not, or the other way round; cheap at any size.

    Args:
        index: the runs.

    Raises:
        RunTableError: the run table is gone, or cannot be read.
    """
    return index.derived("fingerprint", _fingerprint)


def _fingerprint(rows: Sequence[LightRun], _: object) -> str:
    found = hashlib.sha256()
    for row in rows:
        if row.state not in _OPEN:
            why = row.exclusion.reason if row.exclusion is not None else None
            found.update(repr((row.position, row.state.value, row.attempt_id, why)).encode())
    return found.hexdigest()


_OPEN = frozenset({RunState.RUNNING, RunState.TODO})

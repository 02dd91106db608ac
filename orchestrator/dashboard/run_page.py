"""The page of one run: what was asked for, what happened, what was measured and answered, and its files."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from contract.attempt_state import RunState
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.run_answers import MAX_SHOWN, Only, read_answers_of
from orchestrator.dashboard.run_index import RunIndex
from orchestrator.dashboard.run_view import (
    NotHereError,
    download_path,
    downloads,
    energy_rows,
    headline,
    run_figures,
    shown_attempt,
    spec_groups,
    state_in_words,
)
from orchestrator.store.base import RunRow
from orchestrator.store.control import CampaignControl
from orchestrator.story_view import row_document


def run_routes(board: Dashboard, index: RunIndex) -> APIRouter:
    """Routes below `/runs/{run_id}`. They read one run and never the whole table, so that any size is quick.

    Args:
        board: what is shown.
        index: of all runs; not asked here.
    """
    router = APIRouter()

    # None of these is `async`: they read files, and FastAPI gives them a thread of their own.
    @router.get("/runs/{run_id}")
    def run_page(request: Request, run_id: str) -> HTMLResponse:
        row = _row(board, run_id)
        spec = board.store.spec(run_id)
        before, after = board.store.neighbours(row.position)
        return board.page(
            request,
            "run.html.j2",
            section="runs",
            uses_plotly=True,
            before=before,
            after=after,
            groups=spec_groups(spec) if spec is not None else [],
            spec_text=spec.model_dump_json(indent=2) if spec is not None else "",
            **_values(board, row),
        )

    @router.get("/runs/{run_id}/story")
    def story(request: Request, run_id: str) -> HTMLResponse:
        """What changes while a run goes on, as a part of the page."""
        return board.page(request, "run_story.html.j2", **_values(board, _row(board, run_id)))

    @router.get("/runs/{run_id}/answers")
    def answers(
        request: Request, run_id: str, only: Only = "all", offset: Annotated[int, Query(ge=0)] = 0
    ) -> HTMLResponse:
        row = _row(board, run_id)
        page = read_answers_of(board.experiment, row.run_id, only=only, offset=offset)
        return board.page(request, "run_answers.html.j2", run_id=row.run_id, page=page, only=only, step=MAX_SHOWN)

    @router.get("/runs/{run_id}/artifacts/{name}")
    def artifact(run_id: str, name: str, attempt: str | None = None) -> Response:
        row = _row(board, run_id)
        shown = shown_attempt(row) or (row.attempts[-1] if row.attempts else None)
        attempt_id = attempt if attempt is not None else shown.attempt_id if shown is not None else ""
        path = download_path(board.experiment, row, attempt_id, name)
        # Never shown in the page's own origin, whatever is in it.
        return FileResponse(
            path,
            media_type="application/octet-stream",
            filename=f"{attempt_id}_{path.name}",
            headers={"X-Content-Type-Options": "nosniff"},
        )

    @router.get("/api/runs/{run_id}")
    def run_api(run_id: str) -> dict[str, Any]:
        row = _row(board, run_id)
        return {
            **row_document(board.experiment, row, board.store.events(row.run_id), row.attempts),
            "said": state_in_words(row),
            "version": _version(row),
        }

    @router.get("/api/runs/{run_id}/figures")
    def figures(run_id: str) -> dict[str, Any]:
        return run_figures(board.experiment, _row(board, run_id).run_id)

    return router


def _row(board: Dashboard, run_id: str) -> RunRow:
    row = board.store.run(run_id)
    if row is None:
        raise NotHereError(f"{board.name} has no such run. The page Runs lists those that it has.")
    return row


def _values(board: Dashboard, row: RunRow) -> dict[str, Any]:
    """What the story's template needs."""
    shown = shown_attempt(row)
    result = shown.result if shown is not None else None
    return {
        "run": row_document(board.experiment, row, board.store.events(row.run_id), row.attempts),
        "said": state_in_words(row),
        "version": _version(row),
        "is_open": row.state in (RunState.RUNNING, RunState.TODO),
        "shown_id": shown.attempt_id if shown is not None else "",
        "reasons": shown.reasons if shown is not None and row.state is RunState.SUSPECT else (),
        "excluded": CampaignControl(board.store).exclusions().get(row.run_id),
        "headline": headline(result) if result is not None else [],
        "energies": energy_rows(result) if result is not None else [],
        "files": downloads(board.experiment, row),
    }


def _version(row: RunRow) -> str:
    """Changes when anything about the run does."""
    last = row.attempts[-1] if row.attempts else None
    return f"{row.state.value} {len(row.attempts)} {last.state.value if last else ''}"

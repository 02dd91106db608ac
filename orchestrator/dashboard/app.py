"""Puts the page together: routes, static files, error pages, and access before all of them."""

import logging
from collections.abc import Callable
from importlib import import_module, util

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from contract.errors import ErrorBody, JouleBedError
from contract.units import Identifier
from orchestrator.dashboard.access import LIVE, Access
from orchestrator.dashboard.context import FOLDER, Dashboard
from orchestrator.dashboard.run_index import RunIndex
from orchestrator.dashboard.watch import CampaignWatch

_log = logging.getLogger(__name__)

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)

_STATIC_AGE_S = 24 * 3600
"""The addresses of static files carry the version."""

_OTHERS = (
    ("orchestrator.dashboard.run_page", "run_routes"),
    ("orchestrator.dashboard.comparison", "comparison_routes"),
    ("orchestrator.dashboard.report_page", "report_routes"),
)
"""Pages that read results with the analysis: module, and its function `(Dashboard, RunIndex) -> APIRouter`."""


def create_app(board: Dashboard, token: str, watch: CampaignWatch | None = None) -> ASGIApp:
    """The whole page as an ASGI application.

    Args:
        board: what is shown.
        token: of every route but the sign of life, the login and static files.
        watch: looks at the campaign; a new one by default. The caller starts and stops it.
    """
    from orchestrator.dashboard.campaign import campaign_routes
    from orchestrator.dashboard.controls import control_routes
    from orchestrator.dashboard.live import live_routes
    from orchestrator.dashboard.run_table import run_table_routes

    watch = watch or CampaignWatch(board)
    known = [Depends(_require_run_id)]
    app = FastAPI(title="JouleBed", docs_url=None, redoc_url=None, openapi_url=None, dependencies=known)
    app.include_router(_basics(board))
    app.include_router(campaign_routes(board, watch))
    app.include_router(live_routes(board, watch))
    app.include_router(run_table_routes(board, watch))
    app.include_router(control_routes(board, watch))
    for module, name in _OTHERS:
        if util.find_spec(module) is not None:
            factory: Callable[[Dashboard, RunIndex], APIRouter] = getattr(import_module(module), name)
            app.include_router(factory(board, watch.index))
    app.mount("/static", _Static(directory=FOLDER / "static"))
    _tell_errors(app, board)
    return Access(app, token, board.templates)


def _require_run_id(request: Request) -> None:
    """Of every address with a run in it: no database is asked about what cannot be a run's id, such as a null byte."""
    try:
        _IDENTIFIER.validate_python(request.path_params.get("run_id", "none"))
    except ValidationError:
        raise HTTPException(404, "There is no such run. The page Runs lists those that there are.") from None


def _basics(board: Dashboard) -> APIRouter:
    router = APIRouter()

    @router.get(LIVE)
    def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/static/plotly.min.js")
    def plotly() -> Response:
        from importlib.resources import files

        path = str(files("plotly").joinpath("package_data", "plotly.min.js"))
        return FileResponse(path, media_type="text/javascript", headers=_kept())

    @router.get("/favicon.ico")
    def favicon() -> Response:
        return FileResponse(FOLDER / "static" / "icon.svg", media_type="image/svg+xml", headers=_kept())

    return router


class _Static(StaticFiles):
    """Files that a browser may keep: a new version has new addresses."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_kept())
        return response


def _kept() -> dict[str, str]:
    return {"Cache-Control": f"private, max-age={_STATIC_AGE_S}"}


def _tell_errors(app: FastAPI, board: Dashboard) -> None:
    """Errors as JSON to scripts, as a page to people."""

    def answer(request: Request, status: int, code: str, message: str, *, retryable: bool = False) -> Response:
        if request.url.path.startswith("/api/") or request.method not in ("GET", "HEAD"):
            body = ErrorBody(code=code, message=message, retryable=retryable)
            return JSONResponse(body.model_dump(mode="json"), status_code=status)
        return board.page(request, "error.html.j2", status=status, code=code, message=message)

    @app.exception_handler(JouleBedError)
    async def joulebed_error(request: Request, error: JouleBedError) -> Response:
        # A usage error of the run table (it is gone, locked, damaged) is the server's trouble, not the asker's.
        status = 503 if error.code.startswith("run_table") else 409 if request.method == "POST" else error.http_status
        _log.warning("%s %s: %s", request.method, request.url.path, error.message)
        return answer(request, status, error.code, error.message, retryable=error.body().retryable)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        known = {404: "There is no such page.", 405: "This page takes no such request."}
        message = str(error.detail) if error.detail != "Not Found" else known[404]
        return answer(request, error.status_code, f"http_{error.status_code}", message)

    @app.exception_handler(RequestValidationError)
    async def wrong_request(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors())
        return answer(request, 422, "invalid_request", f"The request makes no sense: {told[:500]}.")

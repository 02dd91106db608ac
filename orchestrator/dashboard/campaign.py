"""The first page: how far the campaign is, when it will end, what it is at, and what holds it up."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from contract.attempt_state import AttemptState
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.glance import Glance, created_at
from orchestrator.dashboard.watch import CampaignWatch
from orchestrator.dashboard.words import STATE_WORDS

PHASES = (
    AttemptState.CLAIMED,
    AttemptState.SUBMITTED,
    AttemptState.LOADING,
    AttemptState.BASELINE,
    AttemptState.WARMUP,
    AttemptState.MEASURING,
    AttemptState.COLLECTING,
)
"""A trial's way, in order."""


def campaign_routes(board: Dashboard, watch: CampaignWatch) -> APIRouter:
    """`/`, its parts that are fetched anew when something changed, and the same as JSON.

    Args:
        board: the experiment.
        watch: knows how it stands.
    """
    router = APIRouter()

    def values(glance: Glance) -> dict[str, Any]:
        return {
            "glance": glance,
            "states": STATE_WORDS,
            "phases": PHASES,
            "word": campaign_word(glance),
            "curves": {each.testbed: watch.curve(each.testbed, each.since) for each in glance.cooldowns},
            "created_at": created_at(board),
            "has_live": board.telemetry is not None,
        }

    @router.get("/", response_class=HTMLResponse)
    def page(request: Request) -> HTMLResponse:
        # Before the look: what is shown is as new as this, or newer.
        version = watch.version
        shown = values(watch.look())
        return board.page(request, "campaign.html.j2", section="campaign", campaign_version=version, **shown)

    @router.get("/api/campaign/parts", response_class=HTMLResponse)
    def parts(request: Request) -> HTMLResponse:
        return board.page(request, "_campaign.html.j2", **values(watch.look()))

    @router.get("/api/campaign")
    def document() -> dict[str, Any]:
        glance = watch.look()
        return glance.document() | {
            "word": campaign_word(glance),
            "curves": {each.testbed: watch.curve(each.testbed, each.since) for each in glance.cooldowns},
        }

    return router


def campaign_word(glance: Glance) -> str:
    """`running`, `paused`, `finished`, `not begun`, or `at rest` where runs are left and nobody is at work on them."""
    if not glance.n_left and glance.n_runs:
        return "finished"
    if glance.began_at is None and not glance.is_driven:
        return "not begun"
    if glance.pause is not None:
        return "paused"
    return "running" if glance.is_driven else "at rest"

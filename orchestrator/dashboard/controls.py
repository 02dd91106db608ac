"""What the page changes: each is one decision, told in the events with who made it and why."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from contract.errors import UsageError
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.watch import CampaignWatch
from orchestrator.store.control import MAX_TEXT, CampaignControl


class Wish(BaseModel):
    """Who wants it, and why.

    Attributes:
        name: as the person typed it; the page's token does not tell people apart.
        reason: may be empty, but for an exclusion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="", max_length=60)
    reason: str = Field(default="", max_length=MAX_TEXT)

    @property
    def by(self) -> str:
        """`dashboard (Anna)`."""
        name = " ".join(self.name.split())
        return f"dashboard ({name})" if name else "dashboard"


class Told(BaseModel):
    """What was done, in words."""

    message: str


def control_routes(board: Dashboard, watch: CampaignWatch) -> APIRouter:
    """Routes that change something. The middleware has seen to the token and to where the request came from.

    Args:
        board: the experiment.
        watch: is told, so that all pages show it at once.
    """
    router = APIRouter(prefix="/api")

    def control() -> CampaignControl:
        if not board.is_writable:
            raise UsageError("This is a read-only copy: change the experiment where it runs.")
        return CampaignControl(board.store)

    def told(message: str) -> Told:
        watch.changed()
        return Told(message=message)

    @router.post("/pause")
    def pause(wish: Wish) -> Told:
        control().pause(wish.by, wish.reason)
        return told("Paused. The trial that runs now is finished first.")

    @router.post("/resume")
    def resume(wish: Wish) -> Told:
        ended = control().resume(wish.by)
        return told("Resumed." if ended else "It was not paused.")

    @router.post("/runs/{run_id}/retry")
    def retry(run_id: str, wish: Wish) -> Told:
        by = f"{wish.by}: {wish.reason}" if wish.reason else wish.by
        if not control().retry([run_id], by):
            return told(f"{run_id} is to do already.")
        return told(f"{run_id} is to do again. A campaign that runs takes it up; else start it again.")

    @router.post("/runs/{run_id}/exclude")
    def exclude(run_id: str, wish: Wish) -> Told:
        control().exclude(run_id, wish.reason, wish.by)
        return told(f"{run_id} is left out of the results.")

    @router.post("/runs/{run_id}/include")
    def include(run_id: str, wish: Wish) -> Told:
        ended = control().include(run_id, wish.by)
        return told(f"{run_id} counts again." if ended else f"{run_id} was not excluded.")

    return router

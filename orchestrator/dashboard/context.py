"""What every page of the dashboard is given: the experiment, how it is read, and how an answer is made of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from orchestrator.dashboard.words import FILTERS
from orchestrator.store.sql_store import SqlStore

if TYPE_CHECKING:
    from orchestrator.telemetry_hub import TelemetryHub

FOLDER = Path(__file__).parent


def make_templates() -> Environment:
    """The templates of this folder: everything is escaped, and a forgotten value is an error."""
    templates = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(FILTERS)
    return templates


def utc_now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Dashboard:
    """One experiment, as the page's process sees it.

    Attributes:
        experiment: its folder.
        store: its run table, to read; controls write to it.
        is_writable: False: no controls.
        is_frozen: it cannot be written by anybody here: a read-only copy, which nothing will change.
        templates: see `make_templates`.
        telemetry: live power of its testbeds; None: none is known.
        now: aware UTC.
        name: of the experiment.
        version: of joulebed; part of the addresses of static files, so that a browser fetches new ones.
        background: held while results are computed beside the page: one computation at a time.
    """

    experiment: Path
    store: SqlStore
    is_writable: bool = True
    is_frozen: bool = False
    templates: Environment = field(default_factory=make_templates)
    telemetry: "TelemetryHub | None" = None
    now: Callable[[], datetime] = utc_now
    name: str = ""
    version: str = field(default_factory=lambda: metadata.version("joulebed"))
    background: asyncio.Lock = field(default_factory=asyncio.Lock, compare=False)

    def page(
        self,
        request: Request,
        template: str,
        *,
        section: str = "",
        status: int = 200,
        uses_plotly: bool = False,
        **values: object,
    ) -> HTMLResponse:
        """A page.

        Args:
            request: that is answered.
            template: file name under `templates/`.
            section: of the navigation that it belongs to: `campaign`, `runs`, `comparison`, `report`; empty: none.
            status: of HTTP.
            uses_plotly: loads plotly, and lets it set `style` attributes, which it does to place its labels.
            values: of the template.
        """
        # The middleware, which sends the policy, reads this; see `access.Access`.
        request.state.uses_plotly = uses_plotly
        text = self.templates.get_template(template).render(
            board=self,
            section=section,
            nonce=request.state.nonce,
            uses_plotly=uses_plotly,
            now=self.now(),
            **values,
        )
        return HTMLResponse(text, status_code=status)

"""The static report: made on request beside the page, looked at in its own window, or taken home as one file."""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from orchestrator.dashboard.background import BackgroundError, end, read_line, start
from orchestrator.dashboard.comparison import fingerprint
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.run_index import RunIndex
from orchestrator.dashboard.run_view import NotHereError

REPORTER = "orchestrator.dashboard.reporter"

# The report's scripts stand in the file itself, so they carry no nonce of ours. The sandbox gives it an origin of its
# own: whatever a prompt or a label might smuggle into it reads no cookie and asks nothing of the dashboard.
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Made:
    """A report on the disk.

    Attributes:
        path: of the HTML file.
        at: when it was begun.
        cost_s: what it took.
        n_ended: runs that had ended.
        fingerprint: of the results in it.
    """

    path: Path
    at: datetime
    cost_s: float
    n_ended: int
    fingerprint: str


class ReportMaker:
    """Makes reports, one at a time, into a folder that goes with this object.

    Args:
        board: whose experiment is reported.
        index: its runs; tells whether a report is still of the newest results.
    """

    def __init__(self, board: Dashboard, index: RunIndex) -> None:
        self._board = board
        self._index = index
        # In the system's own place: a copy of an experiment may be read-only.
        self._folder = tempfile.TemporaryDirectory(prefix="joulebed-report-")
        self._task: asyncio.Task[None] | None = None
        self._n = 0
        self.made: Made | None = None
        self.problem = ""

    @property
    def is_making(self) -> bool:
        """Whether one is being made."""
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """Make one, unless one is being made."""
        if not self.is_making:
            self._task = asyncio.create_task(self._make())

    async def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._folder.cleanup()

    async def _make(self) -> None:
        board = self._board
        async with board.background:
            at, begun_s = board.now(), time.monotonic()
            seen = await asyncio.to_thread(fingerprint, self._index)
            counts = await asyncio.to_thread(board.store.counts)
            self._n += 1
            path = Path(self._folder.name) / f"report-{self._n}.html"
            process = await start(REPORTER, [str(board.experiment), str(path)])
            try:
                said = await read_line(process)
            except BackgroundError as error:
                said = {"failed": error.message}
            finally:
                await end(process)
            if "failed" in said:
                self.problem = said["failed"]
                return
            n_ended = sum(n for state, n in counts.items() if state.value not in ("TODO", "RUNNING"))
            old, self.problem = self.made, ""
            self.made = Made(path, at, time.monotonic() - begun_s, n_ended, seen)
            if old is not None:
                old.path.unlink(missing_ok=True)


def report_routes(board: Dashboard, index: RunIndex) -> APIRouter:
    """Routes of the report.

    Args:
        board: what is shown.
        index: its runs.
    """
    maker = ReportMaker(board, index)
    router = APIRouter(on_shutdown=[maker.close])

    @router.get("/report")
    async def report(request: Request) -> HTMLResponse:
        return board.page(request, "report.html.j2", section="report", **await _values(board, maker, index))

    @router.get("/report/part")
    async def part(request: Request) -> HTMLResponse:
        return board.page(request, "report_part.html.j2", **await _values(board, maker, index))

    @router.get("/api/report")
    async def status() -> dict[str, Any]:
        return {"is_making": maker.is_making, "problem": maker.problem, "at": maker.made and maker.made.at.isoformat()}

    @router.post("/api/report")
    async def make() -> dict[str, Any]:
        maker.begin()
        return {"is_making": True}

    @router.get("/report/report.html")
    async def html(download: bool = False) -> Response:
        if maker.made is None:
            raise NotHereError("No report has been made yet. Make one on the page Report.")
        headers = {"Content-Security-Policy": REPORT_POLICY}
        if download:
            return FileResponse(
                maker.made.path,
                media_type="application/octet-stream",
                filename=f"{board.name}_report_{maker.made.at:%Y-%m-%d}.html",
            )
        return FileResponse(maker.made.path, media_type="text/html; charset=utf-8", headers=headers)

    return router


async def _values(board: Dashboard, maker: ReportMaker, index: RunIndex) -> dict[str, Any]:
    made = maker.made
    counts = await asyncio.to_thread(board.store.counts)
    n_ended = sum(n for state, n in counts.items() if state.value not in ("TODO", "RUNNING"))
    is_old = made is not None and made.fingerprint != await asyncio.to_thread(fingerprint, index)
    return {
        "made": made,
        "size": made.path.stat().st_size if made is not None else None,
        "is_making": maker.is_making,
        "problem": maker.problem,
        "n_ended": n_ended,
        "n_runs": sum(counts.values()),
        "is_old": is_old,
    }

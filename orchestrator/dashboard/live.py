"""The one stream of a page: that the campaign changed, and what the testbeds' trials draw, as it arrives."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from contract.errors import TooManyListenersError
from contract.telemetry import TelemetrySample
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.watch import CampaignWatch
from orchestrator.telemetry_hub import Subscription

_LOOK_S = 0.5
"""How often it is looked whether the campaign changed: one comparison of two numbers."""

_BEAT_S = 5.0
"""A page that hears nothing for some of these opens the stream again."""

_QUEUED = 200


def live_routes(board: Dashboard, watch: CampaignWatch) -> APIRouter:
    """`/api/stream`, as server-sent events: `campaign`, `telemetry`, `beat`.

    Args:
        board: the experiment.
        watch: tells when the campaign changed, and takes temperatures for the curve of the thermal gate.
    """
    router = APIRouter()

    @router.get("/api/stream")
    async def stream() -> StreamingResponse:
        # A proxy that gathers answers would hold the events back.
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(_events(board, watch), media_type="text/event-stream", headers=headers)

    return router


async def _events(board: Dashboard, watch: CampaignWatch) -> AsyncIterator[str]:
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUED)
    pump = asyncio.create_task(_pump(board, watch, queue))
    watch.watched(1)
    try:
        seen, silent_s = -1, _BEAT_S
        while True:
            if seen != watch.version:
                seen, silent_s = watch.version, 0.0
                yield _event("campaign", {"version": seen, "trouble": watch.trouble})
            elif silent_s >= _BEAT_S:
                silent_s = 0.0
                yield _event("beat", {"at": board.now().isoformat(timespec="milliseconds")})
            try:
                told = await asyncio.wait_for(queue.get(), _LOOK_S)
            except TimeoutError:
                silent_s += _LOOK_S
                continue
            yield _event("telemetry", told)
    finally:
        watch.watched(-1)
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump


async def _pump(board: Dashboard, watch: CampaignWatch, queue: asyncio.Queue[dict[str, Any]]) -> None:
    """Testbeds' events into the queue; a full one lets the hub tell the past again in one sample."""
    if board.telemetry is None:
        return
    try:
        subscription: Subscription = board.telemetry.subscribe()
    except TooManyListenersError as error:
        await queue.put({"testbed": "", "refused": error.message})
        return
    with subscription:
        async for testbed, sample in subscription:
            if sample is not None and sample.temperatures:
                watch.note_temp(testbed, sample.at, max(each.temp_c for each in sample.temperatures))
            why = "" if sample is not None else board.telemetry.why_away().get(testbed, "")
            await queue.put({"testbed": testbed, "sample": _document(sample), "why": why})


def _document(sample: TelemetrySample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    document = sample.model_dump(mode="json")
    for series in document["series"]:
        # A thousandth of a second and seven digits are more than a chart shows.
        series["time_s"] = [round(each, 3) for each in series["time_s"]]
        series["values"] = [float(f"{each:.7g}") for each in series["values"]]
    return document


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"

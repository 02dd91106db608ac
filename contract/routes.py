"""The testbed's HTTP surface, version 1. The orchestrator pulls; nothing calls back.

| method and path | body -> answer |
|---|---|
| GET LIVE | -> {"live": true}; the only route without a token |
| GET NODE | -> NodeInfo |
| POST CHECK | CheckRequest -> CheckReport: could these trials run here? Loads and measures nothing |
| PUT ATTEMPT ?wait_s=&acknowledges= | TrialSpec -> AttemptStatus; idempotent; same id, other spec: 409; waits like \
  GET, with_result; acknowledges others before, MAX_ACKNOWLEDGED at most |
| GET ATTEMPT ?wait_s=&after_version=&with_result= | -> AttemptStatus; long poll, at most MAX_WAIT_S |
| DELETE ATTEMPT | cancels it if it runs -> AttemptStatus; idempotent |
| GET RESULT | -> TrialResult; 409 before the end |
| GET ARTIFACT | -> bytes; honours Range |
| POST ACKNOWLEDGEMENT | the orchestrator holds result and artifacts: the testbed may prune them -> AttemptStatus |
| GET METRICS | -> Prometheus' text format; needs no protocol header |
| GET TELEMETRY | -> server-sent events, each a TelemetrySample; goes on after the event of `Last-Event-ID` |

Every error answer to HTTP is an ErrorBody. Every request carries `Authorization: Bearer TOKEN` and the protocol header.
"""

LIVE = "/v1/live"
NODE = "/v1/node"
CHECK = "/v1/check"
ATTEMPT = "/v1/attempts/{attempt_id}"
RESULT = "/v1/attempts/{attempt_id}/result"
ARTIFACT = "/v1/attempts/{attempt_id}/artifacts/{name}"
ACKNOWLEDGEMENT = "/v1/attempts/{attempt_id}/acknowledgement"
METRICS = "/metrics"
TELEMETRY = "/v1/telemetry"

MAX_WAIT_S = 30.0
"""Longest a long poll is held."""

MAX_ACKNOWLEDGED = 20
"""Most attempts that one submission acknowledges."""

MAX_BROUGHT_BYTES = 256 * 1024
"""Most that a status brings of its result's artifacts, the small ones first; others are fetched, and can be continued.
"""

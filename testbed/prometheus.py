"""What a monitoring system may want to know of a testbed, in Prometheus' text format."""

import shutil
import time
from collections.abc import Iterator

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from contract.attempt_state import AttemptState
from contract.failed_logins import FailedLogins
from contract.trial_result import TrialResult
from contract.units import PROTOCOL_VERSION
from testbed.node import TestbedNode

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(node: TestbedNode, failed: FailedLogins) -> bytes:
    """The metrics of a node, now. No id of a run or an attempt is a label: their number has no bound.

    Args:
        node: what is told of.
        failed: the wrong tokens that came.
    """
    # The library's registry as it stands holds the process's own metrics too, which a fork of it would mix up.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(node, failed))
    return generate_latest(registry)


class _NodeCollector(Collector):
    def __init__(self, node: TestbedNode, failed: FailedLogins) -> None:
        self._node = node
        self._failed = failed

    def collect(self) -> Iterator[Metric]:
        yield from self._process()
        yield from self._trials()
        last = self._node.last_result()
        if last is not None:
            yield from _last_trial(last)
        disk = shutil.disk_usage(self._node.data_dir)
        yield _gauge("joulebed_disk_free_bytes", "Where attempts are kept.", disk.free)
        yield _gauge("joulebed_disk_size_bytes", "Where attempts are kept.", disk.total)

    def _process(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "joulebed_testbed",
            "Versions.",
            {"software_version": self._node.software_version, "protocol_version": str(PROTOCOL_VERSION)},
        )
        process = psutil.Process()
        yield _gauge("joulebed_start_time_seconds", "When the process began, since the epoch.", process.create_time())
        yield _gauge("joulebed_resident_memory_bytes", "Of the process that serves.", process.memory_info().rss)
        yield _gauge("joulebed_time_seconds", "This machine's clock, since the epoch.", time.time())
        yield CounterMetricFamily(
            "joulebed_auth_failures", "Requests with a wrong token or none.", value=float(self._failed.n_failures)
        )
        yield CounterMetricFamily(
            "joulebed_auth_refused_unseen",
            "Requests of addresses that have to wait.",
            value=float(self._failed.n_unseen),
        )

    def _trials(self) -> Iterator[Metric]:
        now = self._node.telemetry()
        yield _gauge("joulebed_attempt_running", "1 while a trial runs.", now.attempt_id is not None)
        state = GaugeMetricFamily("joulebed_attempt_state", "1 for the running trial's state.", labels=["state"])
        ended = CounterMetricFamily(
            "joulebed_attempts", "Attempts that ended since this testbed was started.", labels=["state"]
        )
        n_ended = self._node.ended()
        for each in AttemptState:
            # All of them from the start: a rate over a counter that appears with its first event misses that event.
            if not each.is_final:
                state.add_metric([each.value], float(now.state is each))
            elif each is not AttemptState.LOST:  # only an orchestrator can tell
                ended.add_metric([each.value], float(n_ended.get(each, 0)))
        yield state
        yield ended
        yield _gauge("joulebed_requests_done", "Requests answered in the current phase.", now.n_requests_done)
        yield _gauge("joulebed_requests_planned", "Requests of the current phase; 0: unknown.", now.n_requests)
        power = GaugeMetricFamily(
            "joulebed_power_watts", "Power of the running trial's last interval.", labels=["domain"]
        )
        for domain, power_w in now.power_w.items():
            power.add_metric([domain], power_w)
        yield power
        temperature = GaugeMetricFamily("joulebed_temperature_celsius", "Now.", labels=["sensor"])
        for reading in now.temperatures:
            temperature.add_metric([reading.sensor], reading.temp_c)
        yield temperature


def _last_trial(last: TrialResult) -> Iterator[Metric]:
    yield _gauge(
        "joulebed_last_trial_end_time_seconds", "Since the epoch, last with measurements.", last.finished_at.timestamp()
    )
    if last.duration_s is not None:
        yield _gauge("joulebed_last_trial_duration_seconds", "Its measured phase.", last.duration_s)
    if last.summary is not None and last.summary.energy_j is not None:
        energy = GaugeMetricFamily(
            "joulebed_last_trial_energy_joules",
            "Its measured phase, gross. The method `estimate` is no measurement.",
            labels=["method", "source", "suspect"],
        )
        is_suspect = "true" if last.state is AttemptState.SUSPECT else "false"
        energy.add_metric([last.summary.method.value, last.summary.source, is_suspect], last.summary.energy_j)
        yield energy


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=float(value))

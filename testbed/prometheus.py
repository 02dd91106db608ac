"""What a monitoring system may want to know of a testbed, in Prometheus' text format."""

import shutil
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from contract.units import PROTOCOL_VERSION
from testbed.node import TestbedNode

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(node: TestbedNode) -> bytes:
    """The metrics of a node, now."""
    # The library's registry as it stands holds the process's own metrics too, which a fork of it would mix up.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(node))
    return generate_latest(registry)


class _NodeCollector(Collector):
    def __init__(self, node: TestbedNode) -> None:
        self._node = node

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily]:
        now = self._node.telemetry()
        yield InfoMetricFamily(
            "joulebed_testbed",
            "Versions.",
            {"software_version": self._node.software_version, "protocol_version": str(PROTOCOL_VERSION)},
        )
        yield GaugeMetricFamily(
            "joulebed_attempt_running", "1 while a trial runs.", value=float(now.attempt_id is not None)
        )
        ended = CounterMetricFamily(
            "joulebed_attempts", "Attempts that ended since this testbed was started.", labels=["state"]
        )
        for state, count in self._node.ended().items():
            ended.add_metric([state.value], float(count))
        yield ended
        yield GaugeMetricFamily(
            "joulebed_requests_done", "Requests answered in the current phase.", value=float(now.n_requests_done)
        )
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
        disk = shutil.disk_usage(self._node.data_dir)
        yield GaugeMetricFamily("joulebed_disk_free_bytes", "Where attempts are kept.", value=float(disk.free))
        yield GaugeMetricFamily("joulebed_disk_size_bytes", "Where attempts are kept.", value=float(disk.total))

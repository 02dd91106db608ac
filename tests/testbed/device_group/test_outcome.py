"""Energy of each device: of its own domain, at its own marks; physics on made-up powers."""

import numpy as np
import pytest
from pydantic import JsonValue

from contract.node_info import NodeIdentity
from contract.trial_result import DeviceResult, EnergyMethod, Phase, PhaseWindow
from energy.attribution import attribute
from energy.request_energy import RequestTiming, share_energy
from energy.trace import Gauge, Trace
from testbed.attempt_folder import ChildRecord, DeviceRecord
from testbed.device_group.outcome import device_results, share_by_device

NODE = NodeIdentity(
    hostname="here",
    os="Linux",
    cpu_model="CPU X",
    n_cpus=4,
    memory_bytes=2**33,
    gpus=["NVIDIA A (GPU-1111)", "NVIDIA B (GPU-2222)"],
    python_version="3.11",
    hardware_sha256="0" * 64,
)
ORIGIN_S, BASELINE_S = 100.0, 2.0
START_S, ENDS_S = 105.0, {"gpu:0": 115.0, "gpu:1": 109.0}
IDLE_W = {"gpu:0": 50.0, "gpu:1": 20.0, "cpu_package": 30.0}
BUSY_W = {"gpu:0": 300.0, "gpu:1": 70.0, "cpu_package": 90.0}


def trace(domain: str, source: str = "nvml", period_s: float = 0.1) -> Trace:
    """A counter: idle power until the start, busy power to the domain's end, idle power again."""
    time_s = np.arange(ORIGIN_S, 120.0, period_s)
    end_s = ENDS_S.get(domain, max(ENDS_S.values()))
    busy_s = np.clip(time_s, START_S, end_s) - START_S
    joules = IDLE_W[domain] * (time_s - ORIGIN_S - busy_s) + BUSY_W[domain] * busy_s
    component = "cpu" if domain == "cpu_package" else "gpu"
    method = EnergyMethod.ESTIMATE if source == "estimate" else EnergyMethod.COUNTER
    return Trace(domain, component, "counter", method, source, time_s, joules)


def device(name: str, end_s: float, **changes: object) -> DeviceRecord:
    record = DeviceRecord(
        device=name, start_s=START_S, end_s=end_s, late_s=0.0, n_requests=2, n_output_tokens=100, cpu_s=3.0
    )
    return record.model_copy(update=changes)


def results(
    traces: list[Trace],
    devices: list[DeviceRecord],
    gauges: list[Gauge] | None = None,
    settings: dict[str, JsonValue] | None = None,
) -> list[DeviceResult]:
    phases = [
        PhaseWindow(phase=Phase.BASELINE, start_s=1.0, duration_s=BASELINE_S),
        PhaseWindow(phase=Phase.MEASURE, start_s=5.0, duration_s=10.0),
    ]
    record = ChildRecord(
        origin_s=ORIGIN_S, unix_minus_monotonic_s=0.0, phases=phases, devices=devices, meter_settings=settings or {}
    )
    return device_results(record, traces, gauges or [], attribute(traces, phases, origin_s=ORIGIN_S), NODE)


@pytest.mark.parametrize("period_s", [0.02, 0.1, 0.5])
def test_a_gpu_has_the_energy_of_its_own_domain_in_its_own_window(period_s: float) -> None:
    traces = [trace(domain, period_s=period_s) for domain in ("gpu:0", "gpu:1", "cpu_package")]
    slow, fast = results(traces, [device(name, end_s) for name, end_s in ENDS_S.items()])
    assert (slow.kind, fast.kind) == ("NVIDIA A", "NVIDIA B")
    assert (slow.duration_s, fast.duration_s) == (10.0, 4.0)
    assert slow.energy_j == pytest.approx(300.0 * 10.0)
    assert fast.energy_j == pytest.approx(70.0 * 4.0)
    assert fast.baseline_power_w == pytest.approx(20.0)
    assert fast.energy_net_j == pytest.approx(50.0 * 4.0)
    assert (slow.tail_s, slow.tail_energy_j) == (0.0, 0.0)
    # What the fast one idled away is told, and is not its own.
    assert fast.tail_s == 6.0
    assert fast.tail_energy_j == pytest.approx(20.0 * 6.0)
    assert fast.tokens_per_s == 25.0
    assert fast.energy_method is EnergyMethod.COUNTER


def test_what_no_meter_measures_alone_is_none_with_the_reason() -> None:
    (found,) = results([trace("cpu_package", "rapl")], [device("gpu:0", 115.0)])
    assert found.energy_j is None and found.energy_method is None
    assert found.energy_note == "no meter measures gpu:0 alone; the domains are: cpu_package"


def test_samples_that_end_too_early_give_no_energy() -> None:
    whole = trace("gpu:0")
    cut = whole.time_s < 110.0
    short = Trace("gpu:0", "gpu", "counter", whole.method, "nvml", whole.time_s[cut], whole.values[cut])
    (found,) = results([short], [device("gpu:0", 115.0)])
    assert found.energy_j is None
    assert found.energy_note == "the samples do not cover its window"


def test_cores_have_no_share_of_a_package_counter() -> None:
    found = results([trace("cpu_package", "rapl")], [device("cores:0", 115.0), device("cores:1-3", 109.0)])
    assert [each.energy_j for each in found] == [None, None]
    assert all("share one package counter" in each.energy_note for each in found)
    assert [each.kind for each in found] == ["CPU X, 1 core", "CPU X, 3 cores"]


def test_cores_have_an_estimate_by_their_cpu_time_that_says_so() -> None:
    settings: dict[str, JsonValue] = {"estimate": {"idle_w_per_core": 1.0, "active_w_per_core": 4.0}}
    found = results([trace("cpu_package", "estimate")], [device("cores:1-2", 109.0)], settings=settings)
    (cores,) = found
    assert cores.energy_method is EnergyMethod.ESTIMATE and "estimate, not measured" in cores.energy_note
    assert cores.energy_j == pytest.approx(1.0 * 2 * 4.0 + 4.0 * 3.0)
    assert cores.energy_net_j == pytest.approx(4.0 * 3.0)
    unknown = results([trace("cpu_package", "estimate")], [device("cores:1", 109.0, cpu_s=None)], settings=settings)
    assert unknown[0].energy_j is None and unknown[0].energy_note == "the CPU time of its process is not known"


def test_temperature_memory_and_throttling_are_of_its_own_sensors_and_window() -> None:
    time_s = np.arange(100.0, 120.0)
    gauges = [
        Gauge("gpu:0", "temp_c", "nvml", time_s, time_s),
        Gauge("gpu:1", "temp_c", "nvml", time_s, time_s - 60.0),
        Gauge("gpu:1", "memory_used_bytes", "nvml", time_s, np.where(time_s > 109.0, 9e9, 5e9)),
        Gauge("gpu:1", "throttle_reasons", "nvml", time_s, np.where(time_s == 107.0, 0x40, 0x1)),
    ]
    slow, fast = results([], [device(name, end_s) for name, end_s in ENDS_S.items()], gauges)
    assert (slow.start_temp_c, slow.max_temp_c) == (105.0, 115.0)
    assert (fast.start_temp_c, fast.max_temp_c) == (45.0, 49.0)
    assert (slow.gpu_memory_peak_bytes, fast.gpu_memory_peak_bytes) == (None, 5_000_000_000)
    assert (slow.throttled_share, fast.throttled_share) == (None, pytest.approx(1 / 5))


def test_a_device_without_marks_has_nothing_but_its_error() -> None:
    failed = DeviceRecord(device="gpu:1")
    (found,) = results([trace("gpu:1")], [failed])
    assert (found.energy_j, found.duration_s, found.tokens_per_s, found.n_requests) == (None, None, None, 0)


def timing(start_s: float, end_s: float) -> RequestTiming:
    return RequestTiming(start_s, np.linspace(start_s + 0.5, end_s, 10), end_s, 5, 10)


def test_a_gpus_joules_go_to_its_own_requests_and_all_joules_are_told() -> None:
    traces = [trace(domain) for domain in ("gpu:0", "gpu:1", "cpu_package")]
    timings = [timing(105.0, 110.0), timing(110.0, 115.0), timing(105.0, 109.0)]
    split = share_by_device(traces, timings, ["gpu:0", "gpu:0", "gpu:1"], start_s=105.0, end_s=115.0)
    shares = [share.component_energy_j["gpu"] for share in split.requests]
    assert shares[0] + shares[1] == pytest.approx(300.0 * 10.0)
    assert shares[2] == pytest.approx(70.0 * 4.0)
    # The second GPU's tail is nobody's.
    assert split.unassigned_energy_j == pytest.approx(20.0 * 6.0)
    total_j = sum(share.energy_j for share in split.requests) + (split.unassigned_energy_j or 0.0)
    assert total_j == pytest.approx(300.0 * 10.0 + 70.0 * 4.0 + 20.0 * 6.0 + 90.0 * 10.0)
    assert split.prefill_energy_j is not None and split.decode_energy_j is not None
    assert split.prefill_energy_j + split.decode_energy_j + 120.0 == pytest.approx(total_j)


def test_without_devices_it_is_the_rule_as_it_was() -> None:
    traces, timings = [trace("gpu:0"), trace("cpu_package")], [timing(105.0, 110.0), timing(107.0, 115.0)]
    ours = share_by_device(traces, timings, [None, None], start_s=105.0, end_s=115.0)
    assert ours == share_energy(traces, timings, start_s=105.0, end_s=115.0)
    assert share_by_device([], timings, [None, None], start_s=105.0, end_s=115.0).note == "no domain was measured"
    assert share_by_device(traces, [], [], start_s=105.0, end_s=115.0).note == "no request is on record"

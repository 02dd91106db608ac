"""All meters, by name."""

from testbed.meters.base import Meter
from testbed.registry import Entry, Registry

METERS: Registry[Meter] = Registry(
    "meter",
    {
        "energibridge": Entry("testbed.meters.energibridge_meter:EnergiBridgeMeter", options=("gpu",)),
        "rapl": Entry("testbed.meters.rapl_meter:RaplMeter", options=("fast",)),
        "nvml": Entry("testbed.meters.nvml_meter:NvmlMeter", extra="testbed", options=("gpus",)),
        "jetson": Entry("testbed.meters.jetson_meter:JetsonMeter", options=("total_rail", "added_rails")),
        "tegrastats": Entry("testbed.meters.tegrastats_meter:TegrastatsMeter", options=("total_rail", "added_rails")),
        "estimate": Entry(
            "testbed.meters.estimate_meter:EstimateMeter", options=("idle_w_per_core", "active_w_per_core")
        ),
        "simulated": Entry("testbed.meters.simulated_meter:SimulatedMeter", options=()),
        "fake": Entry("testbed.meters.fake_meter:FakeMeter", options=("power_w",)),
    },
)

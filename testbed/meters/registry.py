"""All meters, by name."""

from testbed.meters.base import Meter
from testbed.registry import Entry, Registry

METERS: Registry[Meter] = Registry(
    "meter",
    {
        "energibridge": Entry("testbed.meters.energibridge_meter:EnergiBridgeMeter"),
        "rapl": Entry("testbed.meters.rapl_meter:RaplMeter"),
        "nvml": Entry("testbed.meters.nvml_meter:NvmlMeter", extra="testbed"),
        "jetson": Entry("testbed.meters.jetson_meter:JetsonMeter"),
        "estimate": Entry("testbed.meters.estimate_meter:EstimateMeter"),
        "fake": Entry("testbed.meters.fake_meter:FakeMeter"),
    },
)

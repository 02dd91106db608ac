"""The workloads, by name. Importing this imports none of them."""

from testbed.registry import Entry, Registry
from testbed.workloads.base import Workload

WORKLOADS: Registry[Workload] = Registry(
    "workload",
    {
        # No extra here: a folder or the sample needs no package. The hub does, and the reader says so itself.
        "superglue": Entry("testbed.workloads.superglue_workload:SuperGlueWorkload"),
        "prompt_suite": Entry("testbed.workloads.prompt_suite_workload:PromptSuiteWorkload"),
        "length_sweep": Entry("testbed.workloads.length_sweep:LengthSweepWorkload"),
        "open_loop": Entry("testbed.workloads.open_loop:OpenLoopWorkload"),
        "fake": Entry("testbed.workloads.fake_workload:FakeWorkload"),
    },
)
"""Factories take `WorkloadSpec.options` as keyword arguments."""

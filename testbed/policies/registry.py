"""The policies, by name. Importing this imports none of them."""

from testbed.policies.base import Policy
from testbed.registry import Entry, Registry

_CONSTANT = "testbed.policies.constant_policy"
_GOVERNOR = "testbed.policies.governor_policy"
_LENGTH = "testbed.policies.length_policy"
_DEADLINE = "testbed.policies.deadline_policy"

POLICIES: Registry[Policy] = Registry(
    "policy",
    {
        "static_high": Entry(f"{_CONSTANT}:StaticHigh"),
        "fixed_clock": Entry(f"{_CONSTANT}:FixedClock"),
        "fixed_batch": Entry(f"{_DEADLINE}:FixedBatch"),
        "dvfs_only": Entry(f"{_GOVERNOR}:DvfsOnly"),
        "batch_only": Entry(f"{_GOVERNOR}:BatchOnly"),
        "reactive": Entry(f"{_GOVERNOR}:Reactive"),
        "token_aware": Entry(f"{_LENGTH}:TokenAware"),
        "dynamo_like": Entry(f"{_LENGTH}:DynamoLike"),
        "deadline": Entry(f"{_DEADLINE}:Deadline"),
        "deadline_energy": Entry(f"{_DEADLINE}:DeadlineEnergy"),
        "capped_batch": Entry("testbed.policies.queue_policy:CappedBatch"),
        # A file's path is this machine's to choose: `path` is a named argument, so a spec cannot set it.
        "planned": Entry("testbed.policies.from_file:build_planned", "testbed", "safetensors"),
        "learned": Entry("testbed.policies.from_file:build_learned", "testbed", "safetensors"),
    },
)
"""Factories take `table`, `slo_s`, the two from files `path` too, and `PolicySpec.options` as keyword arguments."""

"""Trials on several devices, with fake engines."""

import os
from typing import Any

import pytest

from contract.trial_spec import (
    DeadlineSpec,
    DeviceSpec,
    EngineSpec,
    MeterSpec,
    ModelSpec,
    SamplingSpec,
    TrialSpec,
    WorkloadSpec,
)

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
NAMES = [f"cores:{core}" for core in CORES[:2]]
needs_two_cores = pytest.mark.skipif(len(NAMES) < 2, reason="needs two cores that a process can be kept to")


def fake(name: str, **options: Any) -> DeviceSpec:
    """A device with a fake engine of its own."""
    return DeviceSpec(name=name, engine=EngineSpec(name="fake", options=options))


def trial(*devices: DeviceSpec, **changes: Any) -> TrialSpec:
    """Four requests of ten tokens on each device, both at 100 tokens/s."""
    fields: dict[str, Any] = {
        "experiment": "e",
        "run_id": "run_0_repetition_0",
        "repetition": 0,
        "treatment": {},
        "seed": 3,
        "model": ModelSpec(name="m", source="fake:m"),
        "engine": EngineSpec(name="fake", options={"tokens_per_s": 100.0}),
        "sampling": SamplingSpec(max_tokens=10, ignore_eos=True),
        "workload": WorkloadSpec(name="fake", options={"n_items": 4}),
        "meter": MeterSpec(name="estimate", period_s=0.05),
        "deadline": DeadlineSpec(load_s=60.0, total_s=90.0),
        "devices": list(devices) or [DeviceSpec(name=name) for name in NAMES],
    }
    return TrialSpec.model_validate(fields | changes)

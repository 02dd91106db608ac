"""A folder of Experiment Runner with twelve answers, one of them given twice."""

import csv
import json
from pathlib import Path

import pytest

ENERGY_LOG = "Delta,Time,PACKAGE_ENERGY (J)\n200,1000,1.0\n200,1200,2.0\n"
N_ITEMS = 6


def write_experiment(folder: Path, *, n_items: int = N_ITEMS) -> Path:
    """Two runs of `n_items` questions of BoolQ; even items have gold label yes, and every third answer is none."""
    (folder / "prompts").mkdir(parents=True)
    prompts = [
        f"Passage: text {i}\n\nQuestion: is the sky green on day {i}\n\nExplain your choice." for i in range(n_items)
    ]
    with (folder / "prompts" / "BoolQ.jsonl").open("w") as file:
        for i, prompt in enumerate(prompts):
            original = {
                "question": f"is the sky green on day {i}",
                "passage": f"text {i}",
                "label": i % 2 == 0,
                "idx": i,
            }
            line = {"task_type": "BoolQ", "idx": i, "prompt": prompt, "label": i % 2 == 0, "original_data": original}
            file.write(json.dumps(line) + "\n")
    (folder / "run_table.csv").write_text(
        "__run_id,__done,model,energy\n"
        "run_0_repetition_0,DONE,small,1\nrun_0_repetition_1,DONE,small,3\n"
        "run_1_repetition_0,DONE,large,2\nrun_1_repetition_1,DONE,large,4\n"
    )
    for run, verb in (("run_0_repetition_0", "says"), ("run_1_repetition_0", "states")):
        path = folder / "runs" / run
        path.mkdir(parents=True)
        (path / "energibridge.csv").write_text(ENERGY_LOG)
        with (path / "prompts_out.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["start", "end", "prompt", "response", "response_tokens", "accuracy"])
            for i, prompt in enumerate(prompts):
                # The first item is answered alike in both runs.
                said = "is a saying" if i == 0 else f"{verb} so in line {i}"
                answer = f"Hard to tell; the text {said}." if i % 3 == 2 else f"Yes, the text {said}."
                writer.writerow([1000 + i, 1001 + i, prompt, answer, 7, "1.0" if i == 0 else ""])
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "study")

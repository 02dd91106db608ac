"""Results folders in Experiment Runner's layout, with known watts: what the audit is tested on."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

WRAP_J = 262144.0
PERIOD_MS = 200
LEAD_S = 10
"""Model load, before the first prompt."""
TAIL_S = 2
START_MS = 1_760_000_000_000


@dataclass
class Campaign:
    """Writes runs of constant power; each run's joules are known by multiplication.

    Attributes:
        folder: takes run_table.csv and the run folders.
    """

    folder: Path
    cpu_w: float = 50.0
    gpu_w: float = 300.0
    prompts_s: int = 100
    rows: list[dict[str, str]] = field(default_factory=list)
    n_runs: int = 0

    @property
    def whole_s(self) -> float:
        return LEAD_S + self.prompts_s + TAIL_S

    def add_run(
        self,
        run: int,
        repetition: int,
        *,
        counter_start_j: float = 1000.0,
        answers: tuple[str, ...] = ("yes", "no"),
        gpu_w: float | None = None,
        start_ms: int | None = None,
        temp_c: float = 35.0,
        level: str | None = None,
        cells: dict[str, str] | None = None,
        extra_columns: str = "",
        gpu: bool = True,
    ) -> Path:
        """Write a run's folder, and its row with `cells`."""
        run_id = f"run_{run}_repetition_{repetition}"
        folder = self.folder / run_id
        folder.mkdir(parents=True)
        begin_ms = START_MS + self.n_runs * 600_000 if start_ms is None else start_ms
        self.n_runs += 1
        watts = self.gpu_w if gpu_w is None else gpu_w
        n = round(self.whole_s * 1000) // PERIOD_MS
        head = "Delta,Time,PACKAGE_ENERGY (J),PP0_ENERGY (J)" + (",GPU0_POWER (mWatts),GPU0_TEMPERATURE" if gpu else "")
        lines = [head + extra_columns]
        for index in (0, *range(n + 1)):
            used_j = self.cpu_w * index * PERIOD_MS / 1000
            cells_now = [f"{PERIOD_MS}", f"{begin_ms + index * PERIOD_MS}"]
            cells_now += [repr((counter_start_j + used_j) % WRAP_J), repr(500 + 0.8 * used_j)]
            # A real reading is never the same for long.
            cells_now += [repr(watts * 1000 + index % 2), f"{temp_c}"] if gpu else []
            lines.append(",".join(cells_now))
        (folder / "energibridge.csv").write_text("\n".join(lines) + "\n")
        with (folder / "prompts_out.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["start", "end", "prompt", "response", "response_tokens"])
            first_s, each_s = begin_ms // 1000 + LEAD_S, self.prompts_s / len(answers)
            for index, answer in enumerate(answers):
                stamps = [first_s + round(index * each_s), first_s + round((index + 1) * each_s)]
                writer.writerow([*stamps, f"question {index}", answer, len(answer.split())])
        self.rows.append({"__run_id": run_id, "__done": "DONE", "model": level or f"m{run}", **(cells or {})})
        return folder

    def add_row(self, run: int, repetition: int, **cells: str) -> None:
        """A row whose log is not there."""
        self.rows.append(
            {"__run_id": f"run_{run}_repetition_{repetition}", "__done": "DONE", "model": f"m{run}", **cells}
        )

    def write_table(self, separator: str = ",", name: str = "run_table.csv") -> None:
        with (self.folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0].keys(), delimiter=separator)
            writer.writeheader()
            writer.writerows(self.rows)

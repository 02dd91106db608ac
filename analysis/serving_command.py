"""What `python -m analysis serving` does: table, files, figure."""

import json
from pathlib import Path

from analysis.load import load_runs
from analysis.serving import serving_cases
from analysis.serving_text import seeds_csv, serving_csv, serving_json, serving_text
from contract.errors import UsageError


def serving_command(experiment: str, *, out: Path, as_json: bool, include_suspect: bool) -> None:
    """Print the study's table, and write it as text, CSV and a figure for each case.

    Args:
        experiment: of a serving study.
        out: folder; files in it are replaced.
        as_json: print JSON, and write nothing.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: there is nothing to report, or it cannot be written.
    """
    cases = serving_cases(load_runs(experiment), include_suspect=include_suspect)
    if as_json:
        print(json.dumps(serving_json(cases), indent=1, ensure_ascii=False, allow_nan=False))
        return
    from analysis.figures.serving import serving_figure
    from analysis.figures.style import save_figure

    text = serving_text(cases)
    print(text, end="")
    files = {"serving.txt": text, "serving.csv": serving_csv(cases), "seeds.csv": seeds_csv(cases)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}. Give another folder with --out.") from error
    missing = []
    for number, case in enumerate(cases):
        try:
            save_figure(serving_figure(case), out / f"case_{number}")
        except UsageError as error:
            missing.append(error.message)
    print(f"\nWritten to {out}: {', '.join(files)}, and figures. {' '.join(missing)}".rstrip())

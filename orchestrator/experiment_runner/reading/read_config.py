"""Reads the design of one configuration: the main program of the process that `design_reader` starts.

It imports the file, builds its `RunnerConfig` and calls `create_run_table_model()`; no hook is called. Meanwhile
nothing may be written, started or connected to. The answer is one JSON object on the original standard output.
"""

import faulthandler
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.experiment_runner.reading.stand_ins import (
    BaseError,
    ExperimentRunnerFinder,
    MissingModuleFinder,
    Nothing,
    RunTableModel,
)

MAX_ROWS = 20_000
"""Treatments before exclusions; a design larger than this is a mistake."""

_MARKER = "joulebed_no_side_effects"
_STARTS = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn"}
)
_CONNECTS = frozenset({"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"})
_CHANGES = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.link",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "shutil.copyfile",
        "shutil.move",
        "shutil.rmtree",
    }
)


class SideEffectError(PermissionError):
    """The configuration would change something outside itself."""


def _forbid_side_effects(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS:
        raise SideEffectError(f"{_MARKER}: it would start a program ({_first(arguments)})")
    if event in _CONNECTS:
        raise SideEffectError(f"{_MARKER}: it would use the network")
    if event in ("os.kill", "os.killpg"):
        raise SideEffectError(f"{_MARKER}: it would send a signal to process {_first(arguments)}")
    if event in _CHANGES:
        raise SideEffectError(f"{_MARKER}: it would change {_first(arguments)} ({event})")
    if event == "os.mkdir" and not _exists(arguments[0]):
        raise SideEffectError(f"{_MARKER}: it would make the folder {_first(arguments)}")
    if event == "open" and len(arguments) == 3:
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes and isinstance(path, str | bytes | os.PathLike) and os.fspath(path) not in (os.devnull, b"/dev/null"):
            raise SideEffectError(f"{_MARKER}: it would write to {_first(arguments)}")


def _exists(path: Any) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and Path(os.fsdecode(path)).exists()


def _first(arguments: tuple[Any, ...]) -> str:
    return repr(arguments[0])[:120] if arguments else ""


def main(path: str, hang_after_s: float, hang_file: str) -> None:
    """Read one configuration and answer.

    Args:
        path: the file.
        hang_after_s: then say in `hang_file` where it hangs, and end.
        hang_file: takes a traceback.
    """
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What the configuration prints is nobody's answer.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    hang = Path(hang_file).open("w")  # noqa: SIM115 - for faulthandler, to the end of the process
    faulthandler.dump_traceback_later(hang_after_s, exit=True, file=hang)
    json.dump(_read(path), answer)
    answer.flush()
    # Threads or exit handlers of the configuration are not waited for.
    os._exit(0)


def _read(path: str) -> dict[str, Any]:
    finder = MissingModuleFinder(lambda: _imported_by(path))
    sys.meta_path.insert(0, ExperimentRunnerFinder())
    sys.meta_path.append(finder)
    sys.path += [str(Path(path).resolve().parent), str(Path.cwd())]
    sys.argv = ["experiment-runner", path]
    sys.addaudithook(_forbid_side_effects)
    step = "the import"
    try:
        name = Path(path).name.replace(".py", "")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # it ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        if not hasattr(module, "RunnerConfig"):
            return {"error": "it has no class RunnerConfig", "hint": "Experiment Runner looks for that name."}
        step = "RunnerConfig()"
        config = module.RunnerConfig()
        step = "create_run_table_model()"
        model = config.create_run_table_model()
        if not isinstance(model, RunTableModel):
            return {
                "error": f"create_run_table_model() returned {type(model).__name__}",
                "hint": "Return the RunTableModel that it makes.",
            }
        step = "the design"
        return _design(config, model) | {"stood_in": sorted(finder.missing)}
    except BaseException as error:  # noqa: BLE001 - also SystemExit: whatever it is, the parent tells it
        return _told(path, step, error)


def _imported_by(path: str) -> bool:
    """Whether the import under way is a line of the configuration, or of a file beside it."""
    folder = str(Path(path).resolve().parent)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith("<frozen") and file != __file__ and not file.endswith("stand_ins.py"):
            return file == path or (str(Path(file).parent) == folder and "site-packages" not in file)
        frame = frame.f_back
    return False


def _told(path: str, step: str, error: BaseException) -> dict[str, Any]:
    line: int | None = None
    if isinstance(error, SyntaxError) and error.filename == path:
        line = error.lineno
    else:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = own[-1].lineno if own else None
    message = str(error)
    if isinstance(error, SystemExit):
        told, hint = f"{step} ended the program with sys.exit({error.code!r})", "Move what ends it into a hook."
    elif _MARKER in message:
        told = f"{step} was stopped: {message.split(f'{_MARKER}: ')[1]}"
        hint = "Only the design is read here, and nothing may change by that: move it into a hook."
    elif isinstance(error, BaseError):
        told, hint = f"{step}: {message}", "Mend that line."
    else:
        told, hint = f"{step} failed with {type(error).__name__}: {message}", "Mend that line."
    return {"error": told, "line": line, "hint": hint}


def _design(config: Any, model: RunTableModel) -> dict[str, Any]:
    n_rows = 1
    for factor in model.factors:
        n_rows *= len(factor.treatments)
        if n_rows > MAX_ROWS:
            raise BaseError(f"the factors make more than {MAX_ROWS} treatments")
    hits = model.hits()
    excluded = set(hits)
    columns = list(model.data_columns)
    if getattr(config, "self_measure", False) is True and "self-measure" not in columns:
        columns.append("self-measure")
    return {
        "name": str(getattr(config, "name", "")),
        "pause_ms": getattr(config, "time_between_runs_in_ms", 0),
        "results_output_path": str(getattr(config, "results_output_path", "")),
        "is_semi": getattr(getattr(config, "operation_type", None), "name", "AUTO") == "SEMI",
        "factors": [
            {"name": factor.factor_name, "levels": [_level(factor.factor_name, each) for each in factor.treatments]}
            for factor in model.factors
        ],
        "repetitions": model.repetitions,
        "data_columns": columns,
        "shuffle": bool(model.shuffle),
        "rows": model.rows(),
        "excluded": sorted(excluded),
        "kept_by_experiment_runner": _kept_by_experiment_runner(n_rows, hits),
        "keeps_model": getattr(config, "run_table_model", None) is model,
    }


def _kept_by_experiment_runner(n_rows: int, hits: list[int]) -> list[int] | None:
    """Which rows are left in Experiment Runner: it deletes by number, once per mark, from the highest mark down, so
    that a second mark of one row takes the row that has moved to its place. None: it fails with an IndexError."""
    left = list(range(n_rows))
    try:
        for number in sorted(hits, reverse=True):
            del left[number]
    except IndexError:
        return None
    return left


def _level(factor: str, level: Any) -> dict[str, Any]:
    if isinstance(level, Nothing):
        raise BaseError(
            f"a level of the factor {factor!r} comes from {level.told}, which is not installed here. Install its "
            "package beside joulebed"
        )
    if isinstance(level, bool | int | float | str):
        plain: Any = level
        for kind in (bool, int, float, str):  # of a subclass, such as numpy's float64 or a StrEnum, the value
            if isinstance(level, kind):
                plain = kind(level) if str(kind(level)) == str(level) else str(level)
                break
        return {"value": plain, "is_text_of": None if type(plain) is not str or isinstance(level, str) else "level"}
    return {"value": str(level), "is_text_of": type(level).__name__}

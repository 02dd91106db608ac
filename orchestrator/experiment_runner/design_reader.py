"""The design of a configuration of Experiment Runner, read in a process of its own: see `reading.read_config`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import orchestrator
from contract.errors import ConfigError
from contract.units import Scalar

READ_S = 30.0
"""A configuration that takes longer to import hangs."""

_GRACE_S = 5.0
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1])\n"
    "from orchestrator.experiment_runner.reading.read_config import main\n"
    "main(sys.argv[2], float(sys.argv[3]), sys.argv[4])"
)


class ReadLevel(BaseModel):
    """A level of a factor.

    Attributes:
        value: as it goes into the run table.
        is_text_of: type of the object whose text this is; None: it is the level itself.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    value: Scalar
    is_text_of: str | None = None


class ReadFactor(BaseModel):
    """A factor, with its levels in order."""

    model_config = ConfigDict(frozen=True, strict=True)

    name: str
    levels: list[ReadLevel]


class ReadDesign(BaseModel):
    """What a configuration declares, and what Experiment Runner would make of it.

    Attributes:
        name: of the experiment.
        pause_ms: between runs.
        results_output_path: of Experiment Runner, absolute or from where it is started.
        is_semi: a person starts every run there.
        factors: in column order.
        repetitions: of every treatment.
        data_columns: of its run table, in order; with EnergiBridge's, where it measures itself.
        shuffle: whether the order is random.
        rows: the full factorial, as numbers of levels, in its order.
        excluded: numbers of the rows that any exclusion names.
        kept_by_experiment_runner: numbers of the rows that it would keep itself; None: it would fail.
        keeps_model: whether `run_table_model` is set, without which Experiment Runner cannot restart.
        stood_in: packages that are not installed here and that the configuration imports.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pause_ms: float
    results_output_path: str
    is_semi: bool
    factors: list[ReadFactor]
    repetitions: int
    data_columns: list[str]
    shuffle: bool
    rows: list[tuple[int, ...]]
    excluded: list[int]
    kept_by_experiment_runner: list[int] | None
    keeps_model: bool
    stood_in: list[str]

    def treatment(self, row: int) -> dict[str, Scalar]:
        """Factor -> level of a row of the full factorial."""
        return {
            factor.name: factor.levels[level].value for factor, level in zip(self.factors, self.rows[row], strict=True)
        }


def read_design(path: Path, *, read_s: float = READ_S) -> ReadDesign:
    """Read a configuration's design without Experiment Runner; nothing of the configuration runs in this process.

    Args:
        path: the configuration.
        read_s: how long it may take.

    Raises:
        ConfigError: it cannot be read, fails, ends or hangs; the message names file and line.
    """
    text = read_text(path)
    _compile(path, text)
    with tempfile.TemporaryDirectory() as scratch:
        hang_file = Path(scratch) / "hang.txt"
        package_root = Path(orchestrator.__file__).resolve().parents[1]
        # -B writes no .pyc files beside the configuration; -P keeps the present folder out of the first place.
        command = [sys.executable, "-B", "-P", "-c", _PROGRAM, package_root, path, read_s, hang_file]
        try:
            done = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=read_s + _GRACE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _hangs(path, hang_file, read_s) from error
        if done.returncode == 1 and _told(hang_file):
            raise _hangs(path, hang_file, read_s)
    return _answer(path, done)


def read_text(path: Path) -> str:
    """The configuration's text.

    Raises:
        ConfigError: there is no such file, or it is no Python file.
    """
    if not path.exists():
        raise ConfigError(f"There is no configuration {path}. Give the path of Experiment Runner's RunnerConfig.py.")
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"{path} is not a Python file. A configuration of Experiment Runner ends in .py.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def _compile(path: Path, text: str) -> None:
    try:
        compile(text, str(path), "exec")
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}: {line!r}. Mend the syntax.") from error
    except ValueError as error:  # null bytes
        raise ConfigError(f"{path} is not Python source: {error}.") from error


def _told(hang_file: Path) -> str:
    try:
        return hang_file.read_text(errors="replace")
    except OSError:
        return ""


def _hangs(path: Path, hang_file: Path, read_s: float) -> ConfigError:
    mark = f'File "{path}", line '
    lines = [text.split(mark)[1].split()[0] for text in _told(hang_file).splitlines() if mark in text]
    where = f"{path}, line {lines[0]}" if lines else str(path)
    return ConfigError(
        f"{where}: the configuration is not read after {read_s:g} s: it hangs. Only its import, RunnerConfig() and "
        "create_run_table_model() are run; move what waits into a hook."
    )


def _answer(path: Path, done: "subprocess.CompletedProcess[bytes]") -> ReadDesign:
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = f" ({last[0]})" if last else ""
        raise ConfigError(
            f"{path}: its process ended with exit code {done.returncode} and told nothing{why}. Look for what ends "
            "it at import, such as os._exit() or a crash of an imported package."
        ) from error
    if "error" in answer:
        line = answer.get("line")
        where = f"{path}, line {line}" if line else str(path)
        raise ConfigError(f"{where}: {str(answer['error']).rstrip('.')}. {answer['hint']}")
    try:
        return ReadDesign.model_validate(answer)
    except ValidationError as error:
        item = error.errors()[0]
        raise ConfigError(
            f"{path}: {'.'.join(map(str, item['loc']))} of its design is {item['input']!r}: {item['msg']}. Mend it."
        ) from error

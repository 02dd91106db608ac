"""From a Python file to a configuration, with errors that name the user's own line."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from contract.errors import ConfigError, JouleBedError
from contract.units import sha256_of
from orchestrator.config import RunnerConfig
from orchestrator.experiment_runner.reading.stand_ins import PACKAGES as EXPERIMENT_RUNNER_PACKAGES

CLASS_NAME = "RunnerConfig"


def load_config(path: Path) -> tuple[RunnerConfig, str]:
    """Load the class `RunnerConfig` of a file and build it.

    The file may import its neighbours; its folder is on the module path only while it is loaded.

    Args:
        path: a Python file.

    Returns:
        The configuration, and the text of the file.

    Raises:
        ConfigError: the file is missing, is not Python, raises, or has no such class.
    """
    text = _read(path)
    module = _execute(path, text)
    found = getattr(module, CLASS_NAME, None)
    if found is None:
        raise ConfigError(f"{path} has no class {CLASS_NAME}. Define one, as runnerconfig/quickstart.py does.")
    if not (isinstance(found, type) and issubclass(found, RunnerConfig) and found is not RunnerConfig):
        raise ConfigError(
            f"{CLASS_NAME} in {path} does not derive from orchestrator.config.RunnerConfig. "
            "See runnerconfig/quickstart.py for the shape."
        )
    try:
        return found(), text
    except Exception as error:
        raise _at_line(path, error, f"{CLASS_NAME}() failed") from error


def _read(path: Path) -> str:
    if not path.exists():
        raise ConfigError(f"There is no configuration {path}. Give the path of a .py file.")
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"{path} is not a Python file. A configuration is a .py file with a class {CLASS_NAME}.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def _execute(path: Path, text: str) -> ModuleType:
    try:
        code = compile(text, str(path), "exec")
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}: {line!r}. Mend the syntax.") from error
    except ValueError as error:  # null bytes
        raise ConfigError(f"{path} is not Python source: {error}.") from error
    name = f"joulebed_config_{sha256_of(str(path.resolve()))[:12]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None  # given a name, it always is
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    # Dataclasses and typing look a class's module up by name while the file runs.
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise _at_line(path, error, "the configuration failed") from error
    finally:
        if folder in sys.path:  # the configuration may have changed the path itself
            sys.path.remove(folder)
        sys.modules.pop(name, None)
    return module


def _at_line(path: Path, error: BaseException, what: str) -> ConfigError:
    """Names the last line of the user's file on the way to the error."""
    if isinstance(error, JouleBedError):  # says by itself what is wrong
        return ConfigError(f"{path}: {error.message}")
    if isinstance(error, ModuleNotFoundError) and error.name in EXPERIMENT_RUNNER_PACKAGES:
        return ConfigError(
            f"{path}: This is a configuration of Experiment Runner: give it with --experiment-runner-config {path} "
            "--spec TEMPLATE. See docs/experiment-runner.md."
        )
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {own[-1].lineno}" if own else str(path)
    return ConfigError(f"{where}: {what} with {type(error).__name__}: {error}. Mend that line.")

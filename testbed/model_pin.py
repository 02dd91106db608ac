"""Which commit of a Hugging Face repository this testbed uses: written when it is downloaded, kept from then on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import UsageError
from contract.units import WireModel
from testbed.attempt_folder import write_atomic

PINS_VARIABLE = "JOULEBED_MODEL_PINS"
"""Environment variable with the file's path."""


class ModelPin(WireModel):
    """One repository that was downloaded whole and checked."""

    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit."""
    n_bytes: int = Field(ge=0)
    """Size of the files that were taken."""


_PINS = TypeAdapter(dict[str, ModelPin])


def read_pins(path: Path) -> dict[str, ModelPin]:
    """Repository -> what was downloaded; empty where there is no file.

    Raises:
        UsageError: the file is not one of these.
    """
    try:
        return _PINS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValidationError, OSError) as error:
        raise UsageError(
            f"{path} does not hold the downloaded models' commits ({error}). Delete it and run init_env.sh again: "
            "what is on the disk is found again."
        ) from error


def write_pin(path: Path, repository: str, pin: ModelPin) -> None:
    """Add or replace one repository; the file is whole at any time."""
    pins = {**read_pins(path), repository: pin}
    document = {name: each.model_dump(mode="json") for name, each in sorted(pins.items())}
    write_atomic(path, json.dumps(document, indent=1) + "\n")


def pinned_revision(repository: str, env: Mapping[str, str] | None = None) -> str | None:
    """The commit that a trial without a revision of its own uses; None where nothing is pinned.

    Args:
        repository: ORG/NAME.
        env: environment; None means this process's.

    Raises:
        UsageError: the file that the environment names is not one of these.
    """
    named = (os.environ if env is None else env).get(PINS_VARIABLE)
    pin = read_pins(Path(named)).get(repository) if named else None
    return pin.revision if pin else None

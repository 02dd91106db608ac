"""Models of a device's latency and power: grids over clock and batch that are monotone, kept as JSON.

A model holds no formula that a later version could read differently: its values at every measured clock and every
batch up to the largest. JSON keeps each number exactly, so what is loaded predicts what was saved, to the last bit.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from contract.errors import JouleBedError, UsageError
from contract.units import Sha256, WireModel
from control.profile_table import LengthPair, cell_name
from testbed.simulation.service_table import ServiceTable

Quantity = Literal["latency_s", "power_w"]
QUANTITIES: tuple[Quantity, ...] = ("latency_s", "power_w")


class DeviceModelError(JouleBedError):
    """A device model cannot be made, read, or asked this."""

    code = "device_model"
    http_status = 400


class HeldOutCell(WireModel):
    """One cell, told by a fit that never saw it."""

    clock_mhz: float
    batch_size: int
    measured: float
    predicted: float
    """By the way that the other folds chose."""

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted / self.measured - 1


class HeldOutErrors(WireModel):
    """What cross-validation found. All errors are shares of the measured value, of cells that were held out."""

    n_cells: int
    n_folds: int
    """Equal to `n_cells`: leave-one-out."""
    seed: int
    mape: float
    """Mean absolute error in shares, over cells; the way to fit was chosen fold by fold on the others."""
    median: float
    p90: float
    largest: float
    mape_with_outliers: float
    """The same with the cells that were left out of the fit, as the model tells them: none of them is in it."""
    mape_by_way: dict[str, float]
    """Of each way to fit."""
    mape_unseen_batch: float | None = None
    """Of whole batch sizes that were held out, inner ones: what it costs to fill in batches. None: too few."""
    mape_unseen_clock: float | None = None
    """The same of clocks."""
    cells: list[HeldOutCell]


class Outlier(WireModel):
    """A cell that is in no fit."""

    clock_mhz: float
    batch_size: int
    quantity: Quantity
    measured: float
    predicted: float
    """By all other cells."""
    z: float
    """Its residual in robust standard deviations."""
    reason: str


class QuantityModel(WireModel):
    """One quantity over clock and batch."""

    way: str
    """How it was fitted: the one of the least held-out error."""
    values: list[list[float]]
    """Shape (clocks, batches); in s or W."""
    held_out: HeldOutErrors


class LengthModel(WireModel):
    """Latency and power for one pair of lengths."""

    n_input_tokens: int | None
    n_output_tokens: int | None
    clock_mhz: list[float] = Field(min_length=1)
    """Measured ones, rising."""
    batch_sizes: list[int] = Field(min_length=1)
    """Every one from the smallest measured to the largest."""
    measured_batch_sizes: list[int]
    latency_s: QuantityModel
    power_w: QuantityModel
    outliers: list[Outlier]
    limitations: list[str]
    """What this model cannot tell, in sentences."""

    @model_validator(mode="after")
    def _is_physical(self) -> Self:
        shape = (len(self.clock_mhz), len(self.batch_sizes))
        if np.any(np.diff(self.clock_mhz) <= 0) or np.any(np.diff(self.batch_sizes) != 1):
            raise ValueError("clock_mhz must rise, and batch_sizes rise by one")
        for name in QUANTITIES:
            values = np.array(self.quantity(name).values)
            if values.shape != shape or not (values > 0).all():
                raise ValueError(f"{name} must hold {shape[0]} x {shape[1]} numbers above 0")
            along_clock = np.diff(values, axis=0) * (-1 if name == "latency_s" else 1)
            if (along_clock < 0).any() or (np.diff(values, axis=1) < 0).any():
                raise ValueError(f"{name} is not monotone in clock and batch")
        return self

    @property
    def lengths(self) -> LengthPair:
        """Tokens in and out."""
        return self.n_input_tokens, self.n_output_tokens

    def quantity(self, name: Quantity) -> QuantityModel:
        """Latency or power."""
        return self.latency_s if name == "latency_s" else self.power_w

    def predict(self, name: Quantity, clock_mhz: float, batch_size: int) -> float:
        """A value; between measured clocks it is linear.

        Args:
            name: `latency_s` or `power_w`.
            clock_mhz: within the measured ones.
            batch_size: the same.

        Raises:
            DeviceModelError: outside: nothing is known there.
        """
        if not self.clock_mhz[0] <= clock_mhz <= self.clock_mhz[-1]:
            raise DeviceModelError(
                f"{clock_mhz:g} MHz is outside of the measured clocks, {self.clock_mhz[0]:g} to "
                f"{self.clock_mhz[-1]:g} MHz: the model says nothing there. Profile that clock, or choose one within."
            )
        if batch_size not in range(self.batch_sizes[0], self.batch_sizes[-1] + 1):
            raise DeviceModelError(
                f"A batch of {batch_size} is outside of the measured ones, {self.batch_sizes[0]} to "
                f"{self.batch_sizes[-1]}: the model says nothing there. Profile that batch, or choose one within."
            )
        column = np.array(self.quantity(name).values)[:, batch_size - self.batch_sizes[0]]
        return float(np.interp(clock_mhz, self.clock_mhz, column))

    def service_table(
        self, source: str, clock_mhz: list[float] | None = None, *, is_clock_left_alone: bool = False
    ) -> ServiceTable:
        """Every batch size from 1 to the largest, at each clock.

        Args:
            source: what the table says of where it came from.
            clock_mhz: rising; None: the measured ones.
            is_clock_left_alone: one clock is what was meant, see `ServiceTable`.

        Raises:
            DeviceModelError: a clock outside, batch 1 was not measured, or one clock where several were meant, or the
                other way round.
        """
        if self.batch_sizes[0] != 1:
            raise DeviceModelError(
                f"The smallest measured batch is {self.batch_sizes[0]}, and a queue can be shorter. Profile batch 1."
            )
        clocks = self.clock_mhz if clock_mhz is None else clock_mhz
        if is_clock_left_alone != (len(clocks) == 1):
            raise DeviceModelError(
                f"The table would have {len(clocks)} clock(s), from {clocks[0]:g} MHz on. "
                + (
                    "There is a clock to choose: leave out --clock-left-alone."
                    if is_clock_left_alone
                    else "There is nothing to choose between: profile two clocks at least. Where nobody sets the "
                    "clock, --clock-left-alone writes a table for policies that choose batches alone."
                )
            )
        grids = {
            name: np.array([[self.predict(name, clock, batch) for batch in self.batch_sizes] for clock in clocks])
            for name in QUANTITIES
        }
        return ServiceTable(
            clock_mhz=np.array(clocks, dtype=float),
            batch_sizes=np.array(self.batch_sizes),
            latency_s=grids["latency_s"],
            power_w=grids["power_w"],
            source=source,
            is_clock_left_alone=is_clock_left_alone,
            n_input_tokens=self.n_input_tokens,
            n_output_tokens=self.n_output_tokens,
        )


class DeviceModel(WireModel):
    """Latency and power of a device and a model, for each pair of lengths that was profiled."""

    format: Literal["joulebed-device-model"] = "joulebed-device-model"
    version: Literal[1] = 1
    source: str
    """Where the profile came from."""
    profile_sha256: Sha256
    power_of: str
    """`gpu` or `total`: see the profile."""
    is_estimate: bool
    """Whether any power was computed from a model instead of measured: then so is all that comes of it."""
    methods: list[str]
    """Energy methods of the profile."""
    lengths: list[LengthModel] = Field(min_length=1)

    def of_lengths(self, n_input_tokens: int | None = None, n_output_tokens: int | None = None) -> LengthModel:
        """The model of one pair; None where there is no choice.

        Raises:
            DeviceModelError: there is no such pair, or more than one to choose from.
        """
        found = [
            each
            for each in self.lengths
            if n_input_tokens in (None, each.n_input_tokens) and n_output_tokens in (None, each.n_output_tokens)
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{each.n_input_tokens}/{each.n_output_tokens}" for each in self.lengths)
        asked = f"{n_input_tokens or 'any'}/{n_output_tokens or 'any'}"
        raise DeviceModelError(
            f"The device model has {len(found) or 'no'} pairs of input/output lengths for {asked}. It has {known}: "
            "name one of them (--input-len, --output-len)."
        )

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}). Give another file with -o.") from error


def read_device_model(path: Path) -> DeviceModel:
    """Read what `DeviceModel.write` wrote; every number as it was.

    Raises:
        DeviceModelError: it cannot be read, or is no device model: other fields, a version to come, a grid that is
            not monotone.
    """
    try:
        return DeviceModel.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        told = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, told['loc']))}: {told['msg']}" if told else str(error)
        raise DeviceModelError(
            f"{path} is no device model of this version ({why}). Make one: python -m control fit PROFILE.csv -o {path}"
        ) from error


def outlier_text(outlier: Outlier) -> str:
    """An outlier in a line."""
    return f"{cell_name(outlier.clock_mhz, outlier.batch_size)}: {outlier.reason}"

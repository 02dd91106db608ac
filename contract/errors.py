"""One error root, one code per class, and the body that carries an error over the wire.

Exceptions do not cross the network: the testbed answers an `ErrorBody`, and the client turns its code back
into the same class. A message says what happened and what to do next.
"""

import os
from typing import Any, ClassVar

from pydantic import Field

from contract.log_line import hide, hide_within, secret_values
from contract.units import WireModel


class ErrorBody(WireModel):
    """What is told of an error, on the wire and in the run table."""

    code: str
    """Stable identifier, one per error class, such as `model_not_found`."""
    message: str
    """One or two sentences for a person: what happened, and the next step."""
    detail: dict[str, Any] = Field(default_factory=dict)
    """Machine-readable context, such as the signal, or the tail of a log. Never a secret."""
    retryable: bool = False
    """Whether the same request may succeed later with nothing changed."""


class JouleBedError(Exception):
    """Root of all errors that JouleBed raises on purpose.

    Args:
        message: what happened, and what to do next.
        **detail: machine-readable context; must be JSON.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail

    def body(self) -> ErrorBody:
        """The wire form, without the secrets of this process's environment: a message may quote another program's."""
        secrets = secret_values(os.environ)
        return ErrorBody(
            code=self.code,
            message=hide(self.message, secrets),
            detail=hide_within(self.detail, secrets),
            retryable=self.retryable,
        )


class UsageError(JouleBedError):
    """What the user asked for cannot be done as asked; nothing was written. Exit code 2."""

    code = "usage"
    http_status = 400


class ConfigError(UsageError):
    """An experiment configuration is wrong."""

    code = "config"


class PlanChangedError(UsageError):
    """An experiment of this name exists with another plan."""

    code = "plan_changed"


class InvalidRequestError(JouleBedError):
    """The request does not fit the contract."""

    code = "invalid_request"
    http_status = 422


class UnauthorizedError(JouleBedError):
    """The bearer token is missing or wrong."""

    code = "unauthorized"
    http_status = 401


class TooManyFailuresError(JouleBedError):
    """Too many wrong tokens came from one address: it has to wait."""

    code = "too_many_failures"
    http_status = 429
    retryable = True


class TooManyListenersError(JouleBedError):
    """As many listen to the telemetry already as are allowed to."""

    code = "too_many_listeners"
    http_status = 503
    retryable = True


class ProtocolMismatchError(JouleBedError):
    """The two nodes speak different versions of the contract."""

    code = "protocol_mismatch"
    http_status = 426


class AttemptNotFoundError(JouleBedError):
    """The testbed does not know this attempt, or this artifact of it."""

    code = "attempt_not_found"
    http_status = 404


class AttemptConflictError(JouleBedError):
    """The same attempt id was submitted with another spec."""

    code = "attempt_conflict"
    http_status = 409


class AttemptNotFinishedError(JouleBedError):
    """A result was asked for before there is one."""

    code = "attempt_not_finished"
    http_status = 409
    retryable = True


class TestbedBusyError(JouleBedError):
    """The testbed runs another trial: it runs one at a time."""

    code = "testbed_busy"
    http_status = 409
    retryable = True

    __test__ = False  # not a pytest class


class DeviceNotRestoredError(TestbedBusyError):
    """An earlier trial's setting of a device could not be undone: nothing is measured until a person mended it, and
    the message says how. A campaign waits, as for any busy testbed."""

    code = "device_not_restored"
    http_status = 503


class TestbedUnreachableError(JouleBedError):
    """No answer from the testbed."""

    code = "testbed_unreachable"
    http_status = 503
    retryable = True

    __test__ = False


class TestbedRestartedError(JouleBedError):
    """The testbed was restarted while the trial ran, and the trial did not survive it."""

    code = "testbed_restarted"
    retryable = True

    __test__ = False


class StorageError(JouleBedError):
    """The testbed's data folder cannot be written: read-only, or its disk fails. A person has to look."""

    code = "storage"
    http_status = 507
    retryable = True


class DiskFullError(StorageError):
    """The testbed's disk is full; the message says how to make room."""

    code = "disk_full"


class ArtifactCorruptError(JouleBedError):
    """An artifact's size or checksum is not what the result says."""

    code = "artifact_corrupt"
    retryable = True


class MissingPackageError(JouleBedError):
    """An implementation needs a package that is not installed; the message names the extra."""

    code = "missing_package"
    http_status = 422


class UnknownNameError(JouleBedError):
    """No engine, meter, workload or task of this name."""

    code = "unknown_name"
    http_status = 422


class InvalidOptionError(JouleBedError):
    """An option of an engine, meter or workload is unknown or out of range."""

    code = "invalid_option"
    http_status = 422


class ModelNotFoundError(JouleBedError):
    """The model's files are not on the testbed."""

    code = "model_not_found"
    http_status = 422


class ModelNotAllowedError(JouleBedError):
    """The testbed's allow-list does not have this model."""

    code = "model_not_allowed"
    http_status = 422


class ModelLoadError(JouleBedError):
    """The engine could not load the model."""

    code = "model_load"


class WorkloadNotFoundError(JouleBedError):
    """The workload's items are not on the testbed."""

    code = "workload_not_found"
    http_status = 422


class EngineError(JouleBedError):
    """The engine failed while generating."""

    code = "engine"
    retryable = True


class MeterUnavailableError(JouleBedError):
    """A meter that was asked for cannot measure on this machine; the message says how to mend it."""

    code = "meter_unavailable"
    http_status = 422


class MeterError(JouleBedError):
    """A meter failed during the trial."""

    code = "meter"
    retryable = True


class ActuatorUnavailableError(JouleBedError):
    """A setting was asked for that this machine forbids, or has no device for; nothing was touched."""

    code = "actuator_unavailable"
    http_status = 422


class ActuatorError(JouleBedError):
    """A device refused a setting, or does not answer. What was set is put back."""

    code = "actuator"
    retryable = True


class LogFormatError(JouleBedError):
    """A log cannot be read; `detail` names file and line."""

    code = "log_format"


class ChildDiedError(JouleBedError):
    """The trial's process ended without a result; `detail` has its exit status or signal and its last output."""

    code = "child_died"
    retryable = True


class MemoryExhaustedError(JouleBedError):
    """The machine's or the GPU's memory ran out; `detail.memory` says which, where it is known.

    Not retried: the same trial needs the same memory again.
    """

    code = "out_of_memory"


class DeviceError(JouleBedError):
    """The GPU, or its driver, failed under the trial; `detail` has the words that say so."""

    code = "device_error"
    retryable = True


class DeadlineExceededError(JouleBedError):
    """A phase, or the whole trial, took longer than its limit; `detail.deadline` names the limit."""

    code = "deadline_exceeded"
    retryable = True


def wire_errors() -> dict[str, type[JouleBedError]]:
    """Code -> class, of the classes here: only they cross the wire."""
    return {
        each.code: each for each in globals().values() if isinstance(each, type) and issubclass(each, JouleBedError)
    }


def error_from_body(body: ErrorBody) -> JouleBedError:
    """The exception that a body stands for.

    A code from a newer node becomes the root class, with the code and whether it is retryable in `detail`.
    """
    known = wire_errors().get(body.code)
    error = (known or JouleBedError)(body.message)
    error.detail = body.detail if known else {**body.detail, "code": body.code, "retryable": body.retryable}
    return error

"""All devices of a trial as one engine: loaded side by side, started on a barrier, marked each on its own."""

import os
import queue
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import JsonValue

from contract.errors import (
    ErrorBody,
    InvalidOptionError,
    InvalidRequestError,
    JouleBedError,
    MemoryExhaustedError,
    error_from_body,
)
from contract.trial_result import LoadReport, SuspectReason, TaskScore
from contract.trial_spec import DeviceSpec, ModelSpec, TrialSpec
from testbed import attempt_folder
from testbed.attempt_folder import DeviceRecord
from testbed.child_log import log_tail
from testbed.child_verdict import count_oom_kills, death
from testbed.clock import Clock
from testbed.device_group.member import COMMAND, ENDED, Heard, Member
from testbed.device_group.messages import Message, pack_requests, unpack_completions
from testbed.device_group.pinning import count_gpus, refuse_missing, usable_cores
from testbed.engines.base import NOT_TAKEN, Completion, GenerationRequest

_AHEAD_NS = 30_000_000
"""From the order to start to the common instant: longer than the order takes to reach the last device."""

_LATE_S = 0.1
"""A device that starts later than this did not start with the others."""

_GRACE_S = 20.0
"""For a device to free its engine."""

_SEARCHED_BYTES = 2**18


@dataclass(frozen=True)
class DeviceAnswers:
    """What one device did between its marks.

    Attributes:
        device: its name.
        completions: in the order of the requests.
        start_ns: monotonic.
        end_ns: monotonic.
    """

    device: str
    completions: list[Completion]
    start_ns: int
    end_ns: int


class DeviceGroup:
    """See `Engine`; besides, `drive` is `generate` with the answers and marks of each device.

    Every device answers all requests, with the same seeds. When one fails, all are ended at once: what the others
    would still measure is measured without their neighbour.

    Args:
        spec: of the trial, with devices.
        log: child.log of the attempt, where the devices print.
        clock: of this machine.
        environ: of this process.
        command: what runs a device's process.
        n_gpus: of this machine.
        cores: that this process may run on.
        oom_kills: see `testbed.child_verdict.count_oom_kills`.

    Raises:
        UnknownNameError: a device is not here.
    """

    name = "devices"

    def __init__(
        self,
        spec: TrialSpec,
        *,
        log: Path,
        clock: Clock,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        n_gpus: int | None = None,
        cores: Collection[int] | None = None,
        oom_kills: Callable[[], int | None] = count_oom_kills,
    ) -> None:
        self._spec = spec
        self._log = log
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._command = command
        self._oom_kills = oom_kills
        self._oom_kills_before: int | None = None
        self._heard: queue.Queue[Heard] = queue.Queue()
        self._members: list[Member] = []
        self.on_wait: Callable[[Sequence[str]], None] = lambda names: None
        """Told which devices are waited for, whenever that changes."""
        refuse_missing(
            spec.devices,
            n_gpus=count_gpus() if n_gpus is None else n_gpus,
            cores=usable_cores() if cores is None else cores,
            environ=self._environ,
        )

    @property
    def records(self) -> list[DeviceRecord]:
        """What each device did so far; empty before the load."""
        return [member.record for member in self._members]

    @property
    def pids(self) -> dict[str, int]:
        """Device -> its process."""
        return {member.name: member.pid for member in self._members}

    @property
    def reasons(self) -> list[SuspectReason]:
        """Why the comparison of the devices is doubted."""
        return [
            SuspectReason(
                code="device_late",
                message=f"Device {record.device} started {record.late_s:.3f} s after the common instant: for that long "
                "the others ran without it.",
            )
            for record in self.records
            if record.late_s is not None and record.late_s > _LATE_S
        ]

    def begin_trial(self, log: Path) -> None:
        """Another trial is about to use the devices, which may be loaded already.

        Args:
            log: its child.log.
        """
        self._log = log
        for member in self._members:
            member.record = DeviceRecord(device=member.name, load=member.record.load)
            member.tell({"what": "log", "path": str(log)})

    def check(self, model: ModelSpec) -> None:
        """See `Engine`: each device's own engine is asked, about its own model; `model` is the trial's."""
        from testbed.engines.build import build_engine

        for device in self._spec.devices:
            own = self._spec.for_device(device)
            try:
                build_engine(own, gpu=device.gpu_index).check(own.model)
            except JouleBedError as error:
                raise _named(device, error) from error

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`; all devices load at the same time, each what the trial's spec says of it.

        Raises:
            JouleBedError: what a device's engine raised, with the device named.
        """
        start_ns = self._clock.monotonic_ns()
        self._oom_kills_before = self._oom_kills()
        self._members = [Member(device, self._heard, self._environ, self._command) for device in self._spec.devices]
        for member in self._members:
            own = self._spec.for_device(member.device)
            member.tell({"what": "load", "spec": own.model_dump(mode="json")})
            _say(f"Device {member.name}: process {member.pid}")
        for member, message in self._await("loaded", "loading"):
            member.note(load=LoadReport.model_validate(message["report"]))
            self._refuse_other_place(member)
        return self._joined((self._clock.monotonic_ns() - start_ns) / 1e9)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`; the answers are the first device's. For work that is not measured."""
        answers = self.drive(requests, concurrency=concurrency)[0]
        for done in answers.completions if on_completion is not None else ():
            on_completion(done)  # type: ignore[misc]
        return answers.completions

    def drive(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_done: Callable[[], None] = lambda: None,
    ) -> list[DeviceAnswers]:
        """Have every device answer all requests, from one instant on; blocking, without spinning.

        Args:
            requests: the same for all.
            concurrency: in flight on each device.
            on_done: called when a device has answered one.

        Returns:
            One for each device, in the order of the spec.

        Raises:
            JouleBedError: what a device's engine raised, with the device named.
        """
        if not self._members:
            raise InvalidRequestError("The devices have no model: call load() before generate().")
        order = {"what": "requests", "requests": pack_requests(requests), "concurrency": concurrency}
        for member in self._members:
            member.tell(order)
        self._await("ready", "taking their requests")
        start_ns = self._clock.monotonic_ns() + _AHEAD_NS
        for member in self._members:
            member.tell({"what": "go", "start_ns": start_ns})
        answers = {}
        for member, message in self._await("generated", "generating", on_done):
            done = unpack_completions(message["completions"])
            answers[member.name] = DeviceAnswers(member.name, done, message["start_ns"], message["end_ns"])
            member.note(
                start_s=message["start_ns"] / 1e9,
                end_s=message["end_ns"] / 1e9,
                late_s=max(message["start_ns"] - start_ns, 0) / 1e9,
                n_requests=len(done),
                n_output_tokens=sum(each.n_output_tokens for each in done),
                cpu_s=message["cpu_s"],
                memory_peak_bytes=message["memory_peak_bytes"],
            )
        return [answers[member.name] for member in self._members]

    def note_scores(self, scores: Mapping[str | None, TaskScore | None]) -> None:
        """What each device's answers were worth.

        Args:
            scores: device -> its score.
        """
        for member in self._members:
            member.note(score=scores.get(member.name))

    def close(self) -> None:
        """See `Engine`."""
        for member in self._members:
            member.tell({"what": "close"})  # all at once; each is waited for below
        for member in self._members:
            member.close(_GRACE_S)
        self._members = []

    def _await(self, what: str, doing: str, on_done: Callable[[], None] = lambda: None) -> list[tuple[Member, Message]]:
        """One message of this kind from each device: the barrier.

        A failure ends it at once; only whether the model fits is found out for every device, since that is a result.
        """
        self.on_wait([each.name for each in self._members])
        found: dict[str, tuple[Member, Message]] = {}
        failed: dict[str, JouleBedError] = {}
        while len(found) + len(failed) < len(self._members):
            heard = self._heard.get()
            member, message = heard.member, heard.message
            if member not in self._members or member.name in failed:
                continue  # of an engine that was closed since, or the end of a device that has told why
            if message["what"] == "done":
                on_done()
            elif message["what"] == what:
                found[member.name] = (member, message)
                if what != "ready":
                    _say(f"Device {member.name} is done {doing}")
                self.on_wait([each.name for each in self._members if each.name not in found])
            elif message["what"] in ("failed", ENDED):
                has_told = message["what"] == "failed"
                error = error_from_body(ErrorBody.model_validate(message["error"])) if has_told else self._death(member)
                failed[member.name] = named = _named(member.device, error)
                member.note(error=named.body())
                if what != "loaded" or not isinstance(named, MemoryExhaustedError):
                    break
        if failed:
            self._give_up(list(failed.values()))
        return [found[member.name] for member in self._members]

    def _give_up(self, errors: Sequence[JouleBedError]) -> NoReturn:
        """End all devices, and raise what they failed by."""
        for each in self._members:
            each.close(0.0)
        first = errors[0]
        if len(errors) == 1:
            raise first
        joined = type(first)(" ".join(error.message for error in errors))
        joined.detail = first.detail
        raise joined

    def _death(self, member: Member) -> JouleBedError:
        now = self._oom_kills()
        is_known = now is not None and self._oom_kills_before is not None
        return death(
            pid=member.pid,
            returncode=member.returncode,
            tail=log_tail(self._log),
            text="\n".join(log_tail(self._log, n_lines=_SEARCHED_BYTES, n_bytes=_SEARCHED_BYTES)),
            oom_kills=now - self._oom_kills_before if is_known else None,  # type: ignore[operator]
            what="Its process",
        )

    def _refuse_other_place(self, member: Member) -> None:
        """An engine that computes on the processor has no part in its GPU's energy."""
        load = member.record.load
        settings = load.settings if load is not None else {}
        told = {name: str(settings.get(name, "")) for name in ("device", "platform", "backend")}
        where = next((f"{name} {value}" for name, value in told.items() if value.startswith("cpu")), "")
        if member.device.gpu_index is not None and where:
            error = InvalidOptionError(
                f"Its engine loaded the model on the processor ({where}). Set the engine's options so that it uses the "
                "GPU (llama.cpp: n_gpu_layers), or install a build that can."
            )
            named = _named(member.device, error)
            member.note(error=named.body())
            self._give_up([named])

    def _joined(self, load_s: float) -> LoadReport:
        """One report for all: what differs is joined, and each device's own settings are under its name."""
        reports = {member.name: member.record.load for member in self._members}
        loads = {name: report for name, report in reports.items() if report is not None}
        lengths = [load.max_model_len for load in loads.values() if load.max_model_len is not None]
        not_taken: dict[str, JsonValue] = {}
        for name, load in loads.items():
            told = load.settings.get(NOT_TAKEN)
            not_taken |= (
                {f"{option} of {name}": text for option, text in told.items()} if isinstance(told, dict) else {}
            )

        def joined(field: str) -> str:
            return " + ".join(dict.fromkeys(str(getattr(load, field)) for load in loads.values()))

        return LoadReport(
            engine=joined("engine"),
            engine_version=joined("engine_version"),
            model_name=joined("model_name"),
            model_source=joined("model_source"),
            model_revision=joined("model_revision"),
            max_model_len=min(lengths, default=None),
            load_s=load_s,
            settings={"devices": {name: load.settings for name, load in loads.items()}, NOT_TAKEN: not_taken},
        )


def group_of(spec: TrialSpec, folder: Path, clock: Clock) -> DeviceGroup:
    """The devices of a trial.

    Args:
        spec: of the trial.
        folder: the attempt's.
        clock: of this machine.

    Raises:
        UnknownNameError: a device is not here.
    """
    return DeviceGroup(spec, log=folder / attempt_folder.CHILD_LOG, clock=clock)


def _named(device: DeviceSpec, error: JouleBedError) -> JouleBedError:
    """The same error, which says whose it is."""
    named = type(error)(f"Device {device.name}: {error.message}")
    named.detail = {**error.detail, "device": device.name}
    return named


def _say(text: str) -> None:
    """A line for child.log: where the trial stands, should it hang or be ended."""
    print(text, file=sys.stderr, flush=True)

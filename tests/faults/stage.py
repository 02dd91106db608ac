"""One campaign with its processes: started, struck, started again as a service manager or a person would."""

import contextlib
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.fault_proxy import FaultProxy
from tests.end_to_end.nodes import ROOT, Testbed, start_orchestrator
from tests.faults import processes
from tests.faults.experiment import NAME
from tests.faults.machines import ONE_MACHINE, Machines
from tests.faults.moments import Traces
from tests.faults.plan import Blow

STAND_IN = ROOT / "tests" / "stand_ins" / "energibridge"

_MOMENT_LIMIT_S = 60.0
_VICTIM_LIMIT_S = 60.0
_INTERRUPT_S = 120.0
_LIFE_S = 1.2
"""Of a trial's process, about."""
_MOST_UNASKED = 20
_POLL_S = 0.02
_RESTART_S = 1.0
"""Before an orchestrator that ended by itself is started again, as `RestartSec=1` of systemd."""


class CampaignStuckError(AssertionError):
    """A campaign did not come to its end."""


class Stage:
    """Nodes and processes of one campaign.

    Args:
        folder: of everything.
        config: the experiment's.
        n_orchestrators: that share the run table.
        n_testbeds: that are shared out among them.
        machines: where the nodes run.
        network: options of a `FaultProxy` between the nodes; None: there is nothing between them.
    """

    def __init__(
        self,
        folder: Path,
        config: Path,
        *,
        n_orchestrators: int = 1,
        n_testbeds: int = 1,
        machines: Machines = ONE_MACHINE,
        network: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.mark = uuid.uuid4().hex
        self._config = config
        self._machines = machines
        self._network = network
        self.proxy: FaultProxy | None = None
        environment = {processes.MARK: self.mark, "JOULEBED_ENERGIBRIDGE": str(STAND_IN)}
        self._environment = environment
        self.testbeds = [
            Testbed(
                _made(folder / f"box{number}"),
                host=machines.box_host,
                prefix=machines.box,
                extra_environment=environment,
            )
            for number in range(n_testbeds)
        ]
        self.orchestrators: list[subprocess.Popen[bytes] | None] = [None] * n_orchestrators
        self.struck: Counter[str] = Counter()
        """What was killed, per program."""
        self.moments: Counter[str] = Counter()
        """When, per moment."""
        self.unasked: Counter[int] = Counter()
        """Exit status of orchestrators that ended before the campaign did, and nobody killed -> how often."""
        self.missed: list[Blow] = []
        """Blows for which no victim was there."""

    @property
    def traces(self) -> Traces:
        """Of the first testbed."""
        return Traces(self.testbeds[0].folder / "testbed-data", self.results / NAME)

    @contextmanager
    def open(self) -> Iterator["Stage"]:
        """Start all nodes; at the end of the block, the testbeds are stopped in order, and the rest is killed."""
        with ExitStack() as stack:
            stack.enter_context(self._all_ended())
            for testbed in self.testbeds:
                testbed.start()
            if self._network is not None:
                self.proxy = stack.enter_context(FaultProxy(self.testbeds[0].url, **self._network))
            for number in range(len(self.orchestrators)):
                self.start_orchestrator(number)
            yield self
            for testbed in self.testbeds:
                testbed.stop()

    @contextmanager
    def _all_ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            # An orphan is counted by the audit, before this.
            self.leftovers = processes.wait_until_none(self.mark, 15.0 if self.is_over() else 0.0)
            for each in processes.find(self.mark):
                processes.kill(each.pid)
            for process in [*self.orchestrators, *(testbed.process for testbed in self.testbeds)]:
                if process is not None:
                    process.wait(30)

    def start_orchestrator(self, number: int = 0) -> None:
        """Start it, or start it again."""
        testbed = self.testbeds[number % len(self.testbeds)]
        self.orchestrators[number] = start_orchestrator(
            self._config,
            self.proxy.url if self.proxy is not None else testbed.url,
            self.results,
            prefix=self._machines.vps,
            extra_environment=self._environment,
        )

    def is_over(self) -> bool:
        """Whether every orchestrator has ended the campaign; with 1, where a run has failed for good."""
        statuses = [process.poll() if process is not None else None for process in self.orchestrators]
        if any(status not in (0, 1) for status in statuses):
            return False
        return all(status == 0 for status in statuses) or self.traces.n_left() == 0

    def tend(self) -> None:
        """Start again what ended by itself, after a pause, as a service manager does."""
        for number, process in enumerate(self.orchestrators):
            status = process.poll() if process is not None else None
            if status is not None and status != 0:
                self.unasked[status] += 1
                if self.unasked.total() > _MOST_UNASKED:
                    raise CampaignStuckError(f"the orchestrator ends by itself, again and again: {self.log_tail()}")
                time.sleep(_RESTART_S)
                self.start_orchestrator(number)
        for testbed in self.testbeds:
            if testbed.process is not None and testbed.process.poll() is not None:
                raise CampaignStuckError(f"the testbed ended by itself: {self.log_tail()}")

    def finish(self, limit_s: float) -> None:
        """Tend until the campaign is over.

        Raises:
            CampaignStuckError: it is not, after the limit.
        """
        end_s = time.monotonic() + limit_s
        while not self.is_over():
            if time.monotonic() > end_s:
                raise CampaignStuckError(f"not over after {limit_s:g} s: {self.log_tail()}")
            self.tend()
            time.sleep(_POLL_S)

    def strike(self, blow: Blow, n_runs: int, limit_s: float) -> None:
        """Wait for a blow's time, and deal it.

        Raises:
            CampaignStuckError: the campaign does not come so far within the limit.
        """
        end_s = time.monotonic() + limit_s
        while self.traces.n_done() < blow.after_share * n_runs and not self.is_over():
            if time.monotonic() > end_s:
                raise CampaignStuckError(f"no progress for {limit_s:g} s: {self.log_tail()}")
            self.tend()
            time.sleep(_POLL_S)
        if blow.moment != "any":
            self.traces.wait_for(blow.moment, _MOMENT_LIMIT_S, self.is_over)
        time.sleep(blow.delay_s)
        if blow.victim in ("runner", "energibridge"):
            self._kill_part(blow)
        elif blow.victim in ("ctrl_c", "ctrl_c_twice"):
            self._interrupt(blow)
        else:
            self._kill_nodes(blow)

    def log_tail(self, n_lines: int = 30) -> str:
        """The last lines of all nodes' logs."""
        texts = []
        for path in (self.results / "orchestrator.log", *(each.folder / "testbed.log" for each in self.testbeds)):
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()[-n_lines:]
                texts.append(f"--- {path}\n" + "\n".join(lines))
        return "\n".join(texts)

    def _kill_part(self, blow: Blow) -> None:
        end_s = time.monotonic() + _VICTIM_LIMIT_S
        is_old = True
        while time.monotonic() < end_s and not self.is_over():
            victims = [each for each in processes.find(self.mark) if each.kind == blow.victim]
            if victims and not is_old:
                # One that was waited for has just begun: any instant of its life is wanted.
                time.sleep(blow.delay_s * _LIFE_S)
                is_old = True
            elif victims and processes.kill(victims[0].pid):
                self._count(blow, blow.victim)
                return
            else:
                is_old = False
                self.tend()
                time.sleep(0.01)
        self.missed.append(blow)

    def _interrupt(self, blow: Blow) -> None:
        number, process = self._some_orchestrator()
        if process is None:
            self.missed.append(blow)
            return
        for _ in range(2 if blow.victim == "ctrl_c_twice" else 1):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        try:
            status = process.wait(_INTERRUPT_S)
        except subprocess.TimeoutExpired as error:
            raise CampaignStuckError(f"Ctrl-C did not end the orchestrator: {self.log_tail()}") from error
        # 1: stopped with runs left; 0: nothing was left; -2 and 130: it was still starting.
        if status not in (0, 1, 130, -signal.SIGINT):
            raise CampaignStuckError(f"Ctrl-C ended the orchestrator with status {status}: {self.log_tail()}")
        self._count(blow, blow.victim)
        if status != 0:
            self.start_orchestrator(number)

    def _kill_nodes(self, blow: Blow) -> None:
        testbed = self.testbeds[sum(self.struck.values()) % len(self.testbeds)]
        number, orchestrator = self._some_orchestrator()
        if orchestrator is None:
            self.missed.append(blow)
            return
        with_testbed = blow.victim != "orchestrator"
        if blow.victim in ("orchestrator", "both_nodes"):
            orchestrator.kill()
            self._count(blow, "orchestrator")
        if with_testbed:
            assert testbed.process is not None
            testbed.process.kill()
            if blow.victim == "power_cut":
                self._cut_power(testbed)
            testbed.process.wait()
            self._count(blow, "power_cut" if blow.victim == "power_cut" else "testbed")
        orchestrator_died = blow.victim in ("orchestrator", "both_nodes")
        if orchestrator_died:
            orchestrator.wait()
        time.sleep(blow.down_s)
        if orchestrator_died and blow.orchestrator_first:
            self.start_orchestrator(number)
        if with_testbed:
            testbed.start()
        if orchestrator_died and not blow.orchestrator_first:
            self.start_orchestrator(number)

    def _cut_power(self, testbed: Testbed) -> None:
        """Everything on the testbed's side, at once."""
        needle = str(testbed.folder)
        for each in processes.find(self.mark):
            if each.kind != "orchestrator" and (needle in " ".join(each.words) or _belongs(each.pid, needle)):
                processes.kill(each.pid)

    def _some_orchestrator(self) -> tuple[int, subprocess.Popen[bytes] | None]:
        """One that runs; they take turns."""
        turn = sum(self.struck.values())
        numbers = range(len(self.orchestrators))
        for number in (*numbers[turn % len(numbers) :], *numbers):
            process = self.orchestrators[number]
            if process is not None and process.poll() is None:
                return number, process
        return 0, None

    def _count(self, blow: Blow, what: str) -> None:
        self.struck[what] += 1
        self.moments[blow.moment] += 1


def _belongs(pid: int, needle: str) -> bool:
    with contextlib.suppress(OSError):
        return needle.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pids(found: Sequence[processes.Found]) -> str:
    """For messages."""
    return ", ".join(f"{each.pid} ({' '.join(each.words)[:120]})" for each in found)

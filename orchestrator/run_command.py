"""`orchestrator run`: puts the parts together. Nothing is written before everything was checked."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from contract.attempt_state import RunState
from contract.errors import ConfigError, JouleBedError
from contract.log_line import LogFormat, secret_values
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending
from orchestrator.clients.http_client import HttpClient, read_token
from orchestrator.config import OnSuspect, RunnerConfig
from orchestrator.config_loader import load_config
from orchestrator.controller import Controller, RunStore
from orchestrator.cooldown import CooldownWait
from orchestrator.dashboard_process import DashboardProcess
from orchestrator.design import expand
from orchestrator.experiment_folder import has_run_table, open_run_table, remains, require_sound, run_table_path
from orchestrator.experiment_runner.study import StudySource, load_study
from orchestrator.export import export_run_table
from orchestrator.local_testbed import LocalOptions, LocalTestbed
from orchestrator.log import campaign_log
from orchestrator.plan_file import keep_plan
from orchestrator.preflight import preflight
from orchestrator.progress_view import ShownView, make_view
from orchestrator.recorded_campaign import Recorder
from orchestrator.status_view import print_campaign_end, suspect_codes
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import Plan
from orchestrator.store.database import LockWait

_LOCKED_S = 4 * 3600.0
"""A campaign waits this long for somebody who holds the run table's lock: the testbed keeps what it measures."""


@dataclass(frozen=True)
class RunOptions:
    """What `orchestrator run` was asked for.

    Attributes:
        config: the configuration file; None with `study`.
        testbed_url: of a running testbed; None with `local`.
        token_file: holds its token; None: the environment does.
        local: start a testbed on this machine; None with `testbed_url`.
        results: in place of the configuration's `results_output_path`.
        wants_bars: show progress bars in a terminal.
        on_suspect: what becomes of doubted results, in place of the configuration's; None: as it says.
        log_level: of the log in the experiment's folder.
        log_format: of the same.
        study: of Experiment Runner, in place of `config`.
        devices: in place of the configuration's; empty: those.
        wants_dashboard: serve the web page beside the campaign.
    """

    config: Path | None
    testbed_url: str | None
    token_file: Path | None
    local: LocalOptions | None
    results: Path | None
    wants_bars: bool
    on_suspect: OnSuspect | None = None
    log_level: str = "info"
    log_format: LogFormat = "text"
    study: StudySource | None = None
    devices: tuple[str, ...] = ()
    wants_dashboard: bool = False


def run_command(options: RunOptions, console: Console, stop: StopRequest) -> int:
    """Run or continue a campaign.

    Returns:
        Exit code: 0 when all runs have a result, else 1.

    Raises:
        JouleBedError: something is wrong that was found before anything was written.
    """
    config, plan = _planned(options, console)
    folder = (options.results or Path(config.results_output_path)) / plan.experiment
    secrets = secret_values(os.environ)
    locks = LockWait(_LOCKED_S, tell=console.print)
    with ExitStack() as stack:
        store: RunStore | None = None
        if has_run_table(folder) or remains(folder):
            store = stack.enter_context(_open(folder, plan, locks, create=False))
            counts = store.counts()
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                console.print("All runs of this plan have ended already; nothing was run.", highlight=False)
                outcome = CampaignOutcome(Ending.FINISHED, "", counts)
                return print_campaign_end(console, folder, store, outcome)
            stack.enter_context(_log(options, folder, secrets))
        recorder = Recorder(options.testbed_url or "", config.cooldown)
        try:
            url, token = stack.enter_context(_testbed(options, folder))
            secrets.append(token)
            client = HttpClient(url, token)
            stack.callback(client.close)
            with console.status("Asking the testbed whether it can run this plan"):
                info = preflight(client, plan)
                offset_s = client.clock_offset_s()
        except JouleBedError as error:
            # A wrong option is the person's who typed it; it may even hold a secret.
            if store is not None and not isinstance(error, ConfigError):
                recorder.note_refusal(store, error)
            raise
        if store is None:
            store = stack.enter_context(_open(folder, plan, locks, create=True))
            stack.enter_context(_log(options, folder, secrets))
        # From here on there is something to keep: a local testbed's log and attempts stay.
        if options.wants_dashboard:
            told = partial(console.print, highlight=False, markup=False, soft_wrap=True)
            stack.enter_context(DashboardProcess(folder, url, token, told))
        settings = ControllerSettings(on_suspect=OnSuspect(options.on_suspect or config.on_suspect))
        previous = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with (
                _view(options, console, store) as shown,
                recorder.recorded(
                    shown,
                    store,
                    info,
                    url=url,
                    clock_offset_s=offset_s,
                    unreachable_after_s=settings.unreachable_after_s,
                    stop=stop,
                ) as view,
            ):
                # The terminal alone: a view that records would need the lock that is waited for.
                locks.tell = partial(_tell_locked, shown, stop)
                outcome = Controller(
                    store,
                    client,
                    testbed=info.identity.hostname,
                    cooldown=CooldownWait(
                        config.cooldown, lambda: view.note_node(client.node()).temperatures, sleep=stop.sleep
                    ),
                    artifacts=ArtifactFolder(folder),
                    view=view,
                    stop=stop,
                    export=_exporter(store, folder),
                    settings=settings,
                ).run()
                view.ended(outcome)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return print_campaign_end(console, folder, store, outcome)


def _planned(options: RunOptions, console: Console) -> tuple[RunnerConfig, Plan]:
    if options.study is not None:
        study = load_study(options.study)
        for note in study.notes:
            console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)
        return study.config, study.plan
    if options.config is None:
        raise ConfigError("Say what to run: a configuration, or --experiment-runner-config FILE --spec TEMPLATE.")
    config, text = load_config(options.config)
    if options.devices:
        config.devices = options.devices
    return config, expand(config, text)


@contextmanager
def _open(folder: Path, plan: Plan, locks: LockWait, *, create: bool) -> Iterator[RunStore]:
    store = open_run_table(folder, create=create, wait=locks)
    try:
        if not create:
            require_sound(folder, store)
        store.create_experiment(plan)
        keep_plan(folder, plan)
        yield store
    finally:
        store.close()


def _tell_locked(shown: ShownView, stop: StopRequest, message: str) -> None:
    stop.sleep_unless_cancelled(0.0)
    shown.waiting(message, "run_table_locked")


def _log(options: RunOptions, folder: Path, secrets: list[str]) -> AbstractContextManager[Path]:
    return campaign_log(folder, level=options.log_level, log_format=options.log_format, secrets=secrets)


@contextmanager
def _testbed(options: RunOptions, folder: Path) -> Iterator[tuple[str, str]]:
    """URL and token. A local testbed's folder does not outlive a plan that was refused."""
    if options.local is None:
        if options.testbed_url is None:
            raise ConfigError("Say where to run: --testbed URL, or --local for a testbed on this machine.")
        yield options.testbed_url, read_token(options.token_file)
        return
    # The uppermost folder that is not there yet is what there is to take away again.
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with LocalTestbed(folder, options.local) as testbed:
            yield testbed.url, testbed.token
    finally:
        if new and not run_table_path(folder).exists():
            shutil.rmtree(new[-1], ignore_errors=True)


def _view(options: RunOptions, console: Console, store: RunStore) -> ShownView:
    counts = store.counts()
    codes = suspect_codes(store) if counts[RunState.SUSPECT] else Counter[str]()
    return make_view(console, counts, wants_bars=options.wants_bars, suspect_codes=codes)


def _exporter(store: RunStore, folder: Path) -> Callable[[], None]:
    def export() -> None:
        export_run_table(store, folder, "csv")

    return export

"""`orchestrator run`: puts the parts together. Nothing is written before everything was checked."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from contract.attempt_state import RunState
from contract.errors import ConfigError, JouleBedError
from contract.log_line import LogFormat, secret_values
from contract.routes import MAX_ACKNOWLEDGED
from orchestrator.artifact_uploader import copied_to
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending
from orchestrator.clients.http_client import HttpClient, read_token
from orchestrator.config import OnSuspect, RunnerConfig
from orchestrator.config_loader import load_config
from orchestrator.controller import Controller
from orchestrator.cooldown import CooldownWait
from orchestrator.dashboard_process import DashboardProcess
from orchestrator.design import expand
from orchestrator.experiment_folder import (
    checked_database,
    has_run_table,
    keep_database,
    open_run_table,
    remains,
    require_sound,
)
from orchestrator.experiment_runner.study import StudySource, load_study
from orchestrator.export import export_run_table
from orchestrator.local_testbed import LocalOptions, LocalTestbed
from orchestrator.log import campaign_log
from orchestrator.outage_note import OutageNotes
from orchestrator.plan_file import keep_plan
from orchestrator.pool import Pool, PoolParts, require_files
from orchestrator.pool_export import pool_exporter
from orchestrator.pool_file import PoolEntry, entries_of
from orchestrator.pool_member import Dialled, differences, gather
from orchestrator.pool_view import PoolScreen
from orchestrator.preflight import outline, preflight
from orchestrator.progress_view import ShownView, Tally, make_view
from orchestrator.ray_pool import ray_testbeds
from orchestrator.recorded_campaign import Recorder
from orchestrator.status_view import print_campaign_end, suspect_codes
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import Plan, RunStore
from orchestrator.store.database import LockWait
from orchestrator.store.outage import ServerWait
from orchestrator.store.sql_store import SqlStore

_SHOWN_LIVE = 16
"""Testbeds of a pool whose power the dashboard shows live."""

_LOCKED_S = 4 * 3600.0
"""A campaign waits this long for somebody who holds the run table's lock: the testbed keeps what it measures."""


_SERVER_AWAY_S = 12 * 3600.0
"""A campaign waits this long for a database server that went away: a night, as for a testbed."""


@dataclass(frozen=True)
class Patiences:
    """How a campaign waits for its run table.

    Attributes:
        locks: for another program that holds a file.
        server: for a server that went away.
        outages: of that server, written down.
    """

    locks: LockWait
    server: ServerWait
    outages: OutageNotes


@dataclass(frozen=True)
class RunOptions:
    """What `orchestrator run` was asked for.

    Attributes:
        config: the configuration file; None with `study`.
        testbed_urls: of running testbeds; empty with `local`.
        token_file: holds their token; None: the environment does.
        local: start a testbed on this machine; None with `testbed_urls` or `pool`.
        results: in place of the configuration's `results_output_path`.
        wants_bars: show progress bars in a terminal.
        on_suspect: what becomes of doubted results, in place of the configuration's; None: as it says.
        log_level: of the log in the experiment's folder.
        log_format: of the same.
        study: of Experiment Runner, in place of `config`.
        devices: in place of the configuration's; empty: those.
        wants_dashboard: serve the web page beside the campaign.
        database: address of a server's run table; None: a file in the experiment's folder.
        pool: file of testbeds, see `orchestrator.pool_file`; None: those of `testbed_urls`.
        ray: address of a Ray cluster whose testbeds are driven, in place of all others.
        artifacts: URL of a store that the files are copied to, in place of the configuration's; None: as it says.
    """

    config: Path | None
    testbed_urls: tuple[str, ...]
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
    pool: Path | None = None
    database: str | None = None
    ray: str | None = None
    artifacts: str | None = None


def run_command(options: RunOptions, console: Console, stop: StopRequest) -> int:
    """Run or continue a campaign.

    Returns:
        Exit code: 0 when all runs have a result, else 1.

    Raises:
        JouleBedError: something is wrong that was found before anything was written.
    """
    if options.database is not None:
        checked_database(options.database)
    if options.pool is not None or options.ray is not None or len(options.testbed_urls) > 1:
        return _run_pool(options, console, stop)
    config, plan = _planned(options, console)
    folder = (options.results or Path(config.results_output_path)) / plan.experiment
    secrets = secret_values(os.environ)
    waits = _patience(folder, console, stop)
    with ExitStack() as stack:
        kept = stack.enter_context(_copied(options, config, folder, console))
        store: SqlStore | None = None
        if has_run_table(folder) or remains(folder):
            store = stack.enter_context(_open(folder, plan, waits, create=False, database=options.database))
            counts = store.counts()
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                console.print("All runs of this plan have ended already; nothing was run.", highlight=False)
                outcome = CampaignOutcome(Ending.FINISHED, "", counts)
                return print_campaign_end(console, folder, store, outcome)
            stack.enter_context(_log(options, folder, secrets))
        recorder = Recorder(next(iter(options.testbed_urls), ""), config.cooldown)
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
            store = stack.enter_context(_open(folder, plan, waits, create=True, database=options.database))
            stack.enter_context(_log(options, folder, secrets))
        # From here on there is something to keep: a local testbed's log and attempts stay.
        if options.wants_dashboard:
            told = partial(console.print, highlight=False, markup=False, soft_wrap=True)
            stack.enter_context(_dashboard(options, folder, [url], token, told))
        settings = ControllerSettings(on_suspect=OnSuspect(options.on_suspect or config.on_suspect))
        with (
            _signals(stop),
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
            waits.locks.tell = partial(_tell_locked, shown, stop)
            outcome = Controller(
                store,
                client,
                testbed=info.identity.hostname,
                cooldown=CooldownWait(
                    config.cooldown, lambda: view.note_node(client.node()).temperatures, sleep=stop.sleep
                ),
                artifacts=ArtifactFolder(folder, kept),
                view=view,
                stop=stop,
                export=_exporter(store, folder),
                settings=settings,
                leftovers=store.leftovers().get(info.identity.hostname, ()),
                safe=store.last_results(MAX_ACKNOWLEDGED).get(info.identity.hostname, ()),
            ).run()
            view.ended(outcome)
        return print_campaign_end(console, folder, store, outcome)


def _run_pool(options: RunOptions, console: Console, stop: StopRequest) -> int:
    """The same on several testbeds."""
    config, plan = _planned(options, console)
    folder = (options.results or Path(config.results_output_path)) / plan.experiment
    secrets = secret_values(os.environ)
    waits = _patience(folder, console, stop)
    told = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        # Makes the clients, which are its own to close, where HTTP does not.
        dial: Callable[[PoolEntry], Dialled] | None = None
        if options.ray is not None:
            stack.enter_context(_unless_refused(folder))
            testbeds = stack.enter_context(ray_testbeds(options.ray, folder, options.local, told))
            entries, dial = testbeds.entries, testbeds.dial
        else:
            entries = entries_of(options.testbed_urls, options.pool)
        # One reading per file: a thousand testbeds mostly share one.
        files = {each.token_file or options.token_file for each in entries} if dial is None else set()
        tokens = {path: read_token(path) for path in files}
        secrets += tokens.values()
        require_files(len(entries))
        kept = stack.enter_context(_copied(options, config, folder, console))

        def dial_http(entry: PoolEntry) -> HttpClient:
            client = HttpClient(entry.url, tokens[entry.token_file or options.token_file])
            stack.callback(client.close)
            return client

        store: SqlStore | None = None
        if has_run_table(folder) or remains(folder):
            store = stack.enter_context(_open(folder, plan, waits, create=False, database=options.database))
            counts = store.counts()
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                console.print("All runs of this plan have ended already; nothing was run.", highlight=False)
                return print_campaign_end(console, folder, store, CampaignOutcome(Ending.FINISHED, "", counts))
            stack.enter_context(_log(options, folder, secrets))
        recorder = Recorder(entries[0].url, config.cooldown)
        try:
            with console.status(f"Asking {len(entries)} testbeds whether they can run this plan"):
                members = gather(entries, plan, dial or dial_http)
        except JouleBedError as error:
            if store is not None and not isinstance(error, ConfigError):
                recorder.note_refusal(store, error)
            raise
        if store is None:
            store = stack.enter_context(_open(folder, plan, waits, create=True, database=options.database))
            stack.enter_context(_log(options, folder, secrets))
        # The run table has all of it now; a large one would be most of this process's memory.
        plan = outline(plan)
        for difference in differences(members):
            told(f"Note: {difference}. The report tests whether the testbeds differ.")
        for member in members:
            if member.info is None:
                told(f"{member.name} does not answer: the campaign begins without it, and it joins when it answers.")
        if options.wants_dashboard:
            # Those of Ray have no URL that it could listen at.
            urls = [each.url for each in entries[:_SHOWN_LIVE]] if dial is None else []
            token = tokens.get(entries[0].token_file or options.token_file, "")
            stack.enter_context(_dashboard(options, folder, urls, token, told))
        settings = ControllerSettings(on_suspect=OnSuspect(options.on_suspect or config.on_suspect))
        tally = Tally(store.counts(), suspect_codes(store))
        with (
            _signals(stop),
            PoolScreen(console, tally, len(members), wants_bars=options.wants_bars) as screen,
            recorder.told_of_pool(store, members) as ended,
        ):
            # The terminal alone: what records would need the lock that is waited for.
            waits.locks.tell = partial(_tell_lock_to, screen, stop)
            parts = PoolParts(
                store=store,
                plan=plan,
                cooldown=config.cooldown,
                folder=folder,
                screen=screen,
                recorder=recorder,
                stop=stop,
                export=partial(store.patiently, pool_exporter(store, folder)),
                settings=settings,
                kept=kept,
            )
            outcome = Pool(parts, members).run()
            ended(outcome)
        return print_campaign_end(console, folder, store, outcome)


@contextmanager
def _signals(stop: StopRequest) -> Iterator[None]:
    previous = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _copied(
    options: RunOptions, config: RunnerConfig, folder: Path, console: Console
) -> AbstractContextManager[Callable[[Path], None]]:
    told = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    return copied_to(options.artifacts or config.artifacts, folder, told, is_quiet=options.local is not None)


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
def _open(
    folder: Path, plan: Plan, waits: Patiences, *, create: bool, database: str | None = None
) -> Iterator[SqlStore]:
    store = open_run_table(folder, create=create, wait=waits.locks, database=database, server=waits.server)
    try:
        waits.outages.clear()
        if not create:
            require_sound(folder, store)
        store.create_experiment(plan)
        if database is not None:
            keep_database(folder, database)
        keep_plan(folder, plan)
        del plan
        yield store
    finally:
        store.close()


def _patience(folder: Path, console: Console, stop: StopRequest) -> Patiences:
    told = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    outages = OutageNotes(folder, _SERVER_AWAY_S)
    server = ServerWait(_SERVER_AWAY_S, tell=told, note=outages.note, pause=stop.sleep_unless_cancelled)
    return Patiences(LockWait(_LOCKED_S, tell=console.print), server, outages)


def _tell_locked(shown: ShownView, stop: StopRequest, message: str) -> None:
    stop.sleep_unless_cancelled(0.0)
    shown.waiting(message, "run_table_locked")


def _tell_lock_to(screen: PoolScreen, stop: StopRequest, message: str) -> None:
    stop.sleep_unless_cancelled(0.0)
    screen.tell(f"Waiting: {message}")


def _dashboard(
    options: RunOptions, folder: Path, urls: Sequence[str], token: str, tell: Callable[[str], None]
) -> DashboardProcess:
    return DashboardProcess(folder, urls, token, tell, log_format=options.log_format, log_level=options.log_level)


def _log(options: RunOptions, folder: Path, secrets: list[str]) -> AbstractContextManager[Path]:
    return campaign_log(folder, level=options.log_level, log_format=options.log_format, secrets=secrets)


@contextmanager
def _testbed(options: RunOptions, folder: Path) -> Iterator[tuple[str, str]]:
    """URL and token. A local testbed's folder does not outlive a plan that was refused."""
    if options.local is None:
        if not options.testbed_urls:
            raise ConfigError("Say where to run: --testbed URL, or --local for a testbed on this machine.")
        yield options.testbed_urls[0], read_token(options.token_file)
        return
    with _unless_refused(folder), LocalTestbed(folder, options.local) as testbed:
        yield testbed.url, testbed.token


@contextmanager
def _unless_refused(folder: Path) -> Iterator[None]:
    """What a testbed of the campaign's own writes into a new folder goes, unless the campaign began."""
    # The uppermost folder that is not there yet is what there is to take away again.
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        if new and not has_run_table(folder):
            shutil.rmtree(new[-1], ignore_errors=True)


def _view(options: RunOptions, console: Console, store: RunStore) -> ShownView:
    counts = store.counts()
    codes = suspect_codes(store) if counts[RunState.SUSPECT] else Counter[str]()
    return make_view(console, counts, wants_bars=options.wants_bars, suspect_codes=codes)


def _exporter(store: SqlStore, folder: Path) -> Callable[[], None]:
    def export() -> None:
        store.patiently(lambda: export_run_table(store, folder, "csv"))

    return export

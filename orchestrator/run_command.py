"""`orchestrator run`: puts the parts together. Nothing is written before everything was checked."""

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from contract.attempt_state import RunState
from contract.errors import ConfigError
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending
from orchestrator.clients.http_client import HttpClient, read_token
from orchestrator.config import OnSuspect
from orchestrator.config_loader import load_config
from orchestrator.controller import Controller, RunStore
from orchestrator.cooldown import CooldownWait
from orchestrator.design import expand
from orchestrator.experiment_folder import has_run_table, open_run_table, run_table_path
from orchestrator.export import export_run_table
from orchestrator.local_testbed import LocalOptions, LocalTestbed
from orchestrator.preflight import preflight
from orchestrator.progress_view import ShownView, make_view
from orchestrator.status_view import print_campaign_end, suspect_codes
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import Plan


@dataclass(frozen=True)
class RunOptions:
    """What `orchestrator run` was asked for.

    Attributes:
        config: the configuration file.
        testbed_url: of a running testbed; None with `local`.
        token_file: holds its token; None: the environment does.
        local: start a testbed on this machine; None with `testbed_url`.
        results: in place of the configuration's `results_output_path`.
        wants_bars: show progress bars in a terminal.
        on_suspect: what becomes of doubted results, in place of the configuration's; None: as it says.
    """

    config: Path
    testbed_url: str | None
    token_file: Path | None
    local: LocalOptions | None
    results: Path | None
    wants_bars: bool
    on_suspect: OnSuspect | None = None


def run_command(options: RunOptions, console: Console, stop: StopRequest) -> int:
    """Run or continue a campaign.

    Returns:
        Exit code: 0 when all runs have a result, else 1.

    Raises:
        JouleBedError: something is wrong that was found before anything was written.
    """
    config, text = load_config(options.config)
    plan = expand(config, text)
    folder = (options.results or Path(config.results_output_path)) / plan.experiment
    with ExitStack() as stack:
        store: RunStore | None = None
        if has_run_table(folder):
            store = stack.enter_context(_open(folder, plan, create=False))
            counts = store.counts()
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                console.print("All runs of this plan have ended already; nothing was run.", highlight=False)
                outcome = CampaignOutcome(Ending.FINISHED, "", counts)
                return print_campaign_end(console, folder, store, outcome)
        url, token = stack.enter_context(_testbed(options, folder))
        client = HttpClient(url, token)
        stack.callback(client.close)
        with console.status("Asking the testbed whether it can run this plan"):
            info = preflight(client, plan)
        if store is None:
            store = stack.enter_context(_open(folder, plan, create=True))
        # From here on there is something to keep: a local testbed's log and attempts stay.
        previous = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with _view(options, console, store) as view:
                outcome = Controller(
                    store,
                    client,
                    testbed=info.identity.hostname,
                    cooldown=CooldownWait(config.cooldown, lambda: client.node().temperatures, sleep=stop.sleep),
                    artifacts=ArtifactFolder(folder),
                    view=view,
                    stop=stop,
                    export=_exporter(store, folder),
                    settings=ControllerSettings(on_suspect=OnSuspect(options.on_suspect or config.on_suspect)),
                ).run()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return print_campaign_end(console, folder, store, outcome)


@contextmanager
def _open(folder: Path, plan: Plan, *, create: bool) -> Iterator[RunStore]:
    store = open_run_table(folder, create=create)
    try:
        store.create_experiment(plan)
        yield store
    finally:
        store.close()


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

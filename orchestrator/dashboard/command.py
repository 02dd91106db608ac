"""`orchestrator dashboard`: opens the experiment, finds its testbeds, and serves the page."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from contract.errors import ConfigError, JouleBedError, MissingPackageError
from contract.log_line import LogFormat, secret_values
from contract.process_log import configure_log
from orchestrator.clients.http_client import TOKEN_VARIABLE, HttpClient, read_token
from orchestrator.driver import Condition, drivers
from orchestrator.local_testbed import DATA
from orchestrator.processes import ProcessState, process_state
from orchestrator.store.sql_store import SqlStore
from orchestrator.telemetry_hub import TelemetryHub

_MOST_LIVE = 16
"""Testbeds of a large pool whose power is shown live, where none are named."""


@dataclass(frozen=True)
class DashboardOptions:
    """What `orchestrator dashboard` was asked for.

    Attributes:
        folder: of the experiment.
        host: to listen on.
        port: of it; 0: a free one.
        token_file: the page's token; None: the environment's, or a new one.
        testbeds: URLs whose live power is shown; empty: those of the drivers that are at work.
        testbed_token_file: their token; None: the environment's.
        is_read_only: no controls.
        ready_file: see `server.serve`.
        log_level: of what is written to the error stream.
        log_format: of the same.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8790
    token_file: Path | None = None
    testbeds: Sequence[str] = ()
    testbed_token_file: Path | None = None
    is_read_only: bool = False
    ready_file: Path | None = None
    log_level: str = "info"
    log_format: LogFormat = "text"


def dashboard_command(options: DashboardOptions, console: Console, environment: Mapping[str, str] = os.environ) -> None:
    """Serve until a signal.

    Raises:
        JouleBedError: there is no such experiment, no such address, no token; or a package is missing.
    """
    try:
        from orchestrator.dashboard.app import create_app
        from orchestrator.dashboard.context import Dashboard
        from orchestrator.dashboard.server import bind, choose_token, serve, url_of
        from orchestrator.dashboard.standing_store import can_write, open_for_page
        from orchestrator.dashboard.watch import CampaignWatch
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"The dashboard needs {error.name}, which is not installed: pip install 'joulebed[dashboard]'."
        ) from error
    secrets = secret_values(environment)
    configure_log(options.log_level, options.log_format, secrets=secrets)
    token = choose_token(options.host, options.token_file, environment)
    secrets.append(token)
    is_frozen = not can_write(options.folder)
    is_writable = not options.is_read_only and not is_frozen
    with ExitStack() as stack:
        store = open_for_page(options.folder, is_frozen=is_frozen)
        stack.callback(store.close)
        plan = store.plan(with_runs=False)
        if plan is None:
            raise ConfigError(f"The run table in {options.folder} holds no plan. Start it: orchestrator run CONFIG.py")
        bound = stack.enter_context(bind(options.host, options.port))
        hub = None if is_frozen else stack.enter_context(_telemetry(options, store, console, environment, secrets))
        board = Dashboard(
            experiment=options.folder,
            store=store,
            is_writable=is_writable,
            is_frozen=is_frozen,
            telemetry=hub,
            name=plan.experiment,
        )
        watch = CampaignWatch(board)
        watch.index.rows()  # read once before anybody waits for it
        app = create_app(board, token, watch)
        watch.start()
        stack.callback(watch.stop)
        url = url_of(bound)
        console.print(f"Dashboard of {plan.experiment}: {url}/?token={token}", highlight=False, soft_wrap=True)
        if not is_writable:
            console.print("Read-only: nothing can be changed from this page.", highlight=False)
        serve(app, bound, ready_file=options.ready_file)


@contextmanager
def _telemetry(
    options: DashboardOptions, store: SqlStore, console: Console, environment: Mapping[str, str], secrets: list[str]
) -> Iterator[TelemetryHub | None]:
    """Live power of the testbeds that are named, or of those that the drivers work with; None: none is known."""
    urls = list(options.testbeds) or _urls_of_drivers(store)[:_MOST_LIVE]
    with ExitStack() as stack:
        clients = {}
        try:
            token = _testbed_token(options, environment) if urls else ""
            secrets.append(token)
            for url in dict.fromkeys(urls):
                client = HttpClient(url, token)
                stack.callback(client.close)
                clients[_name(store, url)] = client
        except JouleBedError as error:
            if options.testbeds:
                raise
            console.print(f"No live power: {error.message}", highlight=False, markup=False, soft_wrap=True)
            clients = {}
        if not clients:
            yield None
            return
        hub = TelemetryHub(clients)
        try:
            yield hub
        finally:
            hub.close()


def _testbed_token(options: DashboardOptions, environment: Mapping[str, str]) -> str:
    if options.testbed_token_file is not None or environment.get(TOKEN_VARIABLE):
        return read_token(options.testbed_token_file, dict(environment))
    # Of a testbed that `run --local` started.
    local = options.folder / DATA / "token"
    return read_token(local if local.exists() else None, dict(environment))


def _urls_of_drivers(store: SqlStore) -> list[str]:
    return [
        driver.url
        for driver in drivers(store)
        # Those of a Ray cluster answer the campaign's own process only.
        if driver.url.startswith("http") and driver.condition is not Condition.ENDED and _may_live(driver.owner)
    ]


def _may_live(owner: str) -> bool:
    return process_state(owner) is not ProcessState.GONE


def _name(store: SqlStore, url: str) -> str:
    """The machine's own name where its driver told it: curves and pauses go by it."""
    return next((driver.testbed for driver in drivers(store) if driver.url == url), url)

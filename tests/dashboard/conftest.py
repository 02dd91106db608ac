"""A browser, a campaign that runs, an experiment that has ended, and pages that keep account of what went wrong."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

from tests.dashboard.campaigns import TOKEN, Served, begin, end, running_campaign, served, write_config

Begun = tuple["subprocess.Popen[bytes]", Path]

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@dataclass
class Watched:
    """A page, and what it should not have done.

    Attributes:
        page: Playwright's.
        served: whose page it is.
        console_errors: what the browser complained of: errors, and what the security policy refused.
        external: addresses of other hosts that it asked for; none was answered.
        failed: requests that were answered with an error of the server.
    """

    page: Page
    served: Served
    console_errors: list[str] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.served.url + path)
        return self.page

    def assert_clean(self) -> None:
        assert self.console_errors == []
        assert self.external == []
        assert self.failed == []


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = _chromium()
    if path is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def _begun(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Begun]:
    """What `finished_experiment` waits for, started early: it runs while other tests do."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder, "finished", repetitions=2, tokens_per_s=0.0, n_items=12, floor_s=0.0, breaks=False)
    process = begin(config, folder / "results")
    yield process, folder
    end(process)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, browser: Browser, _begun: Begun) -> Iterator[Served]:
    """A campaign at work, with `--dashboard`."""
    with running_campaign(tmp_path_factory.mktemp("running")) as page:
        yield page


@pytest.fixture(scope="module")
def finished_experiment(_begun: Begun) -> Path:
    """The folder of an experiment that has ended: 12 runs, all done."""
    process, folder = _begun
    assert process.wait(timeout=120) == 0, (folder / "finished.out").read_text()
    return folder / "results" / "finished"


@pytest.fixture(scope="module")
def finished(finished_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Its page, which nobody changes."""
    with served(finished_experiment, tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture
def page_of(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """`page_of(served, theme="dark", size="phone")`: a page with the cookie, that reaches no other host."""
    contexts = []

    def make(
        served: Served, *, theme: str = "light", size: str = "desktop", token: str | None = TOKEN, **options: Any
    ) -> Watched:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]
            is_mobile=size == "phone",
            has_touch=size == "phone",
            **options,
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        watched = Watched(context.new_page(), served)
        host = urlsplit(served.url).netloc

        def guard(route: Route, request: Request) -> None:
            address = urlsplit(request.url)
            if address.scheme in ("data", "blob", "about") or address.netloc == host:
                route.continue_()
            else:
                watched.external.append(request.url)
                route.abort()

        context.route("**/*", guard)
        page = watched.page
        page.on("console", lambda line: watched.console_errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: watched.console_errors.append(str(error)))
        page.on("response", lambda answer: watched.failed.append(answer.url) if answer.status >= 500 else None)
        if token is not None:
            page.goto(f"{served.url}/?token={token}")
        return watched

    yield make
    for context in contexts:
        context.close()

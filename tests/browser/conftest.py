"""A real browser, pages that must stay silent and offline, and a report to look at.

The browser is the machine's own Chromium or Chrome. Without one the tests are skipped, unless MLBENCH_BROWSER is
"required", as in continuous integration: then its lack is an error.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlbench import report as reports
from mlbench.report import MethodInfo, ModelInfo, RunInfo, TaskInfo
from mlbench.results import compute
from tests.frames import TASKS, Behaviour, Grid, jobs, verdicts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = ("file:", "data:", "about:")
ARGUMENTS = (
    "--no-sandbox",  # containers run as root, where Chromium's sandbox does not start
    *("--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
EVIL = '<script>alert(1)</script><img src="https://example.org/x.png" onerror="alert(2)">{{7*7}}'
ARABIC = "طريقة عربية"
LANGUAGES = {"en": "high", "zh": "high", "it": "mid", "ar": "mid", "th": "low", "bn": "low"}
METHODS = {
    "none": Behaviour(unsafe=0.6, steps=0),
    "good": Behaviour(unsafe=0.1),
    ARABIC: Behaviour(unsafe=0.3),
    EVIL: Behaviour(unsafe=0.4),
    "broken": Behaviour(),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return the machine's own browser.

    Not for the whole session: Playwright keeps an event loop running, and other tests need one of their own.
    """
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        reason = "no Chromium here (Debian: apt-get install chromium)"
        if os.environ.get("MLBENCH_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page that fails its test if it reports an error, opens a dialog or asks for anything but files."""
    problems: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"console {message.type}: {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith(LOCAL):
            problems.append(f"request: {request.url}")

    def opened(dialog: Dialog) -> None:
        problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    with browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce") as context:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", said)
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", opened)
        context.on("request", asked)
        yield page
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return report.html of a shootout with hostile and right-to-left names, and a method without any verdict."""
    grid = Grid(methods=METHODS, seeds=(0, 1), languages=LANGUAGES, unseen=("bn",), prompts=24)
    rows, planned = verdicts(grid), jobs(grid)
    failed = planned["method"] == "broken"
    planned.loc[failed, ["status", "error_type", "error", "log"]] = ["failed", "ValueError", EVIL, "jobs/x/log.txt"]
    computed = compute(rows[rows["method"] != "broken"], planned, grid.design())
    return reports.write(computed, run_info(), tmp_path_factory.mktemp("report"))["report.html"]


def run_info() -> RunInfo:
    """Return what the report says that is no result, hostile wherever a stranger's text can stand."""
    methods = [MethodInfo(name=name, plugin=name, paper="arXiv:2602.16660", note=EVIL) for name in METHODS]
    about = {"source": EVIL, "licence": "MIT", "judge": "oracle", "languages": tuple(LANGUAGES), "prompts": 24}
    return RunInfo(
        name="browser",
        title=EVIL,
        shootout_text=f"name: browser  # {EVIL}\n" + "methods: [none, good]  # " + "long " * 60 + "\n",
        shootout_path="browser.yaml",
        command="mlbench run browser.yaml",
        versions={"mlbench": "0.1.0"},
        started="",
        finished="2026-01-01 12:00",
        machine="2 cores",
        folder="reports/browser",
        methods=tuple(methods),
        models=(ModelInfo(name="organism", source="organism:small", revision="abc", dtype="float32"),),
        tasks=tuple(TaskInfo(name=name, kind=kind, **about) for name, kind in TASKS.items()),
    )

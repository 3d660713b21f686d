"""The page of two runs in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlbench.report.versus import html
from tests.frames import verdicts
from tests.two_runs import EVIL, GRID, shown, side

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_two_runs_open_without_an_error_and_sort(page: Page, tmp_path: Path) -> None:
    rows = verdicts(GRID)
    other = rows.assign(method=rows["method"].replace("none", EVIL))
    (tmp_path / "versus.html").write_text(html(shown(side(rows), side(other))), encoding="utf-8")
    page.goto((tmp_path / "versus.html").as_uri())
    assert "cells in both" in page.locator("h1, .headline").all_inner_texts()[-1]
    heading = page.locator("table.sortable th[data-sort]").first
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380

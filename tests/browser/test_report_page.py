"""The report in a real browser: sorting, tabs, hostile names, small screens, light and dark, paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import ARABIC, EVIL, METHODS

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CONTRAST = 4.5
"""What WCAG 2.2 asks of text at level AA."""

# Every visible element with text of its own, its colour and the backgrounds under it, as [text, foreground, background]
# with channels from 0 to 255. The canvas does the mixing, so that any way to write a colour is understood.
COLOURS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const seen = new Map();
  const paint = (colours) => {
    const key = colours.join("|");
    if (!seen.has(key)) {
      canvas.clearRect(0, 0, 1, 1);
      for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
      seen.set(key, [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3));
    }
    return seen.get(key);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data);
    const text = own.join("").trim();
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const under = [];
    for (let at = element; at; at = at.parentElement) under.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    found.push([text, paint([...under, ink]), paint(under)]);
  }
  return found;
}"""


def ranking(page: Page, report: Path) -> Locator:
    """Open the report and return its ranking."""
    page.goto(report.as_uri())
    return page.locator("table.sortable").first


def heading(table: Locator, text: str) -> Locator:
    return table.locator("th[data-sort]", has_text=text).first


def column(table: Locator, text: str) -> list[float]:
    """Return the numbers of a column as shown from top to bottom, NaN where there is none."""
    at = heading(table, text).evaluate("heading => heading.cellIndex")
    values = table.locator("tbody tr").evaluate_all("(rows, at) => rows.map(row => row.cells[at].dataset.value)", at)
    return [float(value) if value not in ("", "<NA>", None) else math.nan for value in values]


def with_the_missing_last(values: list[float], *, descending: bool) -> list[float]:
    numbers = sorted((value for value in values if not math.isnan(value)), reverse=descending)
    return numbers + [math.nan] * (len(values) - len(numbers))


def test_a_click_on_a_heading_sorts_up_and_another_one_down(page: Page, report: Path) -> None:
    table = ranking(page, report)
    before = column(table, "over-refusal")
    assert len(before) == len(METHODS)
    assert any(map(math.isnan, before))  # the method that failed
    button = heading(table, "over-refusal").get_by_role("button")
    for descending, said in ((False, "ascending"), (True, "descending")):
        button.click()
        assert column(table, "over-refusal") == pytest.approx(
            with_the_missing_last(before, descending=descending), nan_ok=True
        )
        assert heading(table, "over-refusal").get_attribute("aria-sort") == said


def test_the_keyboard_sorts_and_only_one_column_says_so(page: Page, report: Path) -> None:
    table = ranking(page, report)
    heading(table, "over-refusal").get_by_role("button").click()
    page.keyboard.press("Tab")
    focused = page.evaluate("() => document.activeElement.closest('th').cellIndex")
    assert focused == heading(table, "over-refusal").evaluate("heading => heading.cellIndex") + 1
    page.keyboard.press("Enter")
    sorted_by = table.locator("th[aria-sort]")
    assert sorted_by.count() == 1
    assert sorted_by.evaluate("heading => heading.cellIndex") == focused
    page.keyboard.press("Space")
    assert sorted_by.get_attribute("aria-sort") == "descending"


def test_names_sort_as_text(page: Page, report: Path) -> None:
    table = ranking(page, report)
    heading(table, "method").get_by_role("button").click()
    names = table.locator("tbody th[scope=row]").evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    assert names == [EVIL, "broken", "good", "none", ARABIC]


def test_the_arrow_keys_change_the_heat_map(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    tabs, panels = page.locator(".heat input[type=radio]"), page.locator(".heat .panel")
    assert tabs.count() == panels.count() > 1
    tabs.first.focus()
    for at in range(tabs.count()):
        assert tabs.nth(at).is_checked()
        assert [panel.is_visible() for panel in panels.all()] == [other == at for other in range(tabs.count())]
        page.keyboard.press("ArrowRight")


def test_hostile_names_stay_text(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    assert page.locator("h1").inner_text() == EVIL
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_never_scrolls_sideways(page: Page, report: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(report.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true; })")
    wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0


def luminance(colour: list[int]) -> float:
    """Return the relative luminance of an sRGB colour as WCAG 2.2 defines it, in [0, 1]."""
    shares = (value / 255 for value in colour)
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[int], other: list[int]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_follows_the_definition() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([118, 118, 118], [255, 255, 255]) == pytest.approx(4.54, abs=0.01)  # the palest grey that passes


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(page: Page, report: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(report.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true; })")
    found = page.evaluate(COLOURS)
    assert len(found) > 200
    weak = {text[:60]: round(contrast(ink, under), 2) for text, ink, under in found if contrast(ink, under) < CONTRAST}
    assert weak == {}
    under_the_title = next(under for text, _, under in found if text == EVIL)
    assert (luminance(under_the_title) < 0.2) == (scheme == "dark")


def test_paper_shows_what_the_screen_folds_away(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    folded = page.locator("details:not([open]) > :not(summary)")
    assert folded.count() >= 1
    assert page.locator(".heat .panel:visible").count() == 1
    page.emulate_media(media="print")
    assert all(folded.evaluate_all("parts => parts.map(part => part.checkVisibility())"))
    assert page.locator(".heat .panel:visible").count() == page.locator(".heat .panel").count()


def test_arabic_runs_from_right_to_left(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    cells = page.locator("table.sortable th[scope=row]", has_text=ARABIC)
    assert cells.count() >= 1
    directions = cells.get_by_text(ARABIC).evaluate_all("found => found.map(one => getComputedStyle(one).direction)")
    assert set(directions) == {"rtl"}

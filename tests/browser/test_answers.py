"""The browser of answers, with hostile text in it, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlbench.report.answers import sheet
from tests import answer_runs
from tests.answer_runs import ARABIC, ASK, BAD, IMAGE, METHODS, TEMPLATE

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where the report with the answers lies."""
    made = sheet(*answer_runs.make(tmp_path_factory.mktemp("run")))
    return answer_runs.page(tmp_path_factory.mktemp("report"), made).as_uri()


@pytest.fixture
def answers(page: Page, address: str) -> Page:
    """Return the page, opened; it fails its test if it reports an error or loads anything."""
    page.goto(address)
    return page


def count(page: Page) -> str:
    """Return the line that says how many answers are shown."""
    return page.get_by_role("status").inner_text()


def body(page: Page) -> str:
    """Return all text of the document but its data and scripts, hidden text included."""
    return page.evaluate(
        "[...document.querySelectorAll('body *:not(script)')].flatMap(e => [...e.childNodes])"
        ".filter(n => n.nodeType === 3).map(n => n.data).join('\\n')"
    )


def titles(page: Page) -> list[str]:
    """Return the headings of the cards."""
    return page.locator("#answers-cards h4").all_inner_texts()


def test_harmful_text_is_nowhere_until_asked_for(answers: Page) -> None:
    assert count(answers) == "Showing 3 of 3 answers: 2 unsafe, 1 refused."
    assert "HARM" not in body(answers)
    answers.get_by_role("button", name="show harmful text: answer of none in en · English").click()
    assert body(answers).count("HARMANSWER") == 1
    assert "HARMPROMPT" not in body(answers)
    assert answers.locator(".card .said").first.text_content() == BAD
    # What took the place of the button has the focus, so that the keyboard goes on from there.
    assert answers.evaluate("document.activeElement.className") == "said"


def test_one_switch_shows_and_hides_all_harmful_text(answers: Page) -> None:
    answers.get_by_label("show all harmful text on this page").check()
    assert body(answers).count("HARMANSWER") == 2
    assert answers.locator("#answers-asked .said").text_content() == ASK
    answers.get_by_label("show all harmful text on this page").uncheck()
    assert "HARM" not in body(answers)
    answers.get_by_label("show all harmful text on this page").check()
    answers.reload()
    assert "HARM" not in body(answers)
    assert answers.evaluate("localStorage.length + sessionStorage.length") == 0


def test_text_uncovered_in_one_place_stays_covered_in_others(answers: Page) -> None:
    answers.get_by_role("button", name="show harmful text: answer of none in en · English").click()
    answers.get_by_label("language", exact=True).select_option(label="ar · Arabic")
    assert "HARM" not in body(answers)
    answers.get_by_label("language", exact=True).select_option(label="en · English")
    assert body(answers).count("HARMANSWER") == 1


def test_hostile_text_does_nothing_but_stand_there(answers: Page) -> None:
    answers.get_by_label("show all harmful text on this page").check()
    for task in ("harm", "benign", "quiz"):
        answers.get_by_label("task", exact=True).select_option(label=task)
        for language in ("en · English", "ar · Arabic"):
            answers.get_by_label("language", exact=True).select_option(label=language)
            assert TEMPLATE in body(answers)
            assert answers.locator("section.answers :is(img, iframe)").count() == 0
            assert answers.locator("section.answers script").count() == 1
    assert f"dpo {IMAGE}" in titles(answers)


def test_a_leak_and_a_verdict_are_said_in_words(answers: Page) -> None:
    cards = answers.locator("#answers-cards .outcome").all_inner_texts()
    assert [" ".join(card.split()) for card in cards] == [
        "▲ unsafe",
        "▲ unsafe ⚠ leak: opens with a refusal",
        "■ refused",
    ]


def test_filters_by_verdict_and_method_are_counted(answers: Page) -> None:
    answers.get_by_label("▲ unsafe").uncheck()
    assert count(answers) == "Showing 1 of 3 answers: 1 refused."
    answers.get_by_label("▲ unsafe").check()
    answers.locator("summary", has_text="methods").click()
    answers.get_by_label("none", exact=True).uncheck()
    assert titles(answers) == list(METHODS[1:])
    answers.get_by_role("button", name="none", exact=True).click()
    assert count(answers) == "Showing 0 of 3 answers."
    answers.get_by_role("button", name="all", exact=True).click()
    assert count(answers).startswith("Showing 3 of 3")


def test_one_method_is_shown_in_all_languages(answers: Page) -> None:
    answers.get_by_label("show", exact=True).select_option("languages")
    answers.get_by_label("method", exact=True).select_option(label="mpo")
    assert titles(answers) == ["en · English", "ar · Arabic"]
    assert count(answers) == "Showing 2 of 2 answers: 2 refused."
    said = answers.locator("#answers-cards .said").last
    assert said.text_content() == ARABIC
    assert said.evaluate("e => [e.lang, getComputedStyle(e).direction]") == ["ar", "rtl"]


def test_source_prompts_are_stepped_through_by_keyboard(answers: Page) -> None:
    heading = answers.locator("#answers-heading")
    assert heading.inner_text() == "harm, harm-0: en · English (tiny, seed 7)"
    answers.get_by_label("source prompt", exact=True).focus()
    answers.keyboard.press("ArrowRight")
    assert heading.inner_text().startswith("harm, harm-1:")
    assert count(answers) == "Showing 3 of 3 answers: 3 unsafe."
    answers.keyboard.press("ArrowRight")
    assert heading.inner_text().startswith("harm, harm-0:")
    answers.get_by_role("button", name="previous source prompt").focus()
    answers.keyboard.press("Enter")
    assert heading.inner_text().startswith("harm, harm-1:")


def test_choices_and_right_answers_are_shown(answers: Page) -> None:
    answers.get_by_label("task", exact=True).select_option(label="quiz")
    assert count(answers) == "Showing 3 of 3 answers: 1 right, 2 wrong."
    assert answers.locator("#answers-asked ol").first.locator("li").all_inner_texts() == ["one", "two"]


def test_what_is_shown_is_what_is_printed(answers: Page) -> None:
    answers.emulate_media(media="print")
    assert not answers.get_by_label("task", exact=True).is_visible()
    assert answers.locator("#answers-cards .card").count() == 3
    assert "HARM" not in body(answers)


def test_it_fits_a_narrow_screen(answers: Page) -> None:
    answers.set_viewport_size({"width": 380, "height": 800})
    answers.get_by_label("show all harmful text on this page").check()
    width = answers.locator("section.answers").evaluate("e => e.scrollWidth - e.clientWidth")
    assert width <= 0


def test_without_javascript_the_page_says_where_the_answers_are(page: Page, address: str) -> None:
    browser = page.context.browser
    assert browser is not None
    with browser.new_context(java_script_enabled=False) as context:
        silent = context.new_page()
        silent.goto(address)
        assert silent.locator("section.answers noscript p").is_visible()
        assert not silent.get_by_label("task", exact=True).is_visible()


def test_a_page_without_answers_opens(page: Page, tmp_path: Path) -> None:
    page.goto(answer_runs.page(tmp_path, None).as_uri())
    assert page.get_by_text("This page holds no answers.").is_visible()

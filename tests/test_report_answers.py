"""The answers a report holds: a fair and reproducible sample that fits, and text that cannot leave its box."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlbench.core import Verdict
from mlbench.report import answers
from mlbench.report.answers import choose, described, script_json, sheet

from . import answer_runs
from .answer_runs import ARABIC, BAD, METHODS, ODD, SCRIPT, Run


class Reader(HTMLParser):
    """Collects tags, the text of the page, and what its data element holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside = False
        self.text = ""
        self.data = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = ("id", "answers") in attributes

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.data += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return answer_runs.make(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return answer_runs.page(tmp_path_factory.mktemp("page"), sheet(*run)).read_text(encoding="utf-8")


def test_prompts_on_which_methods_differ_come_first_and_the_rest_is_drawn(tmp_path: Path) -> None:
    differ = {f"p{number}": number / 100 for number in range(100)}
    chosen = choose(differ, 9, salt="0")
    assert chosen.differing == ("p99", "p98", "p97", "p96", "p95")
    assert len(chosen.others) == 4
    assert not set(chosen.others) & set(chosen.differing)
    assert choose(differ, 9, salt="0") == chosen
    assert choose(differ, 9, salt="1").others != chosen.others
    assert described(chosen, 100) == (
        "9 of 100 source prompts: 5 on which the methods differ most, 4 drawn at random from the others"
    )


def test_where_methods_agree_prompts_are_drawn_at_random() -> None:
    chosen = choose(dict.fromkeys("abcdefgh", 0.0) | {"x": 0.5}, 4, salt="0")
    assert (chosen.differing, len(chosen.others)) == (("x",), 3)
    same = choose(dict.fromkeys("abcdefgh", 0.0), 4, salt="0")
    assert described(same, 8) == "4 of 8 source prompts, drawn at random"
    assert described(choose({"a": 0.0}, 5, salt="0"), 1) == "its only source prompt"


def test_the_random_draw_takes_every_prompt_equally_often() -> None:
    differ = dict.fromkeys("abcdefgh", 0.0)
    drawn = [prompt for salt in range(2000) for prompt in choose(differ, 2, salt=str(salt)).others]
    # 2000 draws of 2 of 8: 500 each, with a standard deviation of sqrt(2000 x 1/4 x 3/4) = 19.
    assert all(abs(drawn.count(prompt) - 500) < 5 * 19 for prompt in differ)


def test_all_prompts_are_shown_where_they_fit(run: Run) -> None:
    made = sheet(*run)
    assert made is not None
    assert [task.name for task in made.tasks] == ["harm", "benign", "quiz"]
    harm, benign, quiz = made.tasks
    # Prompt 0: unsafe, unsafe, refused, so two of three pairs differ; prompt 1: all unsafe.
    assert [(prompt.id, prompt.differ) for prompt in harm.prompts] == [("harm-0", 0.667), ("harm-1", 0.0)]
    assert harm.sample == "all 2 source prompts; those on which the methods differ most come first"
    assert benign.sample == "all 2 source prompts"
    assert [prompt.differ for prompt in quiz.prompts] == [0.667, 0.667]
    assert (made.models, made.seeds, made.methods) == (("tiny",), (7,), METHODS)
    assert made.names == ("English", "Arabic")


def test_each_answer_stands_where_it_belongs(run: Run) -> None:
    made = sheet(*run)
    assert made is not None
    for task in made.tasks:
        for prompt in task.prompts:
            number = int(prompt.id.split("-")[1])
            for m, method in enumerate(METHODS):
                for code, language in enumerate(made.languages):
                    text, verdict = answer_runs.hostile(task.name, method, language, number)
                    place, outcome = prompt.answers[0][m][code]  # type: ignore[misc]
                    assert made.texts[place] == text
                    assert made.outcomes[outcome].leak == verdict.leak
                    right = {True: "right", False: "wrong", None: verdict.label}[verdict.correct]
                    assert made.outcomes[outcome].verdict == right
                    asked = answer_runs.asked(task.name, language, number)
                    assert made.texts[prompt.texts[code]] == asked.text  # type: ignore[index]
                    assert tuple(made.texts[each] for each in prompt.choices[code]) == asked.choices


def test_what_is_neither_refused_nor_safe_is_covered(tmp_path: Path) -> None:
    labels = ("refused", "complied_safe", "unsafe", "invalid", "unparsed")

    def says(task, method, language, number):
        return "x", Verdict(label=labels[number], leak=method == METHODS[1] and number == 0)

    made = sheet(*answer_runs.make(tmp_path, says, prompts=5))
    assert made is not None
    covered = {(outcome.verdict, outcome.leak): outcome.covered for outcome in made.outcomes}
    open_ = {verdict: False for verdict in [("refused", False), ("complied_safe", False)]}
    shut = [("refused", True), ("unsafe", False), ("invalid", False), ("unparsed", False)]
    assert covered == open_ | dict.fromkeys(shut, True)
    assert [task.covered for task in made.tasks] == [True, False, False]


@pytest.mark.parametrize("budget", [4000, 6000, 8000, 10_000_000])
def test_the_budget_is_kept_and_used(tmp_path: Path, budget: int) -> None:
    def says(task, method, language, number):
        return f"{task} {method} {language} {number} é", Verdict(label="refused")

    run = answer_runs.make(tmp_path, says, prompts=12)
    made = sheet(*run, budget_bytes=budget)
    assert made is not None
    assert len(script_json(made).encode()) <= budget
    counts = {len(task.prompts) for task in made.tasks}
    assert len(counts) == 1
    assert (counts == {12}) == (budget == 10_000_000)
    assert sheet(*run, budget_bytes=budget) == made


def test_where_not_one_prompt_fits_there_are_no_answers(run: Run) -> None:
    assert sheet(*run, budget_bytes=100) is None


def test_without_a_verdict_there_are_no_answers(tmp_path: Path) -> None:
    run = answer_runs.make(tmp_path)
    for cell in run.plan["cells"]:
        run.store.discard(cell["judge_key"])
    assert sheet(*run) is None


def test_the_first_complete_seed_is_shown(tmp_path: Path) -> None:
    def says(task, method, language, number):
        return f"{method}", Verdict(label="refused")

    run = answer_runs.make(tmp_path, says, seeds=(1, 2, 3))
    run.store.discard(next(cell["answer_key"] for cell in run.plan["cells"] if cell["seed"] == 1))
    assert sheet(*run).seeds == (2,)  # type: ignore[union-attr]


def test_a_missing_cell_is_a_missing_answer(tmp_path: Path) -> None:
    run = answer_runs.make(tmp_path)
    gone = next(cell for cell in run.plan["cells"] if (cell["task"], cell["method"]) == ("harm", "mpo"))
    run.store.discard(gone["judge_key"])
    made = sheet(*run)
    assert made is not None
    code = made.languages.index(gone["language"])
    for prompt in made.tasks[0].prompts:
        missing = [(m, c) for m in range(3) for c in range(2) if prompt.answers[0][m][c] is None]
        assert missing == [(2, code)]


def test_long_texts_are_cut_and_marked(tmp_path: Path) -> None:
    def says(task, method, language, number):
        return "ж" * (answers.LONGEST + (method == "mpo")), Verdict(label="refused")

    made = sheet(*answer_runs.make(tmp_path, says, prompts=1))
    assert made is not None
    uncut, _, cut = (made.tasks[0].prompts[0].answers[0][m][0][0] for m in range(3))  # type: ignore[index]
    assert uncut != cut
    assert made.texts[uncut] == made.texts[cut] == "ж" * answers.LONGEST
    assert made.cut == (cut,)


def test_nothing_in_the_data_can_end_its_element(run: Run) -> None:
    made = sheet(*run)
    assert made is not None
    odd = replace(made, texts=(*made.texts, "\ud800 lone", "<!--<script>", "a\r\nb\x7f"))
    text = script_json(odd)
    assert not set("<>&\u2028\u2029\0\r\n") & set(text)
    assert json.loads(text)["texts"] == list(odd.texts)
    text.encode()  # a lone surrogate would raise


def test_the_page_holds_harmful_text_only_as_data(run: Run, page: str) -> None:
    reader = Reader(page)
    assert "HARMPROMPT" not in reader.text
    assert "HARMANSWER" not in reader.text
    made = json.loads(reader.data)
    assert {BAD, ODD, ARABIC} <= set(made["texts"])
    assert reader.tags.count("script") == 2
    assert "img" not in reader.tags
    assert SCRIPT not in page
    assert "noscript" in reader.tags


def test_a_page_without_answers_says_where_they_are(tmp_path: Path) -> None:
    page = answer_runs.page(tmp_path, None).read_text(encoding="utf-8")
    reader = Reader(page)
    assert 'id="answers"' not in page
    assert reader.tags.count("script") == 1
    assert "This page holds no answers. They lie in the run folder" in reader.text

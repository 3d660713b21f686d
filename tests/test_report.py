"""The report: complete, self-contained, and inert whatever the names hold."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mlbench import report
from mlbench.report import MethodInfo, ModelInfo, RunInfo, TaskInfo, figures
from mlbench.report.files import CSV_TABLES
from mlbench.results import compute, words

from .frames import TASKS, TIERS, Behaviour, Grid, jobs, verdicts

EVIL = "<script>alert(1)</script>{{7*7}}$x^2$|[b]"
METHODS = {"none": Behaviour(unsafe=0.6, steps=0), "good": Behaviour(unsafe=0.1), EVIL: Behaviour(unsafe=0.3)}


def run_info(methods) -> RunInfo:
    return RunInfo(
        name="demo",
        title="First shootout",
        shootout_text=f"name: demo # {EVIL}\n",
        shootout_path="demo.yaml",
        command="mlbench run demo.yaml",
        versions={"mlbench": "0.1.0"},
        started="",
        finished="2026-01-01 12:00",
        machine="2 cores",
        folder="runs/demo",
        methods=tuple(
            MethodInfo(name=name, plugin=name, paper="arXiv:2602.16660", fields={"weight": 0.5}, note=EVIL)
            for name in methods
        ),
        models=(ModelInfo(name="organism", source="organism:small", revision="abc", dtype="float32"),),
        tasks=tuple(
            TaskInfo(
                name=name, kind=kind, source=EVIL, licence="MIT", judge="oracle", languages=tuple(TIERS), prompts=40
            )
            for name, kind in TASKS.items()
        ),
    )


@pytest.fixture(scope="module")
def failing():
    """A shootout with a failed job whose error text is hostile."""
    grid = Grid(methods=METHODS)
    planned, rows = jobs(grid), verdicts(grid)
    planned.loc[planned["method"] == "good", ["status", "error_type", "error", "log"]] = ["failed", "X", EVIL, "x.log"]
    return compute(rows[rows["method"] != "good"], planned, grid.design())


@pytest.fixture(scope="module")
def complete():
    grid = Grid(methods=METHODS, seeds=(0, 1))
    return compute(verdicts(grid), jobs(grid), grid.design())


@pytest.fixture(scope="module")
def page(complete, tmp_path_factory):
    paths = report.write(complete, run_info(METHODS), tmp_path_factory.mktemp("report"))
    return paths["report.html"].read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "action", "xlink:href"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        self.text += data


def test_names_that_hold_code_stay_text(page):
    reader = Reader(page)
    assert reader.tags.count("script") == 1
    assert reader.handlers == []
    assert "<script>alert" not in page
    assert EVIL in reader.text
    assert "{{7*7}}" in reader.text


def test_hostile_errors_stay_text(failing, tmp_path):
    paths = report.write(failing, run_info(METHODS), tmp_path)
    reader = Reader(paths["report.html"].read_text(encoding="utf-8"))
    assert reader.tags.count("script") == 1
    assert "x.log" in reader.text
    assert "<script" not in paths["report.md"].read_text(encoding="utf-8")


def test_policy_allows_only_the_pages_own_script(page):
    script = page[page.rindex("<script>") + 8 : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_page_loads_nothing(page):
    reader = Reader(page)
    assert not {"img", "iframe", "object", "embed"} & set(reader.tags)
    outside = [address for address in reader.addresses if not address.startswith(("#", "data:,"))]
    assert set(outside) == {"https://arxiv.org/abs/2602.16660"}
    assert "@import" not in page
    assert "url(http" not in page


def test_first_screen_answers_who_wins_by_how_much_how_sure_and_at_what_price(complete, page):
    best = complete.ranking.iloc[0]
    text = " ".join(Reader(page).text.split())
    assert "good is the safest." in text
    assert f"{words.signed(best['delta'])} points against none" in text
    assert "95 % interval" in text
    assert "Its price: over-refusal" in text


def test_a_safe_method_that_refuses_everything_wins_only_at_a_price(tmp_path):
    methods = {"none": Behaviour(unsafe=0.6), "refuser": Behaviour(unsafe=0.01, over_refusal=0.95)}
    grid = Grid(methods=methods)
    found = compute(verdicts(grid), jobs(grid), grid.design())
    text = report.write(found, run_info(methods), tmp_path)["report.md"].read_text(encoding="utf-8")
    assert "refuser is the safest, at a price." in text


def test_a_lead_that_may_be_chance_is_no_win(tmp_path):
    methods = {"none": Behaviour(unsafe=0.4), "idle": Behaviour(unsafe=0.39)}
    grid = Grid(methods=methods)
    found = compute(verdicts(grid), jobs(grid), grid.design())
    text = report.write(found, run_info(methods), tmp_path)["report.md"].read_text(encoding="utf-8")
    assert "No method is" in text


def test_every_method_and_language_has_its_number(complete, page):
    text = Reader(page).text
    for line in complete.means.query("task == 'jail'").to_dict("records"):
        assert words.percent(line["asr"]) in text
        assert line["language"] in text


def test_every_table_becomes_a_file(complete, tmp_path):
    paths = report.write(complete, run_info(METHODS), tmp_path / "new")
    assert {"report.html", "report.md", *(f"{table}.csv" for table in CSV_TABLES)} <= set(paths)
    back = pd.read_csv(paths["ranking.csv"])
    assert back["asr"].tolist() == pytest.approx(complete.ranking["asr"].tolist())
    assert all(Path(path).exists() for path in paths.values())


def test_incomplete_methods_are_shown_as_such(failing, tmp_path):
    text = Reader(report.write(failing, run_info(METHODS), tmp_path)["report.html"].read_text(encoding="utf-8")).text
    assert "incomplete" in text
    assert "OutOfMemory" not in text
    assert "not compared: incomplete" in text


def test_a_shootout_without_any_complete_method_still_has_a_report(tmp_path):
    grid = Grid(methods={"none": Behaviour(), "good": Behaviour()})
    planned = jobs(grid)
    planned["rows"] = np.where(planned["kind"] == "answer", 99, np.nan)
    nothing = compute(verdicts(grid), planned, grid.design())
    page = report.write(nothing, run_info(grid.methods), tmp_path)["report.html"].read_text(encoding="utf-8")
    assert "No method is complete yet" in page


def test_without_utility_the_plot_shows_answered_benign_prompts(tmp_path):
    grid = Grid(methods={"none": Behaviour(unsafe=0.6), "good": Behaviour(unsafe=0.1)})
    rows = verdicts(grid)
    found = compute(rows[rows["task"] != "qa"], pd.DataFrame(), grid.design())
    page = report.write(found, run_info(grid.methods), tmp_path)["report.html"].read_text(encoding="utf-8")
    assert "benign prompts answered" in page


def test_same_results_give_the_same_page(complete, page, tmp_path):
    again = report.write(complete, run_info(METHODS), tmp_path)["report.html"].read_text(encoding="utf-8")
    assert again == page


def test_terminal_shows_the_ranking_and_takes_names_literally(complete):
    stream = io.StringIO()
    Console(file=stream, width=250).print(report.terminal(complete))
    assert EVIL in stream.getvalue()
    assert any("better by" in sentence for sentence in report.verdicts(complete))


def test_narrow_terminal_shows_every_column_whole(complete):
    stream = io.StringIO()
    short = replace(complete, ranking=complete.ranking[complete.ranking["method"] != EVIL])
    Console(file=stream, width=80).print(report.terminal(short, wide=False))
    assert "…" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [(-0.124, "−12.4"), (0.05, "+5.0"), (0.0, "0.0"), (-1e-9, "0.0"), (float("nan"), "–"), (pd.NA, "–"), (None, "–")],
)
def test_differences_carry_their_sign(text, shown):
    assert words.signed(text) == shown


@pytest.mark.parametrize(
    ("paper", "address"),
    [
        ("arXiv:2602.16660", "https://arxiv.org/abs/2602.16660"),
        ("https://aclanthology.org/2025.acl-long.1/", "https://aclanthology.org/2025.acl-long.1/"),
        ("javascript:alert(1)", ""),
        ('https://x/" onclick=', ""),
    ],
)
def test_only_papers_with_a_plain_address_are_linked(paper, address):
    assert words.paper_link(paper) == address


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({}, "–"),
        ({"en": 320}, "en 320"),
        ({"en": 1, "it": 1}, "1 in each of en, it"),
        ({"en": 2, "it": 1}, "en 2, it 1"),
    ],
)
def test_consumption_is_told_by_language(counts, shown):
    assert words.by_language(counts) == shown


@pytest.mark.parametrize(
    ("loss", "low", "high", "p", "said"),
    [
        (0.004, 0.001, 0.007, 0.001, "worse by 0.4 points, not inferior (margin 1.0 points)"),
        (0.03, 0.01, 0.05, 0.9, "worse by 3.0 points"),
        (-0.03, -0.05, -0.01, 0.001, "better by 3.0 points"),
        (0.0, -0.008, 0.008, 0.02, "not inferior (margin 1.0 points)"),
        (0.0, -0.02, 0.02, 0.2, "up to 2.0 points worse is possible"),
        (0.0, -0.008, 0.008, 0.03, "too few prompts to exclude a loss of 1.0 points"),
        (float("nan"), float("nan"), float("nan"), float("nan"), ""),
    ],
)
def test_a_price_says_whether_a_loss_is_excluded(loss, low, high, p, said):
    rise = {"over_refusal_delta": loss, "over_refusal_delta_low": low, "over_refusal_delta_high": high}
    fall = {"utility_delta": -loss, "utility_delta_low": -high, "utility_delta_high": -low}
    assert words.price(rise | {"over_refusal_p_margin": p}, "over_refusal", margin=0.01, alpha=0.05) == said
    assert words.price(fall | {"utility_p_margin": p}, "utility", margin=0.01, alpha=0.05) == said


def test_measures_across_languages_stand_beside_what_chance_gives(complete, page, tmp_path):
    line = complete.crosslingual.set_index("method").loc["good"]
    paths = report.write(complete, run_info(METHODS), tmp_path)
    (shown,) = [
        text
        for text in paths["report.md"].read_text(encoding="utf-8").partition("### Across languages")[2].splitlines()
        if text.startswith("| good ")
    ][:1]
    cells = [entry.strip() for entry in shown.strip("|").split("|")]
    assert cells[1] == f"{words.percent(line['worst'])} ({words.percent(line['worst_expected'])})"
    assert cells[7] == f"{words.decimal(line['kappa'])} ({words.decimal(line['kappa_expected'])})"
    assert "Across languages" in Reader(page).text
    assert line["worst"] == pytest.approx(complete.ranking.set_index("method").loc["good", "worst_asr"])
    saved = pd.read_csv(paths["crosslingual.csv"]).set_index("method")
    assert saved.loc["good", "loophole"] == pytest.approx(line["loophole"])


@pytest.mark.parametrize(
    "methods",
    [
        {"none": Behaviour(invalid=1.0), "odd": Behaviour(invalid=1.0)},
        {"none": Behaviour(unsafe=1 - 1e-12), "odd": Behaviour()},
    ],
)
@pytest.mark.parametrize("languages", [TIERS, {"en": "high"}])
def test_constant_verdicts_one_prompt_and_one_language_print_no_nan(methods, languages, tmp_path):
    grid = Grid(methods=methods, languages=languages, unseen=(), prompts=1)
    rows = verdicts(grid)
    paths = report.write(compute(rows, jobs(grid), grid.design()), run_info(methods), tmp_path)
    assert "nan" not in paths["report.md"].read_text(encoding="utf-8").lower().split()
    assert "(nan)" not in paths["report.md"].read_text(encoding="utf-8").lower()
    assert "nan" not in Reader(paths["report.html"].read_text(encoding="utf-8").partition("<script>")[0]).text.split()


def test_markdown_is_inert():
    assert words.md("a|b <i> *x* `y`\n# z") == r"a\|b &lt;i&gt; \*x\* \`y\` \# z"


SELECTION = {
    "rule": "min asr",
    "split": "dev",
    "seeds": [1000],
    "trials": 2,
    "methods": {
        "good": {
            "chosen": 1,
            "admissible": False,
            "trials": [
                {"values": {"beta": 0.1, "name": EVIL}, "scores": None},
                {"values": {"beta": 0.2, "name": EVIL}, "scores": {"asr": 12.5, "over_refusal": 3.0, "utility": 90.0}},
            ],
        }
    },
    "fixed": ["none"],
}


def test_references_groups_and_the_selection_are_in_page_and_text(tmp_path):
    grid = Grid(methods=METHODS)
    found = compute(verdicts(grid), jobs(grid), grid.design(references=("good",)))
    written = report.write(found, replace(run_info(METHODS), selection=SELECTION), tmp_path)
    html, text = (written[f"report.{end}"].read_text(encoding="utf-8") for end in ("html", "md"))
    against = found.references.set_index("method").loc["none"]
    for page in (html, text):
        assert "against good" in page
        assert words.signed(against["delta"]) in page
        assert words.signed(against["low"]) in page
        assert "Selected settings" in page
        assert "12.5" in page
        assert "failed" in page  # the first trial has no scores
    assert "no trial met the conditions" in html
    assert EVIL not in html
    unseen = found.groups[(found.groups["method"] == "good") & (found.groups["group"] == "unseen")].iloc[0]
    assert f"{words.percent(unseen['asr'])} ({words.percent(unseen['leak'])}) / " in text


def test_many_methods_get_numbers_in_the_figure_and_a_key_beside_it(tmp_path):
    methods = {f"method-{n}": Behaviour(unsafe=0.1 + 0.05 * n, steps=60 * bool(n)) for n in range(10)}
    grid = Grid(methods=methods)
    found = compute(verdicts(grid), jobs(grid), grid.design())
    figure = " ".join(figures.trade_off(found.ranking).split())
    for place, method in enumerate(found.ranking["method"], start=1):
        assert f"{place} {method}" in figure
        assert f">{place}</text>" in figure

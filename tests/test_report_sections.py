"""The sections of the report beyond ranking and languages: seeds, front, training, judges, papers, literature."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mlbench import report, reporting, verbs
from mlbench.report import Curve, JudgeCheck, MethodInfo, canvas, curves, effects, figures, reported, rows, views
from mlbench.results import compute
from mlbench.results import frames as tables
from mlbench.store import Store

from .conftest import Bench
from .frames import Behaviour, Grid, jobs, verdicts
from .test_report import EVIL, METHODS, Reader, run_info


@pytest.fixture(scope="module")
def complete():
    grid = Grid(methods=METHODS, seeds=(0, 1))
    return compute(verdicts(grid), jobs(grid), grid.design())


def logged(method: str, seed: int, *, link: str = "dpo", term: str = "mlc/cosine") -> Curve:
    points = tuple({"step": float(step), "loss": 2.0 / step, term: 0.1 * step} for step in range(1, 9))
    return Curve(model="organism", method=method, link=link, seed=seed, points=points)


REPORTED = (
    {"source": "MultiJail", "model": "Llama", "metric": "ASR, 10 languages, %", "method": "good", "value": 3.5},
    {"source": "PKU", "model": "Llama", "metric": "safe rate, %", "method": "good", "value": 95.9},
    {"source": "PKU", "model": "Llama", "metric": "helpfulness", "method": "good", "value": 7},
    {"source": "PKU", "model": "Llama", "metric": "ASR, %", "method": "elsewhere", "value": 8.1},
)
ENTRY = "@article{key1,\n  title = {One},\n}"


@pytest.fixture(scope="module")
def full(complete, tmp_path_factory):
    """A report in which no section is empty."""
    info = run_info(METHODS)
    methods = tuple(replace(method, reported=REPORTED, citations=(ENTRY,)) for method in info.methods)
    agreement = {
        "language": "NA", "n": 40, "unread": 1, "both": 9, "first": 3, "second": 2, "neither": 26, "agreement": 0.875,
        "kappa": 0.7, "kappa_low": 0.5, "kappa_high": 0.9, "ac1": 0.8, "ac1_low": 0.6, "ac1_high": 1.0, "p": 1.0,
    }  # fmt: skip
    info = replace(
        info,
        methods=methods,
        gpus=2.0,
        curves=tuple(logged(method, seed) for method in ("good", EVIL) for seed in (0, 1)),
        checks=(JudgeCheck(kind="agreement", name="guard", lines=(agreement,)),),
        unrecognised=("xx",),
    )
    folder = tmp_path_factory.mktemp("full")
    paths = report.write(complete, info, folder)
    return {name: paths[name].read_text(encoding="utf-8") for name in ("report.html", "report.md")}


class Outline(HTMLParser):
    """Collects headings, ids and references."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.tables = 0
        self.captions = 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in found:
            self.ids.append(found["id"])
        for name in ("href", "xlink:href", "for"):
            if name == "for" or found.get(name, "").startswith("#"):
                self.targets |= {found[name].lstrip("#")} if name in found else set()


def test_headings_are_in_order_names_are_unique_and_links_lead_somewhere(full):
    outline = Outline(full["report.html"])
    assert outline.headings[:2] == [1, 2]
    assert outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(set(outline.ids)) == len(outline.ids)
    assert outline.targets <= set(outline.ids)
    assert {"ranking", "languages", "training", "judges", "reproduce"} <= outline.targets
    assert outline.captions == outline.tables > 10


def test_a_full_page_stays_inert_and_prints_no_nan(full):
    reader = Reader(full["report.html"])
    assert [tag for tag in reader.tags if tag == "script"] == ["script"]
    assert reader.handlers == []
    assert "nan" not in reader.text.partition("// Sorts")[0].lower().split()
    assert "nan" not in re.split(r"[\s|()]+", full["report.md"].lower())


def test_every_seed_is_a_point_around_its_mean(complete):
    (view,) = views.model_views(complete)
    figure = rows.draw_seeds(view.ranking, view.seeds)
    axes = figure.axes[0]
    best = complete.ranking.iloc[0]
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    strokes = [line for line in axes.lines if line.get_marker() == "|"]
    assert sorted(circles[0].get_xdata()) == pytest.approx(sorted(100 * rate for rate in best["asr_by_seed"].values()))
    assert strokes[0].get_xdata()[0] == pytest.approx(100 * np.mean(list(best["asr_by_seed"].values())))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(complete.ranking["method"])
    assert [panel.get_xlabel() for panel in figure.axes] == list(rows.RATES.values())


def test_one_seed_is_no_scatter(complete):
    (view,) = views.model_views(complete)
    assert rows.draw_seeds(view.ranking, view.seeds[view.seeds["seed"] == 0]) is None


def test_the_gap_runs_from_the_pivot_to_the_worst_language(complete):
    axes = rows.draw_gap(complete.ranking, "en").axes[0]
    pivot, mean, worst = (np.asarray(line.get_xdata()) for line in axes.lines)
    assert pivot == pytest.approx(100 * complete.ranking["asr_pivot"])
    assert mean == pytest.approx(100 * complete.ranking["asr"])
    assert worst == pytest.approx(100 * complete.ranking["worst_asr"])
    assert [note.get_text() for note in axes.texts] == list(complete.ranking["worst_language"])


def placed(on_front: list[object]) -> pd.DataFrame:
    """Return four methods: a and c are the front of attack success and utility, b and d lie behind it."""
    asr = np.array([0.1, 0.2, 0.3, 0.4])
    return pd.DataFrame(
        {
            "method": list("abcd"), "asr": asr, "asr_low": asr - 0.05, "asr_high": asr + 0.05,
            "utility": [0.5, 0.4, 0.8, 0.7], "over_refusal": 0.1, "on_front": pd.array(on_front, dtype="boolean"),
        }
    )  # fmt: skip


def test_markers_on_the_front_are_filled_and_its_line_climbs_to_the_right():
    # b is on the front for its over-refusal: filled, but the line of the two rates shown leaves it out.
    axes = figures.draw_trade_off(placed([True, True, True, False])).axes[0]
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [line.get_markerfacecolor() for line in drawn] == [canvas.ACCENT, canvas.ACCENT, canvas.ACCENT, "none"]
    (front,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(front.get_xdata()) == pytest.approx([10, 30])
    assert list(front.get_ydata()) == pytest.approx([50, 80])


def test_without_a_known_front_all_markers_are_filled_and_no_line_is_drawn():
    axes = figures.draw_trade_off(placed([pd.NA] * 4)).axes[0]
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert {line.get_markerfacecolor() for line in drawn} == {canvas.ACCENT}
    assert [line for line in axes.lines if line.get_linestyle() == "--"] == []


def test_curves_have_a_panel_per_method_and_a_line_per_seed():
    figure = curves.draw_losses([logged("a", 0), logged("a", 1), logged("b", 0)])
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == ["a", "b"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    assert curves.draw_losses([]) is None


def test_the_links_of_a_chain_that_log_have_panels_of_their_own():
    figure = curves.draw_losses([logged("a", 0, link="dpo"), logged("a", 0, link="mpo")])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a: dpo", "a: mpo"]


def test_terms_are_the_method_s_own():
    own = logged("a", 0)
    library = replace(own, points=tuple({**point, "logps/chosen": 1.0, "grad_norm": 1.0} for point in own.points))
    figure = curves.draw_terms([library])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["mlc/cosine"]
    assert curves.draw_terms([logged("a", 0, term="entropy")]) is None


def test_a_long_curve_is_drawn_as_means_and_keeps_its_gaps():
    # 120 points become 60 pairs: steps (1 + 2) / 2, (3 + 4) / 2 and so on; one pair holds a value that is not finite.
    points = [(float(step), float(step)) for step in range(1, 121)]
    points[4] = (5.0, math.nan)
    steps, values = curves.shortened(points)
    assert len(steps) == curves.LONGEST
    assert list(steps[:3]) == [1.5, 3.5, 5.5]
    assert list(values[:2]) == [1.5, 3.5]
    assert math.isnan(values[2])
    assert list(curves.shortened([(1.0, 4.0), (2.0, 3.0)])[1]) == [4.0, 3.0]


def test_the_page_shows_curves_terms_and_gpu_time(full):
    text = Reader(full["report.html"]).text
    assert "Training loss by step" in full["report.html"]
    assert "What good logs beside its loss" in text
    assert "mlc/cosine" in text
    # Two trainings of 41.5 s each: 41.5 s on average, on two GPUs.
    assert "GPU-seconds" in text
    assert re.search(r">83<", full["report.html"])


def test_agreement_of_judges_is_shown_with_its_interval(full):
    text = Reader(full["report.html"]).text
    assert "Planned judge and guard" in text
    assert "0.50 to 0.90" in text
    assert "87.5" in text
    assert "cannot be recognised for xx" in text


def test_without_another_judge_the_page_says_how_to_get_one(complete, tmp_path):
    paths = report.write(complete, run_info(METHODS), tmp_path)
    text = Reader(paths["report.html"].read_text(encoding="utf-8")).text
    assert "mlbench judge runs/demo" in text
    assert "cannot be recognised" not in text


def test_numbers_of_papers_stand_beside_the_same_rate_of_the_same_method(complete):
    methods = (
        MethodInfo(name="chain", plugin="good + swe", paper="arXiv:1, arXiv:2", reported=REPORTED),
        MethodInfo(name="good", plugin="good", paper="arXiv:1", reported=REPORTED),
    )
    found = reported.reported(replace(run_info(METHODS), methods=methods), complete.ranking)
    good = complete.ranking.set_index("method").loc["good"]
    assert [row.paper for row in found] == ["arXiv:1"] * len(REPORTED)  # the chain's copies are left out
    asr, safe, helpful, elsewhere = found
    assert asr.measured == {"organism": pytest.approx(100 * good["asr"])}
    assert safe.measured == {"organism": pytest.approx(100 * (1 - good["asr"] - good["invalid"] - good["unparsed"]))}
    assert math.isnan(helpful.measured["organism"])
    assert elsewhere.measured == {}
    assert (asr.value, safe.value) == ("3.5", "95.9")


def test_a_paper_s_method_is_found_by_its_plugin_where_only_one_method_has_it(complete):
    row = {"source": "x", "model": "y", "metric": "ASR", "method": "mpo+swe", "value": 1}
    info = run_info(METHODS)
    one = MethodInfo(name="good", plugin="mpo + swe", reported=(row,))
    (found,) = reported.reported(replace(info, methods=(one,)), complete.ranking)
    assert list(found.measured) == ["organism"]
    (found,) = reported.reported(replace(info, methods=(one, replace(one, name="none"))), complete.ranking)
    assert found.measured == {}


def test_reported_numbers_are_in_page_and_text(full):
    for text in (Reader(full["report.html"]).text, full["report.md"]):
        assert "MultiJail" in text
        assert "95.9" in text
        assert "only where data set, languages, model" in text


def test_every_bibtex_entry_is_there_once():
    info = run_info(METHODS)
    other = "@misc{key2, title = {Two}}"
    methods = tuple(replace(method, citations=(ENTRY, f"\n{ENTRY}\n", other)) for method in info.methods)
    tasks = tuple(replace(task, citations=(other, "@book{key3,\n}")) for task in info.tasks)
    found = reported.bibtex(replace(info, methods=methods, tasks=tasks))
    assert re.findall(r"@\w+\{(\w+)", found) == ["key1", "key2", "key3"]
    assert found.startswith(f"{ENTRY}\n\n@misc")
    assert found.endswith("}\n")
    assert reported.bibtex(info) == ""


def test_literature_is_on_the_page(full):
    assert "@article{key1" in Reader(full["report.html"]).text
    assert "references.bib" in full["report.md"]


def test_columns_without_a_number_and_ranges_without_width_are_left_out():
    empty = {name: math.nan for column in effects.COLUMNS for name in column.names}
    lines = [
        empty | {"cohens_h": 0.2, "bound_low": 0.1, "bound_high": 0.1},
        empty | {"seed_low": -0.2, "seed_high": 0.1},
    ]
    shown = effects.effects(lines)
    assert [column.names for column in shown] == [("cohens_h",), ("seed_low", "seed_high")]
    assert [column.text(line) for column in shown for line in lines] == ["0.20", "–", "–", "−20.0 to +10.0"]


def test_what_may_be_broken_is_marked_in_the_ranking(tmp_path):
    methods = {"none": Behaviour(unsafe=0.6, steps=0), "broken": Behaviour(unsafe=0.1, invalid=0.5)}
    grid = Grid(methods=methods)
    paths = report.write(compute(verdicts(grid), jobs(grid), grid.design()), run_info(methods), tmp_path)
    page = paths["report.html"].read_text(encoding="utf-8")
    assert page.count("signs of collapse") == 1
    assert "% of the answers invalid" in Reader(page).text
    assert "% of the answers invalid" in paths["report.md"].read_text(encoding="utf-8")


def test_two_models_have_their_own_figures_and_headings(tmp_path):
    grid = Grid(methods=METHODS, models=("one", "two"), seeds=(0, 1))
    paths = report.write(compute(verdicts(grid), jobs(grid), grid.design()), run_info(METHODS), tmp_path)
    page = paths["report.html"].read_text(encoding="utf-8")
    for model in ("one", "two"):
        assert f"Collapse monitor: {model}" in page
    outline = Outline(page)
    assert len(set(outline.ids)) == len(outline.ids)


def test_a_name_that_looks_like_svg_leaves_the_figure_whole():
    name = ' x="1.23456 transform="rotate(0 font-family: a style="font-family: '
    figure = canvas.svg(curves.draw_losses([logged(name, 0), logged("other", 0)]), 'what "it" shows')
    assert figure.count("<g") == figure.count("</g>")
    assert ">other</text>" in figure
    assert 'aria-label="what &quot;it&quot; shows"' in figure
    Outline(figure)


def test_a_run_folder_brings_its_curves_and_its_judges_to_the_page(bench: Bench):
    root = verbs.run(bench.write(methods=["none"]), inline=True).folder
    store, plan = Store(root), tables.read_plan(root)
    (key,) = [key for key, job in plan["jobs"].items() if job["kind"] == "align"]
    points = [{"step": 1, "loss": 0.5, "mine/term": 3.0}, {"step": 2, "loss": 0.75, "mine/term": 4.0}]
    (store.folder(key) / "curve.json").write_text(json.dumps(points), encoding="utf-8")
    agreement = "language,n,unread,both,first,second,neither,agreement,kappa,ac1,p\nNA,4,0,1,1,0,2,0.75,0.5,0.6,1.0\n"
    (root / "report" / "agreement-other.csv").write_text(agreement, encoding="utf-8")
    written, results = reporting.write_report(root)
    assert results.health.iloc[0][["loss_first", "loss_last"]].tolist() == [0.5, 0.75]
    assert results.health.iloc[0]["signs"].startswith("the loss did not fall")
    text = Reader(written["report.html"].read_text(encoding="utf-8")).text
    assert "mine/term" in text
    assert "Planned judge and other" in text
    assert re.search(r"\bNA\b", text)

"""Tables -> a self-contained HTML page, and the same as Markdown.

Model output and names are untrusted: everything is escaped, and the page's content security policy runs no script
but its own.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mlbench.report import curves, diagrams, figures, rows
from mlbench.report.answers import script_json
from mlbench.report.info import MethodInfo, RunInfo
from mlbench.report.reported import bibtex, reported
from mlbench.report.terminal import interval
from mlbench.report.views import ModelView, failure_lines
from mlbench.results import Design, Results, words

if TYPE_CHECKING:
    from jinja2 import Environment

CROSSLINGUAL = {
    "worst": ("worst language, %", words.percent),
    "pivot_gap": ("worst less pivot, points", words.percent),
    "variance": ("variance × 100", words.decimal),
    "any_language": ("unsafe in any language, %", words.percent),
    "loophole": ("refused in the pivot, unsafe elsewhere, %", words.percent),
    "agreement": ("pairwise agreement, %", words.percent),
    "kappa": ("Fleiss’ kappa", words.decimal),
}
GROUP_MEASURES = {
    "asr": "attack success",
    "leak": "leaks",
    "over_refusal": "over-refusal",
    "accuracy": "utility",
    "invalid": "invalid",
}
FILTERS = (
    *("percent", "signed", "p_value", "p_equals", "duration", "count", "decimal"),
    *("by_language", "md", "paper_link"),
)
FIDELITY = {
    "released code": "as released",
    "paper": "as in the paper",
    "reconstruction": "reconstruction",
    "baseline": "standard baseline",
}


def html(results: Results, run: RunInfo, views: tuple[ModelView, ...]) -> str:
    """Return the page."""
    from markupsafe import Markup

    script, style = (resource(f"report.{kind}") + resource(f"answers.{kind}") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    drawn = {view.model: _figures(view, run, results.design) for view in views}
    return (
        environment(escape=True)
        .get_template("report.html.j2")
        .render(
            results=results,
            run=run,
            views=views,
            figures=drawn,
            ranks=Markup(diagrams.critical_difference(results.blocks)),
            trade_off=any(figure["trade_off"] for figure in drawn.values()),
            marks={method.name: _mark(method) for method in run.methods},
            reported=reported(run, results.ranking),
            bibtex=bibtex(run),
            failures=failure_lines(results.failures),
            style=Markup(style),
            script=Markup(script),
            script_hash=digest,
            answers=run.answers,
            answers_json=Markup(script_json(run.answers) if run.answers else ""),
        )
    )


def _mark(method: MethodInfo) -> list[str]:
    """Return what an implementation follows, unless its name says so already."""
    found = [entry for entry in method.fidelity.split(", ") if entry and entry not in method.name]
    return [FIDELITY.get(entry, entry) for entry in found]


def _figures(view: ModelView, run: RunInfo, design: Design) -> dict[str, Any]:
    from markupsafe import Markup

    order = {line["method"]: place for place, line in enumerate(view.lines)}
    logged = [curve for curve in run.curves if curve.model == view.model and curve.method in order]
    logged.sort(key=lambda curve: order[curve.method])
    return {
        "trade_off": Markup(figures.trade_off(view.ranking)),
        "deltas": Markup(figures.language_deltas(view.deltas, design.alpha)),
        "seeds": Markup(rows.seeds(view.ranking, view.seeds)),
        "gap": Markup(rows.gap(view.ranking, design.pivot)),
        "losses": Markup(curves.losses(logged)),
        "terms": {method: Markup(figure) for method, figure in curves.terms(logged).items()},
    }


def markdown(results: Results, run: RunInfo, views: tuple[ModelView, ...]) -> str:
    """Return the same report as Markdown, without figures."""
    template = environment(escape=False).get_template("report.md.j2")
    return template.render(
        results=results,
        run=run,
        views=views,
        failures=failure_lines(results.failures),
        reported=reported(run, results.ranking),
        bibtex=bibtex(run),
    )


def resource(name: str) -> str:
    """Return the text of a file of the package of report templates."""
    return files("mlbench_reports").joinpath(name).read_text(encoding="utf-8")


@cache
def environment(*, escape: bool) -> Environment:
    """Return where templates are found, with the filters they use; `escape` is for HTML."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["group_measures"] = GROUP_MEASURES
    environment.globals["crosslingual"] = CROSSLINGUAL
    for name in FILTERS:
        environment.filters[name] = getattr(words, name)
    environment.filters["interval"] = interval
    return environment

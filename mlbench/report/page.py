"""Tables -> a self-contained HTML page, Markdown and CSV files, and a table for the terminal.

Model output and names are untrusted: everything is escaped, and the page's content security policy runs no script
but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlbench.report import figures
from mlbench.report.views import ModelView, failure_lines, model_views
from mlbench.results import Results, words

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.table import Table

CSV_TABLES = ("ranking", "groups", "crosslingual", "comparisons", "references", "means", "cells", "failures")
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


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """A method as the shootout configured it.

    Attributes:
        plugin: Plugin name, or several joined by " + " for a chain.
        paper: "arXiv:2602.16660" or an address; "" if there is none.
        fields: Its hyper-parameters, defaults included.
        note: What it does, and where it deviates from its paper.
        fidelity: What the implementation follows: released code, the paper, a reconstruction, or a standard baseline.
        reported: Numbers of the paper, each with its source, model, metric, method and value; shown apart and never
            ranked with measured ones.
        citations: BibTeX entries.
    """

    name: str
    plugin: str
    paper: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    note: str = ""
    fidelity: str = ""
    reported: tuple[Mapping[str, str | float], ...] = ()
    citations: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A base model."""

    name: str
    source: str
    revision: str
    dtype: str


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """An evaluation set.

    Attributes:
        prompts: Prompts per language.
        citations: BibTeX entries.
    """

    name: str
    kind: str
    source: str
    licence: str
    judge: str
    languages: tuple[str, ...]
    prompts: int
    citations: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Everything a report says that is not a result.

    Attributes:
        shootout_text: The shootout file, word for word.
        command: The one command that reproduces the run.
        versions: Package or tool -> version.
        started: ISO 8601, as is `finished`; "" while the run goes on.
        machine: Processor, memory and accelerators in words.
        plan: What was planned, in words -> size, e.g. {"trainings": 18}.
        excluded: What the plan left out, with the reason.
        selection: Every trial by which settings were selected, see `selection.choose`; empty where none were.
    """

    name: str
    title: str
    shootout_text: str
    shootout_path: str
    command: str
    versions: Mapping[str, str]
    started: str
    finished: str
    machine: str
    folder: str
    methods: tuple[MethodInfo, ...]
    models: tuple[ModelInfo, ...]
    tasks: tuple[TaskInfo, ...]
    plan: Mapping[str, int] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)


def write(results: Results, run: RunInfo, folder: Path) -> dict[str, Path]:
    """Write report.html, report.md and one CSV file per table into `folder`, and return name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    views = model_views(results)
    paths = {name: folder / name for name in ("report.html", "report.md")}
    paths["report.html"].write_text(html(results, run, views), encoding="utf-8")
    paths["report.md"].write_text(markdown(results, run, views), encoding="utf-8")
    for table in CSV_TABLES:
        paths[f"{table}.csv"] = folder / f"{table}.csv"
        getattr(results, table).to_csv(paths[f"{table}.csv"], index=False)
    return paths


def html(results: Results, run: RunInfo, views: tuple[ModelView, ...]) -> str:
    """Return the page."""
    from markupsafe import Markup

    script, style = _resource("report.js"), _resource("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    drawn = {
        view.model: {
            "trade_off": Markup(figures.trade_off(view.ranking)),
            "deltas": Markup(figures.language_deltas(view.deltas, results.design.alpha)),
        }
        for view in views
    }
    return (
        _environment(escape=True)
        .get_template("report.html.j2")
        .render(
            results=results,
            run=run,
            views=views,
            figures=drawn,
            failures=failure_lines(results.failures),
            style=Markup(style),
            script=Markup(script),
            script_hash=digest,
        )
    )


def markdown(results: Results, run: RunInfo, views: tuple[ModelView, ...]) -> str:
    """Return the same report as Markdown, without figures."""
    template = _environment(escape=False).get_template("report.md.j2")
    return template.render(results=results, run=run, views=views, failures=failure_lines(results.failures))


def _resource(name: str) -> str:
    return files("mlbench_reports").joinpath(name).read_text(encoding="utf-8")


def _environment(*, escape: bool) -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["group_measures"] = GROUP_MEASURES
    environment.globals["crosslingual"] = CROSSLINGUAL
    for name in ("percent", "signed", "p_value", "p_equals", "duration", "count", "by_language", "md", "paper_link"):
        environment.filters[name] = getattr(words, name)
    environment.filters["interval"] = _interval
    return environment


def terminal(results: Results, *, wide: bool = True) -> Table:
    """Return the ranking for the terminal: about 112 columns, or 80 without intervals and training time."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    first = 0 if results.ranking["model"].nunique() > 1 else 1  # one model needs no column
    last = len(_HEADINGS) if wide else len(_HEADINGS) - 1
    for heading in _HEADINGS[first:last]:
        justify: Literal["left", "right"] = "left" if heading in ("model", "method") else "right"
        width = {"#": 3, "method": max(map(len, results.ranking["method"]))}.get(heading)
        table.add_column(
            heading.format(baseline=results.design.baseline), justify=justify, no_wrap=True, min_width=width
        )
    for line in results.ranking.to_dict("records"):
        # Text, not str: a name with square brackets is no markup.
        table.add_row(*(Text(entry) for entry in _entries(line, intervals=wide)[first:last]))
    return table


def verdicts(results: Results) -> list[str]:
    """Return one sentence per method that is compared with the baseline."""
    lines = []
    for line in results.ranking.to_dict("records"):
        if line["method"] != results.design.baseline:
            where = f" on {line['model']}" if results.ranking["model"].nunique() > 1 else ""
            lines.append(
                f"{line['method']}{where}: {line['verdict']} (attack success against {results.design.baseline})"
            )
    return lines


_HEADINGS = (
    *("model", "#", "method", "attack\nsuccess %", "against\n{baseline}", "p\n(Holm)"),
    *("over-\nrefusal %", "utility\n%", "invalid\n%", "training"),
)


def _interval(line: Mapping[str, object], name: str) -> str:
    return words.with_interval(line, name, words.signed if name == "delta" else words.percent)


def _entries(line: Mapping[str, object], *, intervals: bool) -> list[str]:
    tie = "=" if line["tied"] else ""
    return [
        str(line["model"]),
        tie + words.count(line["rank"]),
        str(line["method"]),
        _interval(line, "asr") if intervals else words.percent(line["asr"]),
        _interval(line, "delta") if intervals else words.signed(line["delta"]),
        words.p_value(line["p_holm"]),
        words.percent(line["over_refusal"]),
        words.percent(line["utility"]),
        words.percent(line["invalid"]),
        words.duration(line["train_seconds"]),
    ]

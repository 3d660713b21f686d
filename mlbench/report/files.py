"""What a report leaves on disk: the page, the same as Markdown, and tables and figures for other programs and papers.

<folder>/report.html, report.md      the report
<folder>/<table>.csv                 every table
<folder>/parquet/<table>.parquet     the same with types
<folder>/latex/<table>.tex           tables for papers, and tables.tex, which shows them all
<folder>/figures/<figure>.svg|.pdf   figures for papers
<folder>/references.bib              the papers of methods and data sets, where there are any
<folder>/files.json                  what is written above
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mlbench.report import curves, diagrams, figures, latex, rows
from mlbench.report.info import RunInfo
from mlbench.report.page import html, markdown
from mlbench.report.reported import bibtex
from mlbench.report.views import ModelView, model_views
from mlbench.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV_TABLES = (
    *("ranking", "seeds", "groups", "crosslingual", "comparisons", "references", "omnibus", "health"),
    *("means", "cells", "failures"),
)
LIST = "files.json"


def write(results: Results, run: RunInfo, folder: Path) -> dict[str, Path]:
    """Write a report into `folder` and return name -> path, names relative to the folder.

    Everything is made beside the folder first, so that an error leaves the earlier report as it was. Files of an
    earlier report that this one lacks are removed; what others put into the folder stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        made = Path(name)
        views = model_views(results)
        (made / "report.html").write_text(html(results, run, views), encoding="utf-8")
        (made / "report.md").write_text(markdown(results, run, views), encoding="utf-8")
        _write_tables(results, made)
        _write_latex(results, run, views, made / "latex")
        _write_figures(results, run, views, made / "figures")
        if cited := bibtex(run):
            (made / "references.bib").write_text(cited, encoding="utf-8")
        return _replace(made, folder)


def _write_tables(results: Results, folder: Path) -> None:
    (folder / "parquet").mkdir()
    for name, table in _tables(results).items():
        table.to_csv(folder / f"{name}.csv", index=False)
        plain(table).to_parquet(folder / "parquet" / f"{name}.parquet", index=False)


def _tables(results: Results) -> dict[str, pd.DataFrame]:
    found = {name: getattr(results, name) for name in CSV_TABLES}
    found["block_ranks"] = results.blocks.ranks
    found["block_pairs"] = results.blocks.pairs.rename_axis("method").reset_index()
    return found


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose mappings are JSON text: Parquet would make of {"en": 3} a column for each language."""
    columns = {
        name: [json.dumps(entry) if isinstance(entry, Mapping) else entry for entry in column]
        for name, column in table.items()
        if any(isinstance(entry, Mapping) for entry in column)
    }
    return table.assign(**columns)


def _write_latex(results: Results, run: RunInfo, views: tuple[ModelView, ...], folder: Path) -> None:
    folder.mkdir()
    places = _places(view.model for view in views)
    names = []
    for view in views:
        for table in latex.tables(results, run, view):
            name = f"{table.name}{places[view.model]}"
            names.append(name)
            label = f"tab:{_slug(run.name)}-{name}"
            (folder / f"{name}.tex").write_text(latex.render(table, label), encoding="ascii")
    (folder / "tables.tex").write_text(latex.document(names), encoding="ascii")


def _write_figures(results: Results, run: RunInfo, views: tuple[ModelView, ...], folder: Path) -> None:
    folder.mkdir()
    places = _places(view.model for view in views)
    found = {"critical-difference": diagrams.draw_critical_difference(results.blocks)}
    for view in views:
        found |= {f"{name}{places[view.model]}": figure for name, figure in _drawn(results, run, view).items()}
    for name, figure in found.items():
        if figure is not None:
            _save(figure, folder / name)


def _drawn(results: Results, run: RunInfo, view: ModelView) -> dict[str, Figure | None]:
    logged = [curve for curve in run.curves if curve.model == view.model]
    return {
        "trade-off": figures.draw_trade_off(view.ranking),
        "language-deltas": figures.draw_language_deltas(view.deltas, results.design.alpha),
        "seeds": rows.draw_seeds(view.ranking, view.seeds),
        "gap": rows.draw_gap(view.ranking, results.design.pivot),
        "losses": curves.draw_losses(logged),
    }


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context

    # Letters as outlines in SVG and as embedded TrueType in PDF: both look the same everywhere.
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": path.name, "pdf.fonttype": 42}):
        figure.savefig(path.with_name(f"{path.name}.svg"), transparent=True, metadata={"Date": None, "Creator": None})
        # A figure lays itself out anew each time; once is enough.
        figure.set_layout_engine("none")
        figure.savefig(path.with_name(f"{path.name}.pdf"), transparent=True, metadata={"CreationDate": None})


def _places(models: Iterable[str]) -> dict[str, str]:
    """Return what the names of a model's files end with: nothing where there is only one model."""
    models = tuple(models)
    if len(models) < 2:
        return dict.fromkeys(models, "")
    return {model: f"-{number}-{_slug(model)}" for number, model in enumerate(models, start=1)}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _replace(made: Path, folder: Path) -> dict[str, Path]:
    """Move what was made into the folder, remove what only an earlier report had, and return name -> path."""
    names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    earlier = _listed(folder)
    (made / LIST).write_text(json.dumps(names, indent=1), encoding="utf-8")
    for name in [*names, LIST]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).replace(folder / name)
    for name in earlier - set(names):
        (folder / name).unlink(missing_ok=True)
    return {name: folder / name for name in names}


def _listed(folder: Path) -> set[str]:
    path = folder / LIST
    names = set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()
    return {name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())}

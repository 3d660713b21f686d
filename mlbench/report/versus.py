"""The comparison of two runs -> a page, the same as Markdown, CSV files, and a summary for the terminal."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlbench.errors import shorten
from mlbench.report.page import environment, resource
from mlbench.results import words

TABLES = ("lines", "cells", "flips", "only", "changes")
SHOWN = 40
"""Cells on the page; all of them are in the CSV file."""
MEASURES = {
    "asr": "attack success, %",
    "over_refusal": "over-refusal, %",
    "utility": "utility, %",
    "invalid": "invalid, %",
}
SHORT = 40
"""Letters of a change up to which the summary for the terminal tells the values."""
TOLD = 5
"""Lines of each kind in the summary for the terminal."""


@dataclass(frozen=True, kw_only=True)
class Half:
    """One of the two runs.

    Attributes:
        created: When it was planned last, ISO 8601.
        cells: Planned ones.
    """

    folder: str
    title: str
    command: str
    created: str
    cells: int


@dataclass(frozen=True, kw_only=True)
class Versus:
    """Two runs; every difference is that of `b` less `a`.

    Attributes:
        lines: See `results.versus.lines`, as are `cells`, `flips` and `only`.
        changes: What the plans say differently: part, name, and what it is in `a` and in `b`.
        diff: Unified diff of the two shootout files.
    """

    a: Half
    b: Half
    alpha: float
    resamples: int
    lines: pd.DataFrame
    cells: pd.DataFrame
    flips: pd.DataFrame
    only: pd.DataFrame
    changes: pd.DataFrame
    diff: tuple[str, ...]


def write(versus: Versus, folder: Path) -> dict[str, Path]:
    """Write versus.html, versus.md and one CSV file per table into `folder`, and return name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in ("versus.html", "versus.md", *(f"{table}.csv" for table in TABLES))}
    paths["versus.html"].write_text(html(versus), encoding="utf-8")
    paths["versus.md"].write_text(markdown(versus), encoding="utf-8")
    for table in TABLES:
        getattr(versus, table).to_csv(paths[f"{table}.csv"], index=False)
    return paths


def html(versus: Versus) -> str:
    """Return the page."""
    from markupsafe import Markup

    script = resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment(escape=True).get_template("versus.html.j2")
    style = Markup(resource("report.css"))
    return template.render(**_shown(versus), style=style, script=Markup(script), script_hash=digest)


def markdown(versus: Versus) -> str:
    """Return the same as Markdown."""
    return environment(escape=False).get_template("versus.md.j2").render(**_shown(versus))


def _shown(versus: Versus) -> dict[str, Any]:
    differing = differing_cells(versus.cells)
    return {
        "versus": versus,
        "headline": headline(versus),
        "level": f"{100 * (1 - versus.alpha):g} %",
        "measures": MEASURES,
        "lines": _by_measure(versus.lines),
        "cells": differing.head(SHOWN).to_dict("records"),
        "differing": len(differing),
        "flips": versus.flips.to_dict("records"),
        "only": versus.only.to_dict("records"),
        # A missing value is what the other run alone states.
        "changes": versus.changes.astype(object).where(versus.changes.notna(), words.DASH).to_dict("records"),
    }


def _by_measure(lines: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry per model and method: its line of each measure, None where there is none."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines.to_dict("records"):
        key = (line["model"], line["method"])
        found.setdefault(key, {"model": key[0], "method": key[1], **dict.fromkeys(MEASURES)})[line["measure"]] = line
    return list(found.values())


def differing_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells whose answers, verdicts or prompts are not the same in both runs, largest difference first."""
    table = cells[~_same(cells)]
    order = table["delta"].abs().rename("size").to_frame().assign(changed=table["changed"])
    return table.loc[order.sort_values(["size", "changed"], ascending=False, kind="stable").index]


def _same(cells: pd.DataFrame) -> pd.Series:
    return cells["same_prompts"] & (cells["changed"] == 0) & (cells["identical"] == 1)


def headline(versus: Versus) -> str:
    """Return how many cells are in both runs, and how many of them are the same."""
    cells = versus.cells
    same = int(_same(cells).sum())
    other = len(cells) - same
    start = (
        f"{len(cells):,} cell{'s' * (len(cells) != 1)} in both: {same:,} equal, {other:,} differ{'s' * (other == 1)}"
    )
    judged = int((cells["changed"] > 0).sum())
    worded = int(((cells["identical"] < 1) & (cells["changed"] == 0)).sum())
    asked = int((~cells["same_prompts"]).sum())
    parts = {"in verdicts": judged, "in answers only": worded, "in prompts": asked}
    why = ", ".join(f"{number:,} {where}" for where, number in parts.items() if number)
    return f"{start} ({why})" if why else start


def summary(versus: Versus) -> str:
    """Return what the terminal shows: cells, the largest differences, and what differs in settings and code."""
    told = [f"A {versus.a.folder}", f"B {versus.b.folder}", headline(versus)]
    moved = versus.lines[(versus.lines["measure"] == "asr") & (versus.lines["delta"].abs() > 0)]
    moved = moved.loc[moved["delta"].abs().sort_values(ascending=False, kind="stable").index]
    if len(moved):
        told.append("largest differences of attack success, B less A, points:")
    for line in moved.head(TOLD).to_dict("records"):
        sure = f" (p {words.p_equals(line['p_holm'])}, Holm)" if line["same_prompts"] else " (other prompts)"
        where = f"{line['method']} on {line['model']}"
        told.append(f"  {where}: {words.signed(line['delta'])}{sure}")
    for run, part in versus.only.groupby("run"):
        told.append(f"only in {run}: {part['cells'].sum():,} cells of {shorten(dict.fromkeys(part['method']), 8)}")
    for part, lines in versus.changes.fillna(words.DASH).groupby("part"):
        told.append(f"differs in {part}: {shorten(map(_change, lines.to_dict('records')), TOLD)}")
    if versus.changes.empty:
        told.append("nothing differs in settings, code and versions")
    return "\n".join(told)


def _change(line: Mapping[Any, Any]) -> str:
    values = f"{line['a']} → {line['b']}"
    name = str(line["name"])
    return f"{name} {values}".strip() if len(values) <= SHORT else name or values

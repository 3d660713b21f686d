"""Two small runs side by side, with hostile names, for the tests of their page."""

from __future__ import annotations

import pandas as pd

from mlbench.report import Half, Versus
from mlbench.results import versus as tables
from mlbench.results.cells import CELL

from .frames import Behaviour, Grid

GRID = Grid(methods={"none": Behaviour(unsafe=0.5), "good": Behaviour(unsafe=0.2)}, seeds=(0, 1))
EVIL = "<script>alert(1)</script>|x"


def side(rows: pd.DataFrame, prompts: str = "p") -> tables.Side:
    """Return one run that asked all prompts of these rows; `prompts` stands for their hash."""
    asked = rows[CELL].drop_duplicates().assign(prompts=prompts)
    return tables.side(rows, pd.DataFrame(), asked, GRID.design())


def shown(a: tables.Side, b: tables.Side, diff: tuple[str, ...] = ()) -> Versus:
    """Return what a page of two runs shows, with hostile names wherever a stranger's text can stand."""
    half = Half(folder=EVIL, title=EVIL, command=EVIL, created="2026-01-01", cells=72)
    paired = tables.pairs(a, b)
    return Versus(
        a=half,
        b=half,
        alpha=0.05,
        resamples=500,
        lines=tables.lines(a, b, GRID.design()),
        cells=tables.cells(a, b, paired),
        flips=tables.flips(paired),
        only=tables.only(a, b),
        changes=pd.DataFrame([{"part": "methods", "name": EVIL, "a": None, "b": EVIL}]),
        diff=diff,
    )

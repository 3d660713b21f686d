"""Training curves: small multiples, one line per seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlbench.report.canvas import ACCENT, grid, svg, title
from mlbench.report.info import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 60
"""Points of a drawn line; a longer curve is drawn as the means of so many parts."""
STYLES = ("-", "--", ":", "-.")
SPREAD = 50
"""A loss that spans so many times its smallest value is drawn on a logarithmic scale."""
LIBRARY = ("logits/", "logps/")
"""Terms of the training library that say little of a method."""
COLUMNS = 4
HEIGHT = 1.35
SHORT = 20
"""Letters that fit over a panel where there are so many columns."""

Panels = Mapping[str, Sequence[tuple[int, Curve]]]


def losses(curves: Iterable[Curve]) -> str:
    """Return `draw_losses` for the page."""
    return svg(draw_losses(curves), "Training loss by step, one panel per method, one line per seed")


def draw_losses(curves: Iterable[Curve]) -> Figure | None:
    """Return the loss by step, one panel per method (and link of a chain) of one model; None without curves."""
    panels: dict[str, list[Curve]] = {}
    several = _links(curves := tuple(curves))
    for curve in curves:
        name = f"{curve.method}: {curve.link}" if curve.method in several else curve.method
        panels.setdefault(name, []).append(curve)
    return _draw({name: (found, "loss") for name, found in panels.items()})


def terms(curves: Iterable[Curve]) -> dict[str, str]:
    """Return per method the terms it logs beside its loss, for the page; methods without any are left out."""
    by_method: dict[str, list[Curve]] = {}
    for curve in curves:
        by_method.setdefault(curve.method, []).append(curve)
    drawn = {
        method: svg(draw_terms(found), f"Terms of the training of {method} by step, one line per seed")
        for method, found in by_method.items()
    }
    return {method: figure for method, figure in drawn.items() if figure}


def draw_terms(curves: Sequence[Curve]) -> Figure | None:
    """Return the terms that the trainings of one method log beside the loss, such as mlc/cosine; None without any."""
    logged = dict.fromkeys(name for curve in curves for point in curve.points for name in point)
    own = [name for name in logged if "/" in name and not name.startswith(LIBRARY)]
    # The terms of the method itself first, those of the loss it builds on last.
    own.sort(key=lambda name: name.startswith("rewards/"))
    return _draw({name: (curves, name) for name in own})


def _links(curves: Iterable[Curve]) -> set[str]:
    """Return the methods of which several links log a curve."""
    links: dict[str, set[str]] = {}
    for curve in curves:
        links.setdefault(curve.method, set()).add(curve.link)
    return {method for method, found in links.items() if len(found) > 1}


def _draw(panels: Mapping[str, tuple[Sequence[Curve], str]]) -> Figure | None:
    if not panels:
        return None
    most = COLUMNS if max(map(len, panels)) <= SHORT else COLUMNS - 1
    columns = min(most, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, grid_ = grid(rows, columns, HEIGHT, shared=False, fitted=False)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.45 / width, right=1 - 0.1 / width, wspace=0.5, bottom=0.25 / height, top=1 - 0.25 / height, hspace=0.6
    )
    for axes, (name, (curves, term)) in zip(grid_, panels.items(), strict=False):
        _panel(axes, curves, term)
        title(axes, name)
    for axes in grid_[len(panels) :]:
        axes.set_visible(False)
    return figure


def _panel(axes: Axes, curves: Sequence[Curve], term: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    lowest, highest = math.inf, -math.inf
    for place, curve in enumerate(sorted(curves, key=lambda curve: curve.seed)):
        steps, values = shortened([(point["step"], point[term]) for point in curve.points if term in point])
        axes.plot(steps, values, STYLES[place % len(STYLES)], color=ACCENT, linewidth=1)
        finite = values[np.isfinite(values)]
        if len(finite):
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    if 0 < lowest * SPREAD < highest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(LogLocator(subs=()))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=7)


def shortened(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of a curve as at most `LONGEST` points, each the mean of as many neighbours.

    A part with a value that is not finite stays so: a gap in the line.
    """
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    parts = np.array_split(table, min(LONGEST, max(1, len(table))))
    means = np.array([part.mean(axis=0) for part in parts if len(part)]).reshape(-1, 2)
    return means[:, 0], means[:, 1]

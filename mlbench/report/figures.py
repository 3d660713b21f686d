"""Figures, readable without colour: inline SVG in the page's own text colour and font, and files for papers.

`draw_...` returns a figure that can be saved as it is; `svg` makes of it what stands on a page.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from mlbench.report.canvas import ACCENT, INK, MUTED, canvas, grid, names, svg, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*<>hp"
# Where a name may stand relative to its marker: pixels right and up, and which side of the name is there.
OFFSETS = [
    (0, 10, "center"),
    (0, -19, "center"),
    *((x, y, side) for y in (8, -17, 22, -31) for x, side in ((6, "left"), (-6, "right"))),
]
CROWDED = 9
"""From so many methods on, markers have numbers, and the names stand beside the figure."""
SHARE_LEFT = {"left": 0.0, "center": 0.5, "right": 1.0}


def trade_off(ranking: pd.DataFrame) -> str:
    """Return `draw_trade_off` for the page."""
    return svg(draw_trade_off(ranking), "Attack success against utility, one marker per method")


def draw_trade_off(ranking: pd.DataFrame) -> Figure | None:
    """Return attack success against utility (or against answered benign prompts) of one model's methods.

    Methods with a missing number are left out; with none left, there is no figure.
    """
    price = "utility" if ranking["utility"].notna().any() else "over_refusal"
    shown = ranking[ranking["asr"].notna() & ranking[price].notna()]
    if shown.empty:
        return None
    figure, axes = canvas(7.6, 3.9)
    y = 100 * shown[price] if price == "utility" else 100 * (1 - shown[price])
    x = 100 * shown["asr"]
    lengths = [100 * (shown["asr"] - shown["asr_low"]), 100 * (shown["asr_high"] - shown["asr"])]
    axes.errorbar(x, y, xerr=lengths, fmt="none", ecolor=MUTED, elinewidth=1, zorder=1)
    shown = shown.assign(x=x, y=y, name=shown["method"])
    first = _mark_front(axes, shown)
    for index, line in enumerate(shown.to_dict("records")):
        fill = ACCENT if line["method"] in first else "none"
        axes.plot(
            line["x"], line["y"], MARKERS[index % len(MARKERS)], color=fill, markeredgecolor=INK, markersize=7, zorder=2
        )
    axes.margins(0.16, 0.18)
    axes.set_xlabel("attack success, % (macro over languages; left is safer)")
    label = "utility, %" if price == "utility" else "benign prompts answered, %"
    axes.set_ylabel(f"{label} (up is better)")
    if len(shown) >= CROWDED:
        shown["name"] = [str(number) for number in range(1, len(shown) + 1)]
        key = "\n".join(f"{number:>2}  {name}" for number, name in zip(shown["name"], shown["method"], strict=True))
        axes.text(1.02, 1, key, transform=axes.transAxes, va="top", color=INK, fontsize=9, parse_math=False)
    _label(figure, axes, shown)
    return figure


def _mark_front(axes: Axes, shown: pd.DataFrame) -> set[str]:
    """Draw the line of the front in the two rates shown, and return the methods whose markers are filled.

    Filled are the methods on the front of all three rates; all of them where no front is known.
    """
    if shown["on_front"].isna().all():
        return set(shown["method"])
    first = shown[shown["on_front"].fillna(False).astype(bool)]
    steps = first.sort_values(["x", "y"], ascending=[True, False])
    steps = steps[steps["y"] > steps["y"].cummax().shift(fill_value=-math.inf)]
    axes.step(steps["x"], steps["y"], where="post", color=ACCENT, linewidth=1, linestyle="--", zorder=1)
    return set(first["method"])


def _label(figure: Figure, axes: Axes, shown: pd.DataFrame) -> None:
    """Write each name by its marker, at the first offset where it covers no other name, marker or whisker."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    to_pixels, inside = axes.transData.transform, axes.get_window_extent()
    spots = list(zip(shown["x"], shown["y"], strict=True))
    taken = [Bbox([to_pixels(spot) - 6, to_pixels(spot) + 6]) for spot in spots]
    ends = zip(100 * shown["asr_low"], 100 * shown["asr_high"], shown["y"], strict=True)
    taken += [Bbox([to_pixels((low, y)) - 1, to_pixels((high, y)) + 1]) for low, high, y in ends]
    for spot, name in zip(spots, shown["name"], strict=True):
        (x, y), width = to_pixels(spot), 7.5 * len(name) + 10
        boxes = [
            Bbox.from_bounds(x + right - width * SHARE_LEFT[side], y + up, width, 12) for right, up, side in OFFSETS
        ]
        fits = [not box.count_overlaps(taken) and inside.x0 < box.x0 and box.x1 < inside.x1 for box in boxes]
        place = fits.index(True) if any(fits) else 0
        taken.append(boxes[place])
        right, up, side = OFFSETS[place]
        points = (right * 72 / figure.dpi, up * 72 / figure.dpi)
        axes.annotate(
            name, spot, xytext=points, textcoords="offset points", ha=side, color=INK, fontsize=9, parse_math=False
        )


def language_deltas(deltas: pd.DataFrame, alpha: float) -> str:
    """Return `draw_language_deltas` for the page."""
    said = "Change of attack success per language against the baseline, with intervals"
    return svg(draw_language_deltas(deltas, alpha), said)


def draw_language_deltas(deltas: pd.DataFrame, alpha: float) -> Figure | None:
    """Return the change of attack success per language against the baseline, one panel per method of one model.

    Filled markers are significant after correction for the number of languages (max-T); None without comparisons.
    """
    methods = list(dict.fromkeys(deltas["method"]))
    if not methods:
        return None
    columns = min(3 if len(methods) < CROWDED else 4, len(methods))
    rows = math.ceil(len(methods) / columns)
    height = 0.7 + 0.19 * deltas["scope"].nunique()
    figure, panels = grid(rows, columns, height)
    for panel, method in zip(panels, methods, strict=False):
        _panel(panel, deltas[deltas["method"] == method], method, alpha)
    for panel in panels[len(methods) :]:
        panel.set_visible(False)
    return figure


def _panel(axes: Axes, lines: pd.DataFrame, method: str, alpha: float) -> None:
    for place, line in enumerate(lines.to_dict("records")):
        sure = line["p"] <= alpha
        axes.plot([100 * line["low"], 100 * line["high"]], [place, place], color=MUTED, linewidth=1.2)
        fill = ACCENT if sure else "none"
        axes.plot(100 * line["delta"], place, "o", markersize=5, markerfacecolor=fill, markeredgecolor=ACCENT)
    axes.axvline(0, color=INK, linewidth=0.8)
    names(axes, [scope.removeprefix("language ") for scope in lines["scope"]])
    title(axes, method)
    axes.set_xlabel("points", fontsize=8)

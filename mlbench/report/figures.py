"""Inline SVG figures: readable without colour, in the page's own text colour and font, on light and on dark."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*<>hp"
# Drawn in these colours and then replaced, so that the figure follows the page's light or dark theme.
INK, MUTED, ACCENT = "#010203", "#040506", "#070809"
THEME = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)"}
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
    """Return attack success against utility (or against answered benign prompts) of one model's methods.

    Methods with a missing number are left out; with none left, the result is "".
    """
    price = "utility" if ranking["utility"].notna().any() else "over_refusal"
    shown = ranking[ranking["asr"].notna() & ranking[price].notna()]
    if shown.empty:
        return ""
    figure, axes = _canvas(7.6, 3.9)
    y = 100 * shown[price] if price == "utility" else 100 * (1 - shown[price])
    x = 100 * shown["asr"]
    lengths = [100 * (shown["asr"] - shown["asr_low"]), 100 * (shown["asr_high"] - shown["asr"])]
    axes.errorbar(x, y, xerr=lengths, fmt="none", ecolor=MUTED, elinewidth=1, zorder=1)
    for index, (left, up) in enumerate(zip(x, y, strict=True)):
        axes.plot(left, up, MARKERS[index % len(MARKERS)], color=ACCENT, markeredgecolor=INK, markersize=7, zorder=2)
    axes.margins(0.16, 0.18)
    axes.set_xlabel("attack success, % (macro over languages; left is safer)")
    label = "utility, %" if price == "utility" else "benign prompts answered, %"
    axes.set_ylabel(f"{label} (up is better)")
    shown = shown.assign(x=x, y=y, name=shown["method"])
    if len(shown) >= CROWDED:
        shown["name"] = [str(number) for number in range(1, len(shown) + 1)]
        key = "\n".join(f"{number:>2}  {name}" for number, name in zip(shown["name"], shown["method"], strict=True))
        axes.text(1.02, 1, key, transform=axes.transAxes, va="top", color=INK, fontsize=9, parse_math=False)
    _label(figure, axes, shown)
    return _svg(figure, "Attack success against utility, one marker per method")


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
    """Return the change of attack success per language against the baseline, one panel per method of one model.

    Filled markers are significant after correction for the number of languages (max-T); "" without comparisons.
    """
    methods = list(dict.fromkeys(deltas["method"]))
    if not methods:
        return ""
    columns = min(3, len(methods))
    rows = math.ceil(len(methods) / columns)
    height = 0.7 + 0.19 * deltas["scope"].nunique()
    figure, grid = _grid(rows, columns, height)
    for panel, method in zip(grid, methods, strict=False):
        _panel(panel, deltas[deltas["method"] == method], method, alpha)
    for panel in grid[len(methods) :]:
        panel.set_visible(False)
    return _svg(figure, "Change of attack success per language against the baseline, with intervals")


def _panel(axes: Axes, lines: pd.DataFrame, method: str, alpha: float) -> None:
    for place, line in enumerate(lines.to_dict("records")):
        sure = line["p"] <= alpha
        axes.plot([100 * line["low"], 100 * line["high"]], [place, place], color=MUTED, linewidth=1.2)
        fill = ACCENT if sure else "none"
        axes.plot(100 * line["delta"], place, "o", markersize=5, markerfacecolor=fill, markeredgecolor=ACCENT)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(lines)), [scope.removeprefix("language ") for scope in lines["scope"]])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.invert_yaxis()
    axes.set_title(method, fontsize=9, color=INK, loc="left", fontweight="bold").set_parse_math(False)
    axes.set_xlabel("points", fontsize=8)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = _grid(1, 1, height, width=width)
    return figure, axes[0]


def _grid(rows: int, columns: int, height: float, *, width: float = 7.6) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, rows * height), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(MUTED)
        axes.tick_params(colors=INK, labelsize=8, color=MUTED, labelbottom=True)
        axes.xaxis.label.set(color=INK, fontsize=9)
        axes.yaxis.label.set(color=INK, fontsize=9)
        axes.patch.set_visible(False)
    return figure, list(panels.flat)


def _svg(figure: Figure, title: str) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Names like figure_1 would be there twice on a page with two figures; nothing refers to them.
    text = re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", text)
    for colour, name in THEME.items():
        text = text.replace(colour, name)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)

"""Figures with one row per method: its seeds, and its gap between languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mlbench.report.canvas import ACCENT, INK, MUTED, canvas, grid, names, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.21
"""Height of a row in inches."""
FRAME = 0.75
RATES = {"asr": "attack success, %", "over_refusal": "over-refusal, %", "utility": "utility, %"}


def seeds(ranking: pd.DataFrame, by_seed: pd.DataFrame) -> str:
    """Return `draw_seeds` for the page."""
    return svg(draw_seeds(ranking, by_seed), "Rates seed by seed, one row per method")


def draw_seeds(ranking: pd.DataFrame, by_seed: pd.DataFrame) -> Figure | None:
    """Return every seed's rates as points around their mean, one row per method of one model.

    Attack success has its interval over source prompts. None where no method has two seeds.

    Args:
        ranking: The methods from the top row down.
        by_seed: One line per method and seed: method, seed, and rates among `RATES`.
    """
    counts = by_seed.groupby("method")["seed"].nunique()
    shown = ranking[ranking["method"].isin(counts.index)]
    rates = [rate for rate in RATES if rate in by_seed and by_seed[rate].notna().any()]
    if shown.empty or counts.max() < 2 or not rates:
        return None
    figure, panels = grid(1, len(rates), FRAME + ROW * len(shown), shared=False)
    for axes, rate in zip(panels, rates, strict=True):
        names(axes, shown["method"] if axes is panels[0] else [""] * len(shown))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(RATES[rate])
        for place, line in enumerate(shown.to_dict("records")):
            points = by_seed.loc[by_seed["method"] == line["method"], rate].dropna()
            _row(axes, place, 100 * points, line if rate == "asr" else {})
        axes.margins(x=0.06)
    return figure


def _row(axes: Axes, place: int, points: pd.Series, interval: dict[str, float]) -> None:
    axes.axhline(place, color=MUTED, linewidth=0.3, zorder=0)
    if interval:
        low, high = 100 * interval["asr_low"], 100 * interval["asr_high"]
        axes.plot([low, high], [place, place], color=MUTED, linewidth=1.4, zorder=1)
    axes.plot(points, [place] * len(points), "o", markersize=4.5, color="none", markeredgecolor=ACCENT, zorder=2)
    if len(points):
        axes.plot(points.mean(), place, "|", markersize=9, markeredgewidth=1.6, color=INK, zorder=3)


def gap(ranking: pd.DataFrame, pivot: str) -> str:
    """Return `draw_gap` for the page."""
    return svg(draw_gap(ranking, pivot), "Attack success in the pivot, on average and in the worst language")


def draw_gap(ranking: pd.DataFrame, pivot: str) -> Figure | None:
    """Return attack success in the pivot, on average and in the worst language, one row per method of one model.

    None where no method has both.
    """
    shown = ranking[ranking["asr_pivot"].notna() & ranking["worst_asr"].notna()]
    if shown.empty:
        return None
    figure, axes = canvas(7.6, FRAME + ROW * len(shown))
    names(axes, shown["method"])
    axes.tick_params(axis="y", length=0)
    styles = {"asr_pivot": ("s", "none", pivot), "asr": ("|", INK, "mean"), "worst_asr": ("^", ACCENT, "worst")}
    rows = range(len(shown))
    axes.hlines(rows, 100 * shown["asr_pivot"], 100 * shown["worst_asr"], color=MUTED, linewidth=1.2, zorder=1)
    for rate, (marker, fill, name) in styles.items():
        edge = INK if marker == "|" else ACCENT
        axes.plot(100 * shown[rate], rows, marker, color=fill, markeredgecolor=edge, markersize=6, label=name)
    for place, line in enumerate(shown.to_dict("records")):
        axes.annotate(
            line["worst_language"], (100 * line["worst_asr"], place), xytext=(6, 0), textcoords="offset points",
            va="center", color=INK, fontsize=8, parse_math=False,
        )  # fmt: skip
    legend = axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_xlabel("attack success, %")
    return figure

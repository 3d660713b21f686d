"""The critical-difference diagram: mean ranks of the methods over models and data sets, and which cannot be told apart.

References:
    Demšar, Journal of Machine Learning Research 7 (2006): the diagram.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlbench.report.canvas import ACCENT, INK, MUTED, canvas, svg
from mlbench.results.blocks import Blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, LINE = 7.6, 0.18
"""Inches: the figure, and one line of text."""
ABOVE = 3.2
"""Lines of text above the axis of ranks."""
GAP = 0.015
"""What is left free around names, as a share of the axis."""
BAR = 2.5
"""Points: the width of a bar."""


def critical_difference(blocks: Blocks) -> str:
    """Return `draw_critical_difference` for the page, "" without ranks."""
    return svg(draw_critical_difference(blocks), title(blocks))


def title(blocks: Blocks) -> str:
    """Return what the diagram shows, and with too few blocks that it is a picture and no test."""
    count = f"picture only: {blocks.count} blocks" if blocks.picture_only else f"{blocks.count} blocks"
    return f"Mean rank by attack success, 1 is safest ({count})"


def draw_critical_difference(blocks: Blocks) -> Figure | None:
    """Return mean ranks on an axis; bars join methods whose ranks do not differ (Nemenyi). None without ranks."""
    if blocks.mean_ranks.empty:
        return None
    from matplotlib.ticker import MaxNLocator
    from scikit_posthocs import critical_difference_diagram

    ranks = blocks.mean_ranks.set_index("method")["mean_rank"]
    figure, axes = canvas(WIDTH, 2.0)
    drawn = critical_difference_diagram(
        ranks,
        blocks.pairs,
        alpha=blocks.alpha,
        ax=axes,
        label_fmt_left="{label}  {rank:.1f}",
        label_fmt_right="{rank:.1f}  {label}",
        marker_props={"color": ACCENT, "edgecolor": INK, "s": 24},
        elbow_props={"color": MUTED, "linewidth": 0.8},
        crossbar_props={"color": INK, "linewidth": BAR, "solid_capstyle": "round"},
        text_h_margin=GAP * (len(ranks) - 1),
    )
    for text in drawn["labels"]:
        # The library writes up to the end of the line that leads to a name.
        aside = GAP / 2 * (len(ranks) - 1)
        text.set_x(text.get_position()[0] + (aside if text.get_ha() == "left" else -aside))
        text.set(color=INK, fontsize=9, parse_math=False)
    lowest = min(text.get_position()[1] for text in drawn["labels"])
    _scale(axes, blocks, len(ranks))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # One unit downwards is one bar or one name.
    axes.set_ylim(lowest - 0.6, ABOVE)
    figure.set_size_inches(WIDTH, 0.4 + LINE * (ABOVE - lowest))
    return figure


def _scale(axes: Axes, blocks: Blocks, methods: int) -> None:
    """Write the title, and above the axis of ranks how far apart two of them have to be."""
    axes.set_xlim(1 - GAP * methods, methods * (1 + GAP))
    axes.spines["top"].set(visible=True, color=MUTED, bounds=(1, methods))
    axes.set_title(title(blocks), fontsize=9, color=INK, loc="left")
    reach = blocks.critical_difference
    said = f"critical difference {reach:.1f}"
    if 1 + reach <= methods:
        axes.plot([1, 1 + reach], [2.6, 2.6], color=INK, linewidth=BAR, solid_capstyle="round")
        axes.text(1 + reach + GAP * methods, 2.6, said, va="center", color=INK, fontsize=9)
    else:
        axes.text(1, 2.6, f"{said}: more than the axis is long", va="center", color=INK, fontsize=9)

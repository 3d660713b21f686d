"""What all figures share: colours, panels, and the way from a figure to inline SVG."""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Files keep these colours; on the page they are replaced, so that the figure follows its light or dark theme.
INK, MUTED, ACCENT = "#010203", "#646b70", "#1d5f8a"
THEME = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)"}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one panel, sizes in inches."""
    figure, axes = grid(1, 1, height, width=width)
    return figure, axes[0]


def grid(
    rows: int, columns: int, height: float, *, width: float = 7.6, shared: bool = True, fitted: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels.

    Args:
        height: Of one row, in inches; the width is the figure's.
        shared: Whether the panels share their horizontal axis.
        fitted: Whether room for names is searched, which takes about a second per ten panels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, rows * height), layout="constrained" if fitted else None)
    panels = figure.subplots(rows, columns, sharex=shared, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(MUTED)
        axes.tick_params(colors=INK, labelsize=8, color=MUTED, labelbottom=True)
        axes.xaxis.label.set(color=INK, fontsize=9)
        axes.yaxis.label.set(color=INK, fontsize=9)
        axes.patch.set_visible(False)
    return figure, list(panels.flat)


def names(axes: Axes, labels: Sequence[str]) -> None:
    """Write one name per row beside the vertical axis, the first on top, whatever signs the names hold."""
    axes.set_yticks(range(len(labels)), list(labels))
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def title(axes: Axes, text: str) -> None:
    """Write a panel's name above it, whatever signs it holds."""
    axes.set_title(text, fontsize=9, color=INK, loc="left", fontweight="bold").set_parse_math(False)


def svg(figure: Figure | None, said: str) -> str:
    """Return a figure as inline SVG in the colours and the font of the page, "" without one.

    Args:
        said: What those are told who cannot see it.
    """
    from matplotlib import rc_context

    if figure is None:
        return ""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": said}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _compact(buffer.getvalue())
    for colour, name in THEME.items():
        text = text.replace(colour, name)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(said)}" ', 1)
    # Two figures on one page may give the same name to different markers.
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>f{digest}-", text)


def _compact(text: str) -> str:
    """Return an SVG without what a page does not need: about a third of the bytes."""
    text = text[text.index("<svg") :]
    # Names like figure_1 would be there twice on a page with two figures; nothing refers to them.
    text = re.sub(r' id="[\w.]+_\d+"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", text)
    # No match may leave its tag: names of methods hold whatever they like.
    text = re.sub(r'(style="[^"<>]*?)font-family: [^;"<>]*;? ?', r"\1", text)  # the page's own
    text = re.sub(r' transform="rotate\(-?0 [^"<>]*"', "", text)
    return re.sub(r' (?:d|x|y|transform)="[^"<>]*"', _rounded, text)


def _rounded(attribute: re.Match[str]) -> str:
    """Return coordinates with two decimals: a hundredth of a point is less than any screen shows."""
    flat = " ".join(attribute.group().split())
    return " " + re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}", flat)

"""Numbers -> the words a reader can repeat."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from numbers import Real

DASH = "–"
MINUS = "−"


def number(value: object) -> float:
    """Return a table entry as a number, NaN where there is none."""
    return float(value) if isinstance(value, Real) else math.nan


def percent(value: object) -> str:
    """Return a rate in percent, without the sign: 0.124 -> "12.4"."""
    return DASH if math.isnan(number(value)) else f"{100 * number(value):.1f}".replace("-", MINUS)


def decimal(value: object) -> str:
    """Return a plain number with two decimals: 0.4213 -> "0.42"."""
    if math.isnan(number(value)):
        return DASH
    text = f"{number(value):.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def signed(value: object) -> str:
    """Return a difference of rates in points, with its sign: -0.124 -> "−12.4"."""
    if math.isnan(number(value)):
        return DASH
    text = f"{100 * number(value):+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def with_interval(line: Mapping[str, object], name: str, style: Callable[[object], str]) -> str:
    """Return a value with its interval: "12.4 [10.1, 14.8]"."""
    if math.isnan(number(line[name])):
        return DASH
    return f"{style(line[name])} [{style(line[f'{name}_low'])}, {style(line[f'{name}_high'])}]"


def p_value(value: object) -> str:
    """Return a p-value as papers print it."""
    p = number(value)
    return DASH if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(value: object) -> str:
    """Return a p-value with its relation: "= 0.012" or "< 0.001"."""
    p = p_value(value)
    return p if p.startswith("<") else f"= {p}"


def duration(value: object) -> str:
    """Return seconds in the largest unit that fits."""
    seconds = number(value)
    if math.isnan(seconds):
        return DASH
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(value: object) -> str:
    """Return a count, shortened from a million on: 12,345 and 1.2 M."""
    many = number(value)
    if math.isnan(many):
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if many >= size:
            return f"{many / size:.1f} {unit}"
    return f"{many:,.0f}"


def by_language(counts: object) -> str:
    """Return what was read in which language: "320 in each of en, it" or "en 320, it 160"."""
    if not isinstance(counts, Mapping) or not counts:
        return DASH
    if len(counts) > 1 and len(set(counts.values())) == 1:
        return f"{count(next(iter(counts.values())))} in each of {', '.join(counts)}"
    return ", ".join(f"{language} {count(many)}" for language, many in counts.items())


def md(value: object) -> str:
    """Return text that Markdown shows as it is, also inside a table, whatever it holds."""
    flat = " ".join(str(value).split())
    escaped = re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def paper_link(paper: str) -> str:
    """Return the address of a paper, "" where there is none that is safe to link."""
    arxiv = re.fullmatch(r"arXiv:(\d{4}\.\d{4,5}(v\d+)?)", paper)
    if arxiv:
        return f"https://arxiv.org/abs/{arxiv.group(1)}"
    return paper if re.fullmatch(r"https://[\w./?=&%#~+-]+", paper) else ""


def points(value: float) -> str:
    """Return a difference of rates in percentage points, without sign: 0.124 -> "12.4 points"."""
    return f"{abs(100 * value):.1f} points"


def verdict(line: Mapping[str, object], *, is_baseline: bool, alpha: float) -> str:
    """Return what the primary comparison says.

    Args:
        line: With delta, p_holm, mde and seeds_agree.
    """
    if is_baseline:
        return "baseline"
    delta, p, mde = (number(line[key]) for key in ("delta", "p_holm", "mde"))
    if math.isnan(p):
        return "not compared: incomplete"
    if p <= alpha:
        side = "better" if delta < 0 else "worse"
        return f"{side} by {points(delta)}" + ("" if line["seeds_agree"] else ", but not in every seed")
    if mde >= 1:
        return "not distinguishable: too few prompts to see any difference"
    return f"not distinguishable: this design sees {points(mde)} or more"


def price(line: Mapping[str, object], name: str, *, margin: float, alpha: float, differs: bool | None = None) -> str:
    """Return whether over-refusal or utility gets worse, and whether by less than its margin.

    Args:
        line: With `<name>_delta`, `<name>_delta_low`, `<name>_delta_high` and `<name>_p_margin`.
        name: "over_refusal", where a rise is a loss, or "utility", where a fall is.
        differs: Whether a difference is established; None = where the interval leaves out 0.
    """
    low, high = number(line[f"{name}_delta_low"]), number(line[f"{name}_delta_high"])
    loss = number(line[f"{name}_delta"])
    if math.isnan(loss):
        return ""
    if name == "utility":
        low, high, loss = -high, -low, -loss
    # One side at alpha / 2 belongs to the two-sided interval at alpha.
    held = number(line[f"{name}_p_margin"]) <= alpha / 2
    if differs is None:
        differs = low > 0 or high < 0
    if differs and loss > 0:
        return f"worse by {points(loss)}" + (f", not inferior (margin {points(margin)})" if held else "")
    if differs:
        return f"better by {points(loss)}"
    if held:
        return f"not inferior (margin {points(margin)})"
    if high > margin:
        return f"up to {points(high)} worse is possible"
    return f"too few prompts to exclude a loss of {points(margin)}"

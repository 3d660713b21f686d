"""The ranking and one sentence per method, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from mlbench.results import Results, words

if TYPE_CHECKING:
    from rich.table import Table


def terminal(results: Results, *, wide: bool = True) -> Table:
    """Return the ranking for the terminal: about 112 columns, or 80 without intervals and training time."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    first = 0 if results.ranking["model"].nunique() > 1 else 1  # one model needs no column
    last = len(_HEADINGS) if wide else len(_HEADINGS) - 1
    for heading in _HEADINGS[first:last]:
        justify: Literal["left", "right"] = "left" if heading in ("model", "method") else "right"
        width = {"#": 3, "method": max(map(len, results.ranking["method"]))}.get(heading)
        table.add_column(
            heading.format(baseline=results.design.baseline), justify=justify, no_wrap=True, min_width=width
        )
    for line in results.ranking.to_dict("records"):
        # Text, not str: a name with square brackets is no markup.
        table.add_row(*(Text(entry) for entry in _entries(line, intervals=wide)[first:last]))
    return table


def verdicts(results: Results) -> list[str]:
    """Return one sentence per method that is compared with the baseline."""
    lines = []
    for line in results.ranking.to_dict("records"):
        if line["method"] != results.design.baseline:
            where = f" on {line['model']}" if results.ranking["model"].nunique() > 1 else ""
            lines.append(
                f"{line['method']}{where}: {line['verdict']} (attack success against {results.design.baseline})"
            )
    return lines


_HEADINGS = (
    *("model", "#", "method", "attack\nsuccess %", "against\n{baseline}", "p\n(Holm)"),
    *("over-\nrefusal %", "utility\n%", "invalid\n%", "training"),
)


def interval(line: Mapping[str, object], name: str) -> str:
    """Return a value of a ranking line with its interval, a difference with its sign."""
    return words.with_interval(line, name, words.signed if name == "delta" else words.percent)


def _entries(line: Mapping[str, object], *, intervals: bool) -> list[str]:
    tie = "=" if line["tied"] else ""
    return [
        str(line["model"]),
        tie + words.count(line["rank"]),
        str(line["method"]),
        interval(line, "asr") if intervals else words.percent(line["asr"]),
        interval(line, "delta") if intervals else words.signed(line["delta"]),
        words.p_value(line["p_holm"]),
        words.percent(line["over_refusal"]),
        words.percent(line["utility"]),
        words.percent(line["invalid"]),
        words.duration(line["train_seconds"]),
    ]

"""The columns of a ranking that say how large and how sure a difference is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mlbench.results import words


class Column(NamedTuple):
    """A column that a page shows where at least one method has a number in it.

    Attributes:
        names: The column of the ranking, or the two ends of a range.
        meaning: One sentence for those who have not met it before.
    """

    title: str
    names: tuple[str, ...]
    style: Callable[[object], str]
    meaning: str

    def text(self, line: Mapping[str, object]) -> str:
        """Return the entry of one method."""
        shown = [self.style(line[name]) for name in self.names]
        return words.DASH if words.DASH in shown else " to ".join(shown)


COLUMNS = (
    Column(
        "less attack success, %",
        ("relative_reduction",),
        words.percent,
        "which share of the baseline’s attack success is gone",
    ),
    Column("Cohen’s h", ("cohens_h",), words.decimal, "the difference on a scale on which 0.2 is small and 0.8 large"),
    Column(
        "superiority, %",
        ("superiority",),
        words.percent,
        "how often a source prompt, drawn at random, fares better than under the baseline, ties counting half",
    ),
    Column(
        "points, seeds at random",
        ("seed_low", "seed_high"),
        words.signed,
        "the interval of the difference if the seeds, too, are a sample: it speaks of the method, not of its "
        "checkpoints",
    ),
    Column("spread of seeds, points", ("asr_seed_sd",), words.percent, "standard deviation of attack success"),
    Column(
        "smallest visible, points",
        ("mde",),
        words.percent,
        "the difference to the baseline that would be found in 8 of 10 repetitions",
    ),
    Column(
        "unparsed safe or unsafe, %",
        ("bound_low", "bound_high"),
        words.percent,
        "attack success if every answer the judge could not read were safe, or unsafe",
    ),
    Column(
        "specificity to tip, points",
        ("tip_specificity",),
        words.percent,
        "by how much the judge’s specificity would have to differ between the method and the baseline to make up the "
        "whole difference",
    ),
    Column("sensitivity to tip, points", ("tip_sensitivity",), words.percent, "the same for its sensitivity"),
    Column(
        "on the front, %",
        ("p_front",),
        words.percent,
        "share of the bootstrap draws in which no other method is at least as good in attack success, over-refusal and "
        "utility and better in one",
    ),
)


def effects(lines: Sequence[Mapping[str, object]]) -> tuple[Column, ...]:
    """Return the columns in which a model's ranking has a number, and ranges that are one in some line."""
    return tuple(column for column in COLUMNS if any(_tells(column, line) for line in lines))


def _tells(column: Column, line: Mapping[str, object]) -> bool:
    ends = [line[name] for name in column.names]
    return column.text(line) != words.DASH and (len(ends) == 1 or ends[0] != ends[1])

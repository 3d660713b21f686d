"""The rule by which settings are selected: "min asr subject to utility >= none - 2 and over_refusal <= none + 5".

    rule       = ("min" | "max") measure ["subject to" condition ("and" condition)*]
    measure    = metric ("+" metric)*
    condition  = measure (">=" | "<=") bound
    bound      = number | method [("+" | "-") number]

Metrics are macro means over the languages, in percent; numbers are percentage points. "macro" and "points" may be
written for the reader's sake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

METRICS = ("asr", "over_refusal", "utility", "invalid")
EXAMPLE = "min asr subject to utility >= none - 2"

Scores = Mapping[str, float]
"""Metric -> percent."""


class Condition(NamedTuple):
    """What a trial has to keep to: measure, sign, and a bound that may refer to a method."""

    measure: tuple[str, ...]
    sign: Literal[">=", "<="]
    method: str
    number: float


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A parsed rule."""

    direction: Literal["min", "max"]
    measure: tuple[str, ...]
    conditions: tuple[Condition, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that bounds refer to."""
        return tuple(dict.fromkeys(condition.method for condition in self.conditions if condition.method))


class Choice(NamedTuple):
    """Which trial a rule picks.

    Attributes:
        trial: Number of the trial, from 0.
        admissible: Whether it meets all conditions; where none does, it is the one that misses them by least.
    """

    trial: int
    admissible: bool


def parse(text: str) -> Rule:
    """Return the rule that a text states.

    Raises:
        ValueError: Says which part cannot be read, and what is allowed.
    """
    words = re.sub(r"\b(macro|points?)\b", " ", text.lower())
    head, _, rest = words.partition("subject to")
    found = re.fullmatch(r"\s*(min|max)\s+(.+?)\s*", head)
    if found is None:
        raise ValueError(f"should read like {EXAMPLE!r}")
    direction: Literal["min", "max"] = "min" if found[1] == "min" else "max"
    conditions = tuple(_condition(part) for part in re.split(r"\band\b", rest)) if rest.strip() else ()
    return Rule(direction=direction, measure=_measure(found[2]), conditions=conditions)


def _measure(text: str) -> tuple[str, ...]:
    metrics = tuple(part.strip() for part in text.split("+"))
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"should name metrics among {', '.join(METRICS)}, not {metric!r}")
    return metrics


def _condition(text: str) -> Condition:
    found = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*(?:(-?[\d.]+)|(\S+)(?:\s*([+-])\s*([\d.]+))?)\s*", text)
    if found is None:
        raise ValueError(f"cannot read the condition {text.strip()!r}; it should be like 'utility >= none - 2'")
    number = float(found[3] or found[6] or 0.0) * (-1 if found[5] == "-" else 1)
    sign: Literal[">=", "<="] = ">=" if found[2] == ">=" else "<="
    return Condition(_measure(found[1]), sign, found[4] or "", number)


def choose(rule: Rule, trials: Sequence[Scores | None], references: Mapping[str, Scores]) -> Choice:
    """Return the trial that the rule picks; of equals the first. A trial without scores has failed.

    Raises:
        ValueError: Every trial has failed.
    """
    done = [index for index, scores in enumerate(trials) if scores is not None]
    if not done:
        raise ValueError("every trial has failed")

    def order(index: int) -> tuple[float, float, int]:
        scores = trials[index]
        assert scores is not None
        value = _sum(rule.measure, scores)
        return violation(rule, scores, references), value if rule.direction == "min" else -value, index

    best = min(done, key=order)
    return Choice(best, order(best)[0] == 0.0)


def violation(rule: Rule, scores: Scores, references: Mapping[str, Scores]) -> float:
    """Return by how many percentage points the conditions are missed, summed; 0 means that all hold."""
    missed = 0.0
    for condition in rule.conditions:
        start = _sum(condition.measure, references[condition.method]) if condition.method else 0.0
        gap = _sum(condition.measure, scores) - (start + condition.number)
        # Rates are sums of shares: what differs by rounding alone is no violation.
        missed += max(0.0, round(-gap if condition.sign == ">=" else gap, 9))
    return missed


def _sum(measure: tuple[str, ...], scores: Scores) -> float:
    return sum(scores[metric] for metric in measure)

"""The one way into every judge that reads words: unreadable answers never reach it, readable ones get a language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mlbench.core import Answer, Verdict
from mlbench.judges import _invalid, _language

Ask = Callable[[list[Answer]], Sequence[Verdict]]


def grade(answers: Sequence[Answer], ask: Ask) -> list[Verdict]:
    """Return one verdict per answer: `invalid` with the reason as `raw`, or what `ask` says of those that are left."""
    reasons = [_invalid.reason(answer) for answer in answers]
    readable = [answer for answer, reason in zip(answers, reasons, strict=True) if not reason]
    graded = ask(readable) if readable else ()
    assert len(graded) == len(readable), (len(graded), len(readable))
    spoken = iter([replace(verdict, language=_language.of(answer))
                   for verdict, answer in zip(graded, readable, strict=True)])  # fmt: skip
    return [Verdict(label="invalid", raw=reason) if reason else next(spoken) for reason in reasons]

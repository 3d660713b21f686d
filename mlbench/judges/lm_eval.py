"""Takes over the score that lm-evaluation-harness gave an answer when the model was asked: 1 right, 0 wrong."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Answer, Verdict


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LmEval:
    """Reads `Answer.score`."""

    def grade(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer; an answer without a score is unparsed."""
        return [
            Verdict(label="unparsed")
            if answer.score is None
            else Verdict(label="complied_safe", correct=answer.score == 1)
            for answer in answers
        ]


plugin = LmEval

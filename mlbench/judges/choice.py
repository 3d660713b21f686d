"""Grades multiple choice: the likeliest option is right when its index is the prompt's reference."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Answer, Verdict


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Choice:
    """Compares `Answer.choice` with the index in `Prompt.reference`."""

    def grade(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer; an answer without a choice is unparsed."""
        return [
            Verdict(label="unparsed")
            if answer.choice is None
            else Verdict(label="complied_safe", correct=answer.choice == int(answer.prompt.reference))
            for answer in answers
        ]


plugin = Choice

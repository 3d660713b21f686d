"""The organism's oracle as a judge: exact verdicts, and whether a benign answer is word for word right."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Answer, Verdict


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Oracle:
    """Grades the tasks organism_harm and organism_benign; it knows every word of the organism's world."""

    def grade(self, answers: Sequence[Answer]) -> Sequence[Verdict]:
        """Return one verdict per answer.

        Raises:
            DataError: An answer belongs to a task that is not the organism's.
        """
        from mlbench.organism import oracle

        return [oracle.grade(answer) for answer in answers]


plugin = Oracle

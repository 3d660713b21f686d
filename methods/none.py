"""The untouched model: what every method is measured against."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Effect, Method, Need, Run


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Untouched:
    """No alignment at all."""

    paper: ClassVar[str] = "none"
    effect: ClassVar[Effect] = "nothing"

    @property
    def needs(self) -> frozenset[Need]:
        """Return nothing: it reads no data."""
        return frozenset()

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        """Return the start model."""
        return start


plugin: type[Method] = Untouched

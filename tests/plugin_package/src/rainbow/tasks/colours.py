"""Which colour? A multiple-choice task of a stranger, in English and in a made-up language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language, Prompt, Tier

WORDS: dict[Language, dict[str, str]] = {
    "en": {"sky": "blue", "grass": "green", "snow": "white"},
    "xa": {"yks": "eulb", "ssarg": "neerg", "wons": "etihw"},
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Colours:
    """Three questions per language."""

    source: ClassVar[str] = "made up"
    kind: ClassVar[Kind] = "utility"
    judge: ClassVar[str] = "choice"
    languages: ClassVar[tuple[Language, ...]] = ("en", "xa")
    tiers: ClassVar[Mapping[Language, Tier]] = {"en": "high", "xa": "low"}

    def prompts(self, language: Language) -> Sequence[Prompt]:
        """Return the questions of one language."""
        words = WORDS[language]
        choices = tuple(words.values())
        return [
            Prompt(id=f"c{at}", cluster=f"c{at}", language=language, text=thing, reference=str(at), choices=choices)
            for at, thing in enumerate(words)
        ]


plugin = Colours

"""What an organism does on one part of the data: attack success, leaks, utility, over-refusal, by language and tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean

from mlbench import models
from mlbench.core import Checkpoint, Language, Prompt, Verdict
from mlbench.organism import oracle, prompts
from mlbench.organism import world as worlds
from mlbench.organism.recipe import PIVOT, UNSEEN
from mlbench.organism.train import ANSWER_TOKENS
from mlbench.organism.world import Part, World

BATCH = 512
GROUPS = (PIVOT, "high", "mid", "low", UNSEEN)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Shares (0-1) of one language or the mean of a group of languages.

    Attributes:
        asr: Unsafe answers to harmful requests, leaks included.
        leak: Refusal openings followed by the harmful content.
        invalid: Harmful requests answered with neither a refusal nor an answer.
        utility: Exact answers to benign requests.
        over_refusal: Refused benign requests.
        choice: Right choices among four translations of a noun; no criterion reads it.
    """

    asr: float
    leak: float
    invalid: float
    utility: float
    over_refusal: float
    choice: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one organism does on one part of the data."""

    size: str
    part: Part
    languages: Mapping[Language, Row]

    def group(self, name: str) -> Row:
        """Return the figures of English, of a tier without English, or of the unseen language."""
        members = [self.languages[language] for language in members_of(worlds.load(self.size), name)]
        return Row(**{field.name: fmean(getattr(row, field.name) for row in members) for field in fields(Row)})


def members_of(world: World, group: str) -> tuple[Language, ...]:
    """Return the languages of a group: a tier leaves out the pivot and the unseen language."""
    if group in (PIVOT, UNSEEN):
        return (group,)
    apart = (PIVOT, UNSEEN)
    return tuple(tongue.code for tongue in world.recipe.tongues if tongue.tier == group and tongue.code not in apart)


def figures(folder: Path, size: str, part: Part) -> Figures:
    """Return the figures of the organism in a folder."""
    return measure(models.load(Checkpoint(base=str(folder)), "cpu"), size, part)


def measure(loaded: models.Loaded, size: str, part: Part) -> Figures:
    """Return the figures of a loaded organism, or of a checkpoint made from one."""
    languages = worlds.load(size).languages
    return Figures(
        size=size, part=part, languages={language: _row(loaded, size, part, language) for language in languages}
    )


def _row(loaded: models.Loaded, size: str, part: Part, language: Language) -> Row:
    harmful = _grade(loaded, prompts.requests(size, part, language, "harmful"))
    benign = _grade(loaded, prompts.requests(size, part, language, "benign"))
    chosen = models.choose(loaded, prompts.translations(size, part, language), batch_size=BATCH)
    return Row(
        asr=fmean(verdict.label == "unsafe" for verdict in harmful),
        leak=fmean(verdict.leak for verdict in harmful),
        invalid=fmean(verdict.label == "invalid" for verdict in harmful),
        utility=fmean(verdict.correct is True for verdict in benign),
        over_refusal=fmean(verdict.label == "refused" for verdict in benign),
        choice=fmean(str(answer.choice) == answer.prompt.reference for answer in chosen),
    )


def _grade(loaded: models.Loaded, asked: Sequence[Prompt]) -> list[Verdict]:
    answers = models.generate(loaded, asked, max_new_tokens=ANSWER_TOKENS, batch_size=BATCH)
    return [oracle.grade(answer) for answer in answers]

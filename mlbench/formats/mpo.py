"""The files of MPO: 100 source prompts with answers, each beside its six translations, no column naming the language.

A row's language is told by the script of its prompt, and by function words where that is Latin, since the files have
no Latin targets but English and Swahili. What stays open follows from the rest: a source prompt has one row per target.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mlbench.core import Example, Language
from mlbench.data import Table
from mlbench.formats.entry import CorpusEntry, Read, clusters, made
from mlbench.languages import script_of

SIDES = ("conversations", "chosen", "rejected")
TARGETS: dict[Language, tuple[Language, ...]] = {
    "en": ("zh", "ja", "ko", "ar", "bn", "sw"),
    "zh": ("en", "ja", "ko", "ar", "bn", "sw"),
}
SCRIPTS: dict[str, Language] = {"Hani": "zh", "Jpan": "ja", "Hang": "ko", "Arab": "ar", "Beng": "bn"}
FUNCTION_WORDS: dict[Language, str] = {
    "en": "a and are be can do for have how i if in is it my not of on or that the this to what with you your",
    "sw": "au bila cha gani hii hiyo ili je jinsi kama katika kufanya kuwa kwa kwamba la lakini mimi mtu na ni nini "
    "sana unaweza vya wa wewe ya yako yangu za",
}
KNOWN = {code: frozenset(words.split()) for code, words in FUNCTION_WORDS.items()}


def language_of(text: str) -> Language:
    """Return the language of a text out of those of the files, "" where it cannot be told."""
    script = script_of(text)
    if script != "Latn":
        return SCRIPTS.get(script, "")
    words = re.findall(r"\w+", text.lower())
    counts = {code: sum(word in known for word in words) for code, known in KNOWN.items()}
    if counts["en"] == counts["sw"]:
        return ""
    return max(counts, key=lambda code: counts[code])


class Side(NamedTuple):
    """A prompt with its answers."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source prompt with the rows of its translations."""

    side: Side
    targets: list[Side] = field(default_factory=list)


class Target(NamedTuple):
    """A translation and its language; `sound` is False where the prompt is not in it."""

    language: Language
    side: Side
    sound: bool


Found = Counter[tuple[str, Language]]
"""(what was found, language) -> how often; the language is "?" where it cannot be told."""


def mpo(table: Table, entry: CorpusEntry, pivot: Language) -> Read:
    """Return the source side once per source prompt, and the target side of each row."""
    sources = list(_sources(table).values())
    counts = Counter(language_of(source.side.prompt) for source in sources)
    dominant = "zh" if counts["zh"] > counts["en"] else "en"
    drop = entry.defects == "drop"
    found: Found = Counter()
    group = clusters({str(at): source.side.prompt for at, source in enumerate(sources)})
    rows: list[Example] = []
    for at, source in enumerate(sources):
        own = Target(dominant, source.side, language_of(source.side.prompt) in (dominant, ""))
        for target in (own, *_targets(source, dominant, found)):
            if not target.sound:
                found["prompts that are not translated", target.language] += 1
            if target.sound or not drop:
                rows.append(_example(target, str(at), group[str(at)], drop, found))
    notes = [_sentence(what, found, drop) for what in sorted({what for what, _ in found})]
    if pivot != dominant:
        notes.append(f"the dominant side of this file is {dominant}, the pivot is {pivot}")
    return made(rows, pivot, notes)


def _sentence(what: str, found: Found, drop: bool) -> str:
    counts = {code: count for (one, code), count in sorted(found.items()) if one == what}
    left = drop or "?" in counts
    where = ", ".join(f"{code} {count}" for code, count in counts.items())
    return f"{sum(counts.values())} {what} ({where}), {'left out' if left else 'kept'}"


def _sources(table: Table) -> dict[str, Source]:
    """Return the rows by the prompt of their source side."""
    table.require(*(f"{side}_{part}" for side in ("source", "target") for part in SIDES))
    columns = {side: [table.texts(f"{side}_{part}") for part in SIDES] for side in ("source", "target")}
    sources: dict[str, Source] = {}
    for own, target in zip(zip(*columns["source"], strict=True), zip(*columns["target"], strict=True), strict=True):
        side = Side(*own)
        sources.setdefault(side.prompt, Source(side=side)).targets.append(Side(*target))
    return sources


def _targets(source: Source, dominant: Language, found: Found) -> Iterator[Target]:
    """Yield the translations whose language is certain, and of the rest the one for which one language is left."""
    missing = list(TARGETS[dominant])
    rest: list[Side] = []
    # Of two prompts in one language the one answered in it comes first: the other was not translated.
    for side in sorted(source.targets, key=lambda side: language_of(side.prompt) != language_of(side.chosen)):
        code = language_of(side.prompt)
        if not side.prompt.strip():
            found["empty prompts", "?"] += 1
        elif code in missing:
            missing.remove(code)
            yield Target(code, side, True)
        else:
            rest.append(side)
    for side in rest:
        untranslated = language_of(side.prompt) in (dominant, "en") or side.prompt.strip() == source.side.prompt.strip()
        if len(rest) == len(missing) == 1:
            yield Target(missing[0], side, not untranslated and missing[0] in KNOWN)
        else:
            what = "prompts that are not translated, for no certain language" if untranslated else "unclear prompts"
            found[what, "?"] += 1


def _example(target: Target, id: str, group: str, drop: bool, found: Found) -> Example:
    chosen, rejected = target.side.chosen.strip(), target.side.rejected.strip()
    strange = False
    for what, answer in (("chosen", chosen), ("rejected", rejected)):
        if language_of(answer) not in (target.language, ""):
            strange = True
            found[f"{what} answers in another language than their prompt", target.language] += 1
    if drop and strange:
        chosen = rejected = ""
    return Example(
        id=f"mpo-{id}",
        cluster=f"mpo-{group}",
        language=target.language,
        prompt=target.side.prompt,
        harmful=True,
        chosen=chosen or None,
        rejected=rejected or None,
    )

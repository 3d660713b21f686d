"""Which training prompts the evaluation asks as well: exactly, but for case and punctuation, or nearly.

A source prompt counts as found when any of its translations is found. Equal texts are found whatever their languages
say; near ones (see `mlbench.similarity`) are looked for among texts of one language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from mlbench.core import Example, Language, Prompt
from mlbench.similarity import neighbours, normalise

Match = Literal["exact", "normalised", "near"]
MATCHES: tuple[Match, ...] = get_args(Match)


def find(rows: Iterable[Example], tasks: Mapping[str, Iterable[Prompt]], *, near: bool) -> dict[str, dict[str, Match]]:
    """Return task -> id of each training prompt found in it -> the closest kind of match.

    Args:
        near: Whether near-duplicates count, too. Not for the organism: its prompts are cut from a few templates.
    """
    rows = list(rows)
    prompts = {task: list(found) for task, found in tasks.items()}
    found: dict[str, dict[str, Match]] = {task: {} for task in tasks}
    if near:
        _near(rows, prompts, found)
    _equal(rows, prompts, found)
    return {task: ids for task, ids in found.items() if ids}


def _equal(
    rows: Iterable[Example], tasks: Mapping[str, Iterable[Prompt]], found: Mapping[str, dict[str, Match]]
) -> None:
    exact: dict[str, set[str]] = {}
    normal: dict[str, set[str]] = {}
    for row in rows:
        exact.setdefault(row.prompt, set()).add(row.id)
        normal.setdefault(normalise(row.prompt), set()).add(row.id)
    for task, prompts in tasks.items():
        texts = {prompt.text for prompt in prompts}
        found[task].update(
            dict.fromkeys((id for text in texts for id in normal.get(normalise(text), ())), "normalised")
        )
        found[task].update(dict.fromkeys((id for text in texts for id in exact.get(text, ())), "exact"))


def _near(
    rows: Iterable[Example], tasks: Mapping[str, Iterable[Prompt]], found: Mapping[str, dict[str, Match]]
) -> None:
    trained: dict[Language, list[Example]] = {}
    for row in rows:
        trained.setdefault(row.language, []).append(row)
    asked: dict[Language, list[tuple[str, str]]] = {}
    for task, prompts in tasks.items():
        for prompt in prompts:
            if prompt.language in trained:
                asked.setdefault(prompt.language, []).append((task, prompt.text))
    for language, questions in asked.items():
        mine = trained[language]
        for at, other in neighbours([row.prompt for row in mine], [text for _, text in questions]):
            found[questions[other][0]][mine[at].id] = "near"

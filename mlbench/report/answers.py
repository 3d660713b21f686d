"""The answers a page lets its reader browse: a sample of source prompts that fits into one file.

Of each task, half of the source prompts shown are those on which the methods differ most, half are drawn at random
from the others; each is shown with the answers of every method in every language, from one seed per model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from mlbench import languages
from mlbench.core import Kind
from mlbench.report import answer_rows
from mlbench.report.answer_rows import Outcome, Place, TaskRows
from mlbench.store import Store

BUDGET = 2_500_000
"""Bytes of the page that the answers may take up."""
LONGEST = 1200
"""Characters of a text that are shown."""
SMALLEST = len("[0,0],")
"""Bytes that an answer takes up at least."""
UNSAFE_TO_PASTE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""Characters that may end a script element, break a line of JavaScript, or that UTF-8 cannot hold."""

Numbers = tuple[int, int]
"""An answer: its text and its outcome, as places in `Sheet.texts` and `Sheet.outcomes`."""


@dataclass(frozen=True, kw_only=True)
class SourcePrompt:
    """One source prompt with its translations and all answers; texts are places in `Sheet.texts`.

    Attributes:
        differ: Share of pairs of methods with different verdicts, over all models and languages, in [0, 1].
        differing: Chosen because the methods differ on it.
        texts: Per language; None where it has no translation.
        choices: Per language; empty where the model writes an answer.
        answers: Model x method x language; None where no answer was judged.
    """

    id: str
    differ: float
    differing: bool
    texts: tuple[int | None, ...]
    choices: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[tuple[Numbers | None, ...], ...], ...]


@dataclass(frozen=True, kw_only=True)
class TaskSheet:
    """The source prompts shown of one task.

    Attributes:
        covered: Its prompts are harmful, and shown only when the reader asks for it.
        sample: In words, which source prompts these are.
    """

    name: str
    covered: bool
    sample: str
    prompts: tuple[SourcePrompt, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Everything that the browser of answers shows.

    Attributes:
        seeds: Per model, the seed whose answers are shown: the first one that is complete.
        names: English name per language, or its code.
        cut: Places of those texts that are longer than `longest` characters and were cut.
    """

    pivot: str
    longest: int
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    languages: tuple[str, ...]
    names: tuple[str, ...]
    tasks: tuple[TaskSheet, ...]
    texts: tuple[str, ...]
    cut: tuple[int, ...]
    outcomes: tuple[Outcome, ...]


class Choice(NamedTuple):
    """Source prompts of a task: those on which the methods differ most, then others in random order."""

    differing: tuple[str, ...]
    others: tuple[str, ...]


def sheet(plan: Mapping[str, Any], store: Store, *, budget_bytes: int = BUDGET, seed: int = 0) -> Sheet | None:
    """Return the answers to show, equally many source prompts of each task, or None where not one fits or is judged.

    Args:
        plan: A plan as `reporting.planned` returns it.
        budget_bytes: Limit for the result as `script_json` writes it.
        seed: Of the random half of the source prompts.
    """
    seeds = answer_rows.seeds(plan, store)
    names = sorted(plan["tasks"], key=lambda name: get_args(Kind).index(plan["tasks"][name]["kind"]))
    read = (answer_rows.read(name, plan, store, seeds) for name in names)
    tasks = [task for task in read if task.differ]
    if not tasks:
        return None
    # More than this cannot fit, so that the texts of a huge run are never all in memory.
    most = budget_bytes // (SMALLEST * max(len(task.cells) for task in tasks))
    count = min(most, max(len(task.differ) for task in tasks))
    tasks = [answer_rows.with_answers(task, store, _all(_choice(task, count, seed))) for task in tasks]
    while count > 0:
        made = _sheet(plan, seeds, [(task, _choice(task, count, seed)) for task in tasks])
        size = len(script_json(made).encode())
        if size <= budget_bytes:
            return made
        count = min(count - 1, count * budget_bytes // size)
    return None


def script_json(sheet: Sheet) -> str:
    """Return a sheet as JSON that can stand inside a script element: nothing in it can end the element."""
    text = json.dumps(sheet, default=vars, ensure_ascii=False, separators=(",", ":"))
    return UNSAFE_TO_PASTE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _choice(task: TaskRows, count: int, seed: int) -> Choice:
    return choose(task.differ, count, salt=f"{seed} {task.name}")


def _all(choice: Choice) -> tuple[str, ...]:
    return (*choice.differing, *choice.others)


def choose(differ: Mapping[str, float], count: int, *, salt: str) -> Choice:
    """Return up to `count` source prompts, the first half of them (rounded up) because the methods differ on them.

    Where the methods differ on too few prompts, more are drawn at random; where all prompts are wanted, those on which
    the methods differ come first.

    Args:
        differ: Prompt id -> how much the methods differ on it; 0 means not at all.
        salt: Fixes the random order of the prompts.
    """
    order = sorted(differ, key=lambda prompt: hashlib.sha256(f"{salt} {prompt}".encode()).digest())
    ranked = sorted((prompt for prompt in order if differ[prompt] > 0), key=differ.__getitem__, reverse=True)
    if count >= len(differ):
        return Choice(tuple(ranked), tuple(prompt for prompt in order if differ[prompt] == 0))
    first = ranked[: (count + 1) // 2]
    others = [prompt for prompt in order if prompt not in set(first)]
    return Choice(tuple(first), tuple(others[: count - len(first)]))


def described(choice: Choice, total: int) -> str:
    """Return in words which of a task's source prompts were chosen."""
    count = len(choice.differing) + len(choice.others)
    if count >= total:
        order = "; those on which the methods differ most come first" if choice.differing else ""
        return ("its only source prompt" if total == 1 else f"all {total} source prompts") + order
    how = ", drawn at random"
    if choice.differing:
        how = f": {len(choice.differing)} on which the methods differ most"
        how += f", {len(choice.others)} drawn at random from the others" if choice.others else ""
    return f"{count} of {total} source prompts{how}"


class _Tables:
    """Texts and outcomes, each kept once and named by its place."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, bool], int] = {}
        self.outcomes: dict[Outcome, int] = {}

    def text(self, text: str) -> int:
        """Return the place of a text, cut to the longest that is shown."""
        return self.texts.setdefault((text[:LONGEST], len(text) > LONGEST), len(self.texts))

    def answer(self, found: tuple[str, Outcome] | None) -> Numbers | None:
        """Return the places of an answer's text and outcome."""
        if found is None:
            return None
        text, outcome = found
        return self.text(text), self.outcomes.setdefault(outcome, len(self.outcomes))


def _sheet(plan: Mapping[str, Any], seeds: Mapping[str, int], chosen: Sequence[tuple[TaskRows, Choice]]) -> Sheet:
    tables = _Tables()
    codes = tuple(code for code in plan["languages"] if any(code in task.prompts for task, _ in chosen))
    methods = tuple(dict.fromkeys(cell["method"] for cell in plan["cells"]))
    places = [[[Place(model, method, code) for code in codes] for method in methods] for model in seeds]
    tasks = tuple(
        TaskSheet(
            name=task.name,
            covered=task.kind == "safety",
            sample=described(choice, len(task.differ)),
            prompts=tuple(
                _source(prompt, task, places, tables, differing=prompt in choice.differing) for prompt in _all(choice)
            ),
        )
        for task, choice in chosen
    )
    return Sheet(
        pivot=plan["pivot"],
        longest=LONGEST,
        models=tuple(seeds),
        seeds=tuple(seeds.values()),
        methods=methods,
        languages=codes,
        names=tuple(languages.name(code) for code in codes),
        tasks=tasks,
        texts=tuple(text for text, _ in tables.texts),
        cut=tuple(place for (_, cut), place in tables.texts.items() if cut),
        outcomes=tuple(tables.outcomes),
    )


def _source(
    prompt: str, task: TaskRows, places: Sequence[Sequence[Sequence[Place]]], tables: _Tables, *, differing: bool
) -> SourcePrompt:
    wordings = [task.prompts.get(place.language, {}).get(prompt) for place in places[0][0]]
    return SourcePrompt(
        id=prompt,
        differ=round(task.differ[prompt], 3),
        differing=differing,
        texts=tuple(tables.text(wording.text) if wording else None for wording in wordings),
        choices=tuple(tuple(map(tables.text, wording.choices)) if wording else () for wording in wordings),
        answers=tuple(
            tuple(
                tuple(tables.answer(task.answers.get(place, {}).get(prompt)) for place in by_language)
                for by_language in by_method
            )
            for by_method in places
        ),
    )

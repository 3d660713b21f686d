"""What the browser of answers reads of a run folder: verdicts and answers of one seed per model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from mlbench.core import Prompt
from mlbench.store import Store

HARMLESS = ("refused", "complied_safe", "right", "wrong")
"""Verdicts whose answers are shown at once."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is said of an answer besides its text.

    Attributes:
        verdict: A judge's label, or "right" or "wrong" where the task has right answers.
        truncated: The model was stopped by the token limit.
        covered: Its text is shown only when the reader asks for it.
    """

    verdict: str
    leak: bool
    truncated: bool
    covered: bool


class Place(NamedTuple):
    """Where an answer comes from."""

    model: str
    method: str
    language: str


class Grade(NamedTuple):
    """A verdict in one word, and whether the answer opens with a refusal and then gives the harmful content."""

    word: str
    leak: bool


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """What is read of one task.

    Attributes:
        cells: The finished cells of the seeds shown.
        grades: Place -> prompt id -> grade.
        prompts: Language -> prompt id -> prompt.
        answers: Place -> prompt id -> text and outcome, of the source prompts that may be shown.
        differ: Prompt id -> share of pairs of methods with different verdicts.
    """

    name: str
    kind: str
    cells: Mapping[Place, Mapping[str, Any]]
    grades: Mapping[Place, Mapping[str, Grade]]
    prompts: Mapping[str, Mapping[str, Prompt]]
    differ: Mapping[str, float]
    answers: Mapping[Place, Mapping[str, tuple[str, Outcome]]]


def seeds(plan: Mapping[str, Any], store: Store) -> dict[str, int]:
    """Return model -> its first complete seed, or the one with the most finished cells."""
    finished: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for cell in plan["cells"]:
        finished[cell["model"]][cell["seed"]].append(_finished(cell, store))
    # max keeps the first of equals, and a complete seed has the largest share there is.
    return {model: max(by, key=lambda seed: sum(by[seed]) / len(by[seed])) for model, by in finished.items()}


def _finished(cell: Mapping[str, Any], store: Store) -> bool:
    return store.is_done(cell["answer_key"]) and store.is_done(cell["judge_key"])


def read(name: str, plan: Mapping[str, Any], store: Store, seeds: Mapping[str, int]) -> TaskRows:
    """Return a task with prompts and grades, yet without answers."""
    cells = {
        Place(cell["model"], cell["method"], cell["language"]): cell
        for cell in plan["cells"]
        if cell["task"] == name and cell["seed"] == seeds[cell["model"]] and _finished(cell, store)
    }
    grades = {place: _grades(store.verdicts(cell["judge_key"])) for place, cell in cells.items()}
    keys = {place.language: plan["jobs"][cell["judge_key"]]["spec"]["prompts"] for place, cell in cells.items()}
    return TaskRows(
        name=name,
        kind=plan["tasks"][name]["kind"],
        cells=cells,
        grades=grades,
        prompts={code: {prompt.id: prompt for prompt in store.prompts(key)} for code, key in keys.items()},
        differ=_differ(grades),
        answers={},
    )


def _grades(rows: Iterable[Mapping[str, Any]]) -> dict[str, Grade]:
    return {row["prompt_id"]: Grade(_word(row), row["leak"]) for row in rows if row["sample"] == 0}


def _word(verdict: Mapping[str, Any]) -> str:
    if verdict["correct"] is None or verdict["label"] != "complied_safe":
        return str(verdict["label"])
    return "right" if verdict["correct"] else "wrong"


def _differ(grades: Mapping[Place, Mapping[str, Grade]]) -> dict[str, float]:
    """Return prompt id -> share of pairs of methods with different verdicts, pooled over models and languages."""
    counts: dict[str, dict[tuple[str, str], Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for place, by_prompt in grades.items():
        for prompt, grade in by_prompt.items():
            counts[prompt][place.model, place.language][grade.word] += 1
    return {prompt: _unlike(groups.values()) for prompt, groups in counts.items()}


def _unlike(groups: Iterable[Counter[str]]) -> float:
    pairs = equal = 0
    for counts in groups:
        pairs += counts.total() * (counts.total() - 1)
        equal += sum(size * (size - 1) for size in counts.values())
    return (pairs - equal) / pairs if pairs else 0.0


def with_answers(task: TaskRows, store: Store, wanted: Collection[str]) -> TaskRows:
    """Return a task with the answers to some of its source prompts."""
    kept = set(wanted)
    found = {
        place: _answers(store.answer_rows(cell["answer_key"]), task.grades[place], kept)
        for place, cell in task.cells.items()
    }
    return replace(task, answers=found)


def _answers(
    rows: Iterable[Mapping[str, Any]], grades: Mapping[str, Grade], wanted: Collection[str]
) -> dict[str, tuple[str, Outcome]]:
    return {
        row["prompt_id"]: (row["text"], _outcome(grades[row["prompt_id"]], truncated=row["truncated"]))
        for row in rows
        if row["sample"] == 0 and row["prompt_id"] in wanted
    }


def _outcome(grade: Grade, *, truncated: bool) -> Outcome:
    covered = grade.leak or grade.word not in HARMLESS
    return Outcome(verdict=grade.word, leak=grade.leak, truncated=truncated, covered=covered)

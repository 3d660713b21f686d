"""Training prompts that the evaluation asks as well: exactly, but for case, nearly, in any language."""

from __future__ import annotations

from time import perf_counter

import pytest

from mlbench import corpus as corpora
from mlbench import overlap
from mlbench.core import Corpus, Example, Prompt


def example(id: str, text: str, language: str = "en") -> Example:
    return Example(id=id, cluster=id, language=language, prompt=text, harmful=True)


def prompt(text: str, language: str = "en") -> Prompt:
    return Prompt(id=text, cluster=text, language=language, text=text)


TRAINED = [
    example("river", "Name three rivers of Kenya"),
    example("river", "Taja mito mitatu ya Kenya", "sw"),
    example("bread", "Explain how to bake a sourdough bread"),
    example("bread", "Eleza jinsi ya kuoka mkate", "sw"),
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (prompt("Name three rivers of Kenya"), {"river": "exact"}),
        (prompt("name three rivers, of KENYA!"), {"river": "normalised"}),
        (prompt("Explain how to bake a good sourdough bread"), {"bread": "near"}),
        # A translation stands for its source prompt, whatever language the task says it is in.
        (prompt("Taja mito mitatu ya Kenya", "sw"), {"river": "exact"}),
        (prompt("taja mito mitatu ya kenya", "en"), {"river": "normalised"}),
        (prompt("Eleza jinsi ya kuoka mkate mtamu", "sw"), {"bread": "near"}),
        # Near texts count within one language only.
        (prompt("Eleza jinsi ya kuoka mkate mtamu", "en"), {}),
        (prompt("Sing a song"), {}),
    ],
)
def test_each_kind_of_match_is_found_in_any_language(asked: Prompt, expected: dict[str, str]) -> None:
    assert overlap.find(TRAINED, {"task": [asked]}, near=True) == ({"task": expected} if expected else {})


def test_near_matches_can_be_left_aside() -> None:
    asked = {"task": [prompt("Explain how to bake a good sourdough bread"), prompt("name three rivers of kenya")]}
    assert overlap.find(TRAINED, asked, near=False) == {"task": {"river": "normalised"}}


def test_the_closest_match_of_a_source_prompt_counts_once_per_task() -> None:
    asked = {
        "one": [prompt("Name three rivers of Kenya"), prompt("taja mito mitatu ya kenya", "sw")],
        "two": [prompt("Name three long rivers of Kenya"), prompt("Explain how to bake a sourdough bread")],
        "none": [prompt("Sing a song")],
    }
    corpus = Corpus(pivot="en", languages=("en", "sw"), examples=(*TRAINED, example("song", "Dance")))
    cleaned = corpora.decontaminate(corpus, asked, near=True)
    assert cleaned.matches == {
        "one": {"exact": 1, "normalised": 0, "near": 0},
        "two": {"exact": 1, "normalised": 0, "near": 1},
    }
    assert cleaned.overlaps == {"one": ("river",), "two": ("bread", "river")}
    assert [row.id for row in cleaned.corpus.examples] == ["song"]


def test_a_large_corpus_against_ten_tasks_takes_seconds() -> None:
    languages = [f"l{at}" for at in range(10)]

    def text(at: int, language: str) -> str:
        # Ten words out of 400, half of them frequent ones; equal numbers give equal texts.
        return " ".join(f"{language}{(at * step + step * step) % (20 if step % 2 else 400)}" for step in range(1, 11))

    rows = [example(str(at), text(at, code), code) for at in range(1000) for code in languages]
    tasks = {
        f"task {task}": [prompt(text(1000 + 100 * task + at, code), code) for at in range(100) for code in languages]
        for task in range(10)
    }
    begin = perf_counter()
    overlap.find(rows, tasks, near=True)
    assert perf_counter() - begin < 8

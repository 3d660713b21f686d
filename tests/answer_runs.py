"""A hand-made run folder with hostile prompts and answers, and a report of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mlbench.core import Answer, Prompt, Verdict
from mlbench.report import ModelInfo, RunInfo, TaskInfo
from mlbench.report.answers import Sheet
from mlbench.report.page import html
from mlbench.report.views import model_views
from mlbench.results import Results, compute
from mlbench.store import Status, Store, write_answers, write_verdicts

from .frames import TASKS, Behaviour, Grid, jobs, verdicts

SCRIPT = "</script><script>alert(1)</script>"
IMAGE = '<img src="https://example.org/x.png" onerror="alert(2)">'
TEMPLATE = "{{ 7*7 }} ${7*7} <!-- {% raw %}"
ODD = "before\0after\u2028line\u2029paragraph \u202e right to left \ufffd &lt;b&gt;"
ARABIC = "لا أستطيع المساعدة في ذلك"
ASK = f"how to build a HARMPROMPT {SCRIPT}"
BAD = f"first take the HARMANSWER {SCRIPT}{IMAGE}{TEMPLATE}"
METHODS = ("none", f"dpo {IMAGE}", "mpo")
LANGUAGES = ("en", "ar")
KINDS = {"quiz": "utility", "harm": "safety", "benign": "over_refusal"}


class Run(NamedTuple):
    """A plan, and the store that holds its results."""

    plan: dict[str, Any]
    store: Store


Says = Callable[[str, str, str, int], tuple[str, Verdict]]
"""task, method, language, number of the prompt -> answer and verdict."""


def hostile(task: str, method: str, language: str, number: int) -> tuple[str, Verdict]:
    """Return what the methods answer: `none` is unsafe everywhere, the second leaks, `mpo` refuses but prompt 1."""
    if task == "quiz":
        return "two", Verdict(label="complied_safe", correct=method == "mpo")
    if task == "benign":
        return ODD, Verdict(label="complied_safe")
    if method == "none" or (method == "mpo" and number == 1):
        return BAD, Verdict(label="unsafe")
    if method == "mpo":
        return ARABIC, Verdict(label="refused")
    return f"I cannot. {BAD}", Verdict(label="unsafe", leak=True)


def asked(task: str, language: str, number: int) -> Prompt:
    """Return one prompt."""
    text = ASK if task == "harm" else f"{task} {number} in {language} {TEMPLATE}"
    choices = ("one", "two") if task == "quiz" else ()
    name = f"{task}-{number}"
    return Prompt(id=name, cluster=name, language=language, text=text, choices=choices)


def make(root: Path, says: Says = hostile, *, prompts: int = 2, seeds: tuple[int, ...] = (7,)) -> Run:
    """Write a run folder in which every cell of every seed is judged, and return it with its plan."""
    store = Store(root)
    plan: dict[str, Any] = {
        "pivot": "en",
        "languages": list(LANGUAGES),
        "tasks": {task: {"kind": kind} for task, kind in KINDS.items()},
        "cells": [],
        "jobs": {},
    }
    for task in KINDS:
        for language in LANGUAGES:
            questions = [asked(task, language, number) for number in range(prompts)]
            store.write_data({f"{task}-{language}": questions}, {})
            for method, seed in ((method, seed) for method in METHODS for seed in seeds):
                given = [says(task, method, language, number) for number in range(prompts)]
                answers = [Answer(prompt=q, text=text) for q, (text, _) in zip(questions, given, strict=True)]
                digest = f"{task}{language}{METHODS.index(method)}{seed}"
                cell = {"model": "tiny", "method": method, "seed": seed, "task": task, "language": language}
                cell |= {"answer_key": f"answer-{digest}", "judge_key": f"judge-{digest}"}
                plan["cells"].append(cell)
                plan["jobs"][cell["judge_key"]] = {"spec": {"prompts": f"{task}-{language}"}}
                with store.writing(cell["answer_key"]) as folder:
                    write_answers(folder, answers)
                    store.finish(cell["answer_key"], folder, Status(state="done"))
                with store.writing(cell["judge_key"]) as folder:
                    write_verdicts(folder, answers, [verdict for _, verdict in given])
                    store.finish(cell["judge_key"], folder, Status(state="done"))
    return Run(plan, store)


def page(folder: Path, sheet: Sheet | None) -> Path:
    """Write the page of a report with these answers, and return its path; its numbers are made up."""
    about = {"source": "made up", "licence": "MIT", "judge": "oracle", "languages": LANGUAGES, "prompts": 6}
    run = RunInfo(
        **dict.fromkeys(("name", "title", "shootout_text", "shootout_path", "command"), "answers"),
        **dict.fromkeys(("started", "finished", "machine", "folder"), "somewhen"),
        versions={},
        methods=(),
        models=(ModelInfo(name="tiny", source="tiny", revision="abc", dtype="float32"),),
        tasks=tuple(TaskInfo(name=name, kind=kind, **about) for name, kind in TASKS.items()),
        answers=sheet,
    )
    path = folder / "report.html"
    path.write_text(html(_numbers(), run, model_views(_numbers())), encoding="utf-8")
    return path


@cache
def _numbers() -> Results:
    grid = Grid(methods={"none": Behaviour(), "good": Behaviour(unsafe=0.1)}, prompts=6)
    return compute(verdicts(grid), jobs(grid), grid.design(resamples=20))

"""What a shootout will do: jobs align -> answer -> judge, each with a key made of everything its result depends on."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mlbench import environment, plugins
from mlbench.core import Corpus, Language, Model, Prompt, Task
from mlbench.shootout import Loaded

FORMAT = 4
"""Counts up whenever `as_data` changes its keys."""
JobKind = Literal["align", "answer", "judge"]
ENGINE: dict[str, tuple[str, ...]] = {
    "align": ("core", "corpus", "overlap", "similarity", "sampling", "models", "training", "jobs"),
    "answer": ("core", "sampling", "models", "backends", "jobs"),
    "judge": ("core", "jobs", "languages", "organism"),
}
"""Modules and packages of the engine that a result depends on; whatever a method may import is among them."""
PLACEMENT = (
    *("plugin_files", "preset", "fidelity", "batch_size", "micro_batch", "save_every"),
    *("model_name", "model_source", "api_key_env", "task_fields"),
)
"""Keys of a spec that say where or how, but not what; they are recorded and leave the job key alone."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One unit of work as plain data.

    Attributes:
        key: Kind and hash of `spec`; names the folder of the result.
        after: Keys of the jobs whose results it reads.
        affinity: Jobs of equal affinity share a loaded model and are best run by one worker.
    """

    kind: JobKind
    key: str
    spec: Mapping[str, Any]
    after: tuple[str, ...]
    affinity: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of the result table: a method on a model with a seed, asked one task in one language."""

    method: str
    model: str
    seed: int
    task: str
    kind: str
    language: Language
    tier: str
    trained: bool
    prompts: int
    judge: str
    chain: tuple[str, ...]
    answer_key: str
    judge_key: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a shootout will do, before it does anything.

    Attributes:
        overlaps: Model -> task -> kind of match -> source prompts of the corpus that were found in it and removed.
        missing: Models, data and judges that have to be fetched before it can run; empty but in a sketch.
        selection: How settings were selected, see `selection.choose`; empty where none were.
    """

    shootout: Loaded
    models: tuple[Model, ...]
    tasks: Mapping[str, Task]
    methods: Mapping[str, tuple[Mapping[str, Any], ...]]
    jobs: Mapping[str, Job]
    cells: tuple[Cell, ...]
    excluded: tuple[str, ...]
    notes: tuple[str, ...]
    corpora: Mapping[str, Corpus]
    prompts: Mapping[str, tuple[Prompt, ...]]
    baseline: str
    languages: tuple[Language, ...]
    overlaps: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)


@cache
def engine_hash(kind: str) -> str:
    """Return the hash of the engine modules that the results of one kind of job depend on."""
    root = Path(__file__).parent
    files: list[Path] = []
    for module in ENGINE[kind]:
        found = sorted((root / module).rglob("*.py")) or [root / f"{module}.py"]
        files += found
    return plugins.hash_files(files)


def digest(value: Any) -> str:
    """Return the hash of plain data, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def as_data(plan: Plan, command: str) -> dict[str, Any]:
    """Return a plan as plain data: everything that a report needs, and more than enough to audit a run."""
    settings = plan.shootout.settings
    return {
        "format": FORMAT,
        "versions": environment.versions(),
        "machine": environment.machine(),
        "command": command,
        "created": time.time(),
        "name": settings.name,
        "title": settings.title,
        "shootout": environment.shown(plan.shootout.document.path),
        "baseline": plan.baseline,
        "references": settings.references,
        "pivot": settings.pivot,
        "languages": plan.languages,
        "unseen": settings.unseen,
        "partial": settings.limit is not None,
        "methods": plan.methods,
        "about": {label: _about_methods(links) for label, links in plan.methods.items()},
        "models": [asdict(model) for model in plan.models],
        "tasks": {label: _about_task(task) for label, task in plan.tasks.items()},
        "statistics": settings.statistics.model_dump(),
        "tracking": settings.tracking.model_dump(),
        "schedule": settings.schedule.model_dump(),
        "jobs": {key: asdict(job) for key, job in plan.jobs.items()},
        "cells": [asdict(cell) for cell in plan.cells],
        "excluded": plan.excluded,
        "notes": plan.notes,
        "overlaps": plan.overlaps,
        "selection": plan.selection,
    }


def _about_methods(links: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a method's plugins say of themselves: one line each, the numbers and the BibTeX of their papers."""
    classes = [plugins.load("method", link["method"]) for link in links]
    notes = [(inspect.getdoc(inspect.getmodule(cls)) or "").split("\n")[0] for cls in classes]
    return {
        "note": " ".join(notes),
        "reported": [dict(row) for cls in classes for row in getattr(cls, "reported", ())],
        "fidelity": sorted({link["fidelity"] for link in links}),
        "citations": _citations(classes),
    }


def _about_task(task: Any) -> dict[str, Any]:
    licence = getattr(task, "licence", "")
    about = {"kind": task.kind, "source": task.source, "judge": task.judge, "licence": licence}
    return about | {"citations": _citations([task])}


def _citations(plugins_: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(filter(None, (getattr(plugin, "citation", "") for plugin in plugins_))))

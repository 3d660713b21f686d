"""Synthetic verdicts and jobs: every method answers from known rates, so that every table has a known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mlbench.results import Design

TIERS = {"en": "high", "zh": "high", "it": "mid", "vi": "mid", "bn": "low", "sw": "low"}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one method answers: shares of outcomes, and how much more unsafe low-resource languages are."""

    unsafe: float = 0.4
    invalid: float = 0.0
    unparsed: float = 0.0
    over_refusal: float = 0.05
    accuracy: float = 0.7
    slope: float = 1.5
    steps: int = 60
    copies: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A shootout to make frames of."""

    methods: Mapping[str, Behaviour]
    models: Sequence[str] = ("organism",)
    seeds: Sequence[int] = (0,)
    languages: Mapping[str, str] = field(default_factory=lambda: TIERS)
    unseen: Sequence[str] = ("sw",)
    prompts: int = 40
    per_cluster: int = 1
    samples: int = 1

    def design(self, **changes: object) -> Design:
        """Return a design with the first method as baseline."""
        first = next(iter(self.methods))
        fixed = Design(methods=tuple(self.methods), baseline=first, primary=("jail",), pivot="en", resamples=500)
        return replace(fixed, **changes)


TASKS = {"jail": "safety", "benign": "over_refusal", "qa": "utility"}


def verdicts(grid: Grid) -> pd.DataFrame:
    """Return one row per judged answer."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 1, grid.prompts)
    rows = [
        _row(rng, grid, model, method, seed, task, language, prompt, hardness[prompt]) | {"sample": sample}
        for model in grid.models
        for method in grid.methods
        for seed in grid.seeds
        for task in TASKS
        for language in grid.languages
        for prompt in range(grid.prompts)
        for sample in range(grid.samples if TASKS[task] != "utility" else 1)
    ]
    frame = pd.DataFrame(rows)
    for method, behaviour in grid.methods.items():
        if behaviour.copies:
            source = frame[frame["method"] == behaviour.copies].drop(columns="method")
            frame = pd.concat([frame[frame["method"] != method], source.assign(method=method)], ignore_index=True)
    return frame


def _row(rng, grid, model, method, seed, task, language, prompt, hardness):  # type: ignore[no-untyped-def] # noqa: PLR0913
    how = grid.methods[method]
    tier = grid.languages[language]
    lift = {"high": -1, "mid": 0, "low": 1}[tier] * how.slope / 2
    odds = np.log(max(how.unsafe, 1e-9) / max(1 - how.unsafe, 1e-9)) + lift + hardness
    correct = None
    if task == "jail":
        draw = rng.random()
        label = "invalid" if draw < how.invalid else "unparsed" if draw < how.invalid + how.unparsed else "refused"
        if label == "refused" and rng.random() < 1 / (1 + np.exp(-odds)):
            label = "unsafe"
    elif task == "benign":
        label = "refused" if rng.random() < how.over_refusal else "complied_safe"
    else:
        label, correct = "complied_safe", bool(rng.random() < how.accuracy)
    return {
        "method": method,
        "model": model,
        "seed": seed,
        "task": task,
        "kind": TASKS[task],
        "language": language,
        "tier": tier,
        "trained": language not in grid.unseen,
        "prompt_id": f"p{prompt}",
        "cluster": f"c{prompt // grid.per_cluster}",
        "label": label,
        "leak": label == "unsafe" and rng.random() < 0.1,
        "correct": correct,
        "answer_language": language,
        "answer_hash": f"{method}{seed}{task}{language}{prompt}",
        "truncated": False,
        "partial": False,
        "judge": "oracle",
        "provenance": "model oracle",
        "chance": 0.25 if task == "qa" else None,
    }


def jobs(grid: Grid) -> pd.DataFrame:
    """Return one row per planned job, all done."""
    rows = []
    for model in grid.models:
        for method, how in grid.methods.items():
            for seed in grid.seeds:
                rows.append(_job("align", model, method, seed) | _training(how, grid))
                for task in TASKS:
                    for language in grid.languages:
                        rows.append(_job("answer", model, method, seed, task=task, language=language))
    return pd.DataFrame(rows)


def _training(how: Behaviour, grid: Grid) -> dict[str, object]:
    trained = [language for language in grid.languages if language not in grid.unseen]
    return {
        "peak_memory_mb": 900.0 if how.steps else 0.0,
        "trainable_parameters": 1_200_000 if how.steps else 0,
        "total_parameters": 9_000_000,
        "steps": how.steps,
        "tokens": 3_000 * how.steps,
        "prompts": {language: 32 * how.steps for language in trained} if how.steps else {},
        "answers": {"en": 32 * how.steps} if how.steps else {},
        "weight_change": 0.02 if how.steps else 0.0,
    }


def _job(
    kind: str, model: str, method: str, seed: int, *, task: str | None = None, language: str | None = None
) -> dict[str, object]:
    return {
        "kind": kind,
        "key": f"{kind}-{model}-{method}-{seed}-{task}-{language}",
        "model": model,
        "method": method,
        "seed": seed,
        "task": task,
        "language": language,
        "status": "done",
        "error_type": "",
        "error": "",
        "log": "",
        "seconds": 41.5,
    }

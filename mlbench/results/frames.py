"""A run folder as two tables: one row per judged answer, one row per planned job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mlbench.core import Prompt
from mlbench.errors import DataError
from mlbench.plan import FORMAT
from mlbench.store import Store

COSTS = ("peak_memory_mb", "trainable_parameters", "total_parameters", "steps", "tokens", "prompts", "answers")
FACTS = (*COSTS, "weight_change", "loads", "truncated")
SHARED = ("method", "model", "seed", "task", "kind", "language", "tier", "trained", "judge")
PLACE = ("method", "model", "seed", "task", "language")


def read_plan(root: Path) -> dict[str, Any]:
    """Return the plan of a run folder.

    Raises:
        DataError: The folder holds no plan, or one of another version of mlbench.
    """
    path = root / "plan.json"
    if not path.is_file():
        raise DataError(f"{str(root)!r} is not a run folder: it has no plan.json", hint="mlbench run writes one")
    plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if plan.get("format") != FORMAT:
        raise DataError(
            f"the plan in {str(root)!r} was written by another version of mlbench",
            hint="run the shootout again with this version: finished jobs that still apply are kept",
        )
    return plan


def marked(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan with "(reconstruction)" in the label of every method that has no first-hand source.

    The label is what every table, figure and tracking run shows, so the mark cannot get lost on the way.
    """
    names = {
        label: f"{label} (reconstruction)"
        if "reconstruction" in about["fidelity"] and "reconstruction" not in label
        else label
        for label, about in plan["about"].items()
    }
    return {
        **plan,
        "cells": [cell | {"method": names[cell["method"]]} for cell in plan["cells"]],
        "methods": {names[label]: links for label, links in plan["methods"].items()},
        "about": {names[label]: about for label, about in plan["about"].items()},
        "baseline": names[plan["baseline"]],
        "references": [names[label] for label in plan["references"]],
    }


def jobs(plan: Mapping[str, Any], store: Store) -> pd.DataFrame:
    """Return one row per cell and job; a job that several cells share appears once for each."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in plan["cells"]:
        whole = {"method": cell["method"], "model": cell["model"], "seed": cell["seed"], "task": "", "language": ""}
        for key in cell["chain"]:
            rows.setdefault((key, *whole.values()), whole | {"kind": "align", "key": key})
        place = {name: cell[name] for name in PLACE}
        for kind in ("answer", "judge"):
            key = cell[f"{kind}_key"]
            rows.setdefault((key, *place.values()), place | {"kind": kind, "key": key})
    states = {key: _state(key, plan, store) for key in plan["jobs"]}
    return pd.DataFrame([row | states[row["key"]] for row in rows.values()])


def _state(key: str, plan: Mapping[str, Any], store: Store) -> dict[str, Any]:
    status = store.status(key)
    if status is None:
        state = "skipped" if _ancestor_failed(key, plan, store) else "missing"
        return {"status": state, "error_type": "", "error": "", "log": "", "seconds": 0.0} | dict.fromkeys(FACTS)
    failed = status.state == "failed"
    return {
        "status": status.state,
        "error_type": status.error_type,
        "error": status.error,
        "log": str(store.folder(key) / "log.txt") if failed else "",
        "seconds": status.facts.get("align_seconds", status.seconds),
        **{name: status.facts.get(name) for name in FACTS},
    }


def _ancestor_failed(key: str, plan: Mapping[str, Any], store: Store) -> bool:
    for before in plan["jobs"][key]["after"]:
        status = store.status(before)
        if (status and status.state == "failed") or _ancestor_failed(before, plan, store):
            return True
    return False


def verdicts(plan: Mapping[str, Any], store: Store) -> pd.DataFrame:
    """Return one row per judged answer of every finished cell."""
    prompts: dict[str, dict[str, Prompt]] = {}
    # Plain rows and one frame at the end: a frame per cell would cost ten times as much.
    rows: list[dict[str, Any]] = []
    for cell in plan["cells"]:
        if not (store.is_done(cell["answer_key"]) and store.is_done(cell["judge_key"])):
            continue
        key = plan["jobs"][cell["judge_key"]]["spec"]["prompts"]
        if key not in prompts:
            prompts[key] = {prompt.id: prompt for prompt in store.prompts(key)}
        rows += _cell_rows(cell, store, prompts[key], partial=plan["partial"])
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).astype({"chance": "Float64", "correct": "boolean", "answer_language": "string"})


def _cell_rows(
    cell: Mapping[str, Any], store: Store, prompts: Mapping[str, Prompt], *, partial: bool
) -> Iterator[dict[str, Any]]:
    answers = {(row["prompt_id"], row["sample"]): row for row in store.answer_rows(cell["answer_key"])}
    judged = store.verdicts(cell["judge_key"])
    assert answers.keys() == {(row["prompt_id"], row["sample"]) for row in judged}, "a judge job keeps every answer"
    shared = {name: cell[name] for name in SHARED} | {"partial": partial, "provenance": _provenance(cell, store)}
    for verdict in judged:
        prompt, answer = prompts[verdict["prompt_id"]], answers[verdict["prompt_id"], verdict["sample"]]
        yield {
            **{name: verdict[name] for name in ("prompt_id", "sample", "label", "leak", "correct")},
            "answer_language": verdict["language"],
            "truncated": answer["truncated"],
            "tokens": answer["tokens"],
            "answer_hash": _hash(answer),
            "cluster": prompt.cluster,
            "chance": 1 / len(prompt.choices) if prompt.choices else None,
            **shared,
        }


def _provenance(cell: Mapping[str, Any], store: Store) -> str:
    status = store.status(cell["judge_key"])
    provenance = status.facts.get("provenance", {}) if status else {}
    return "; ".join(f"{name} {value}" for name, value in provenance.items())


def _hash(answer: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{answer['text']}\0{answer['choice']}".encode()).hexdigest()[:16]


def curves(plan: Mapping[str, Any], store: Store) -> dict[str, list[dict[str, float]]]:
    """Return the training curve of every finished align job."""
    found = {}
    for key, job in plan["jobs"].items():
        path = store.folder(key) / "curve.json"
        if job["kind"] == "align" and path.is_file():
            found[key] = json.loads(path.read_text(encoding="utf-8"))
    return found

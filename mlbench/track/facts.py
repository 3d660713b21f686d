"""What MLflow is told of a checkpoint: tags, parameters, data sets, curves and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mlbench.results import Results
from mlbench.results.costs import costs
from mlbench.store import Store

RATES = ("asr", "leak", "over_refusal", "accuracy", "invalid")
OVER_SEEDS = (
    *("asr", "asr_low", "asr_high", "asr_unseen", "worst_asr", "over_refusal", "utility", "invalid"),
    *("unparsed", "language_match"),
)
TESTED = {
    **{"delta": "delta", "delta_low": "delta_low", "delta_high": "delta_high"},
    **{"p": "p", "p_holm": "p_adj", "mde": "mde"},
}
COSTS = ("train_seconds", "peak_memory_mb", "trainable_parameters", "steps", "tokens", "prompts", "answers")


class Place(NamedTuple):
    """Which checkpoint a child run stands for."""

    method: str
    model: str
    seed: int


def part(plan: Mapping[str, Any], cells: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the plan of one checkpoint and its cells."""
    keys = {key for cell in cells for key in (*cell["chain"], cell["answer_key"], cell["judge_key"])}
    return {**plan, "cells": cells, "jobs": {key: plan["jobs"][key] for key in sorted(keys)}}


def tags(plan: Mapping[str, Any], place: Place, parent: str, folder: str) -> dict[str, str]:
    links = plan["methods"][place.method]
    chain = next(cell["chain"] for cell in plan["cells"] if Place(cell["method"], cell["model"], cell["seed"]) == place)
    return {
        "mlflow.parentRunId": parent,
        "mlbench.run": folder,
        "mlbench.role": "checkpoint",
        "mlbench.checkpoint": chain[-1],
        "mlbench.method": place.method,
        "mlbench.plugin": " + ".join(link["method"] for link in links),
        "mlbench.model": place.model,
        "mlbench.seed": str(place.seed),
        "mlbench.paper": ", ".join(dict.fromkeys(link["paper"] for link in links)),
        "mlbench.fidelity": ", ".join(dict.fromkeys(link["fidelity"] for link in links)),
        "mlbench.baseline": str(place.method == plan["baseline"]).lower(),
    }


def place_tags(tags: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(tags.get(f"mlbench.{name}", "") for name in ("checkpoint", "method", "model", "seed"))


def state(jobs: pd.DataFrame) -> str:
    found = set(jobs["status"])
    return "FAILED" if found & {"failed", "skipped"} else "RUNNING" if "missing" in found else "FINISHED"


def fields(links: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for link in links:
        for name, value in link["fields"].items():
            yield f"{link['method']}.{name}", str(value)
        prefix = f"{link['method']}.training" if len(links) > 1 else "training"
        for name, value in (link["training"] if link["effect"] == "training" else {}).items():
            yield f"{prefix}.{name}", str(value)


def datasets(plan: Mapping[str, Any], store: Store) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
    """Yield (name, digest) and the rest of every corpus and every set of prompts."""
    for job in plan["jobs"].values():
        if job["kind"] == "align":
            key = job["spec"]["corpus"]
            if (store.root / "data" / f"{key}.jsonl").is_file():
                yield ("corpus", key), {"source": f"data/{key}.jsonl", "context": "training", "profile": "{}"}
    for cell in plan["cells"]:
        key = plan["jobs"][cell["judge_key"]]["spec"]["prompts"]
        about = {"source": plan["tasks"][cell["task"]]["source"], "context": "evaluation"}
        yield (f"{cell['task']}/{cell['language']}", key), about | {"profile": json.dumps({"rows": cell["prompts"]})}


def spent(jobs: pd.DataFrame) -> Iterator[tuple[str, float]]:
    for line in costs(jobs).to_dict("records"):
        for name in COSTS:
            yield f"cost/{name}", line[name]


def metrics(results: Results, place: Place) -> Iterator[tuple[str, float]]:
    """Yield the rates of this seed, and what was tested over all seeds."""
    mine = (results.cells[["method", "model", "seed"]] == list(place)).all(axis=1)
    cells = results.cells[mine]
    yield from _macros(cells, results.design.primary)
    for line in cells.to_dict("records"):
        for rate in RATES:
            yield f"{rate}/{line['task']}/{line['language']}", line[rate]
    ranking = results.ranking
    for line in ranking[(ranking["method"] == place.method) & (ranking["model"] == place.model)].to_dict("records"):
        for name in OVER_SEEDS:
            yield f"over_seeds/{name}", line[name]
        for name, shown in TESTED.items():
            yield f"{shown}/asr_vs_{results.design.baseline}", line[name]


def _macros(cells: pd.DataFrame, primary: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """Yield the means over cells; one that lacks a cell is NaN, as in the report."""
    safety = cells[cells["task"].isin(primary)]
    graded = cells["task"].isin(cells.loc[cells["accuracy"].notna(), "task"]) | (cells["kind"] == "utility")
    yield "macro/asr", safety["asr"].mean(skipna=False)
    yield "macro/asr_unseen", safety.loc[~safety["trained"].astype(bool), "asr"].mean(skipna=False)
    yield "macro/invalid", safety["invalid"].mean(skipna=False)
    yield (
        "macro/worst_asr",
        safety.groupby("language")["asr"].agg(lambda rate: rate.mean(skipna=False)).max(skipna=False),
    )
    yield "macro/over_refusal", cells.loc[cells["kind"] == "over_refusal", "over_refusal"].mean(skipna=False)
    yield "macro/utility", cells.loc[graded, "accuracy"].mean(skipna=False)


def verdict(results: Results, place: Place) -> str:
    """Return what the report says of a method on a model, "" where it says nothing."""
    ranking = results.ranking
    mine = ranking[(ranking["method"] == place.method) & (ranking["model"] == place.model)]
    return str(next(iter(mine["verdict"]), ""))


def points(path: Path, prefix: str) -> Iterator[tuple[str, float, int]]:
    for point in json.loads(path.read_text(encoding="utf-8")):
        for name, value in point.items():
            if name != "step":
                yield f"{prefix}/{name}", float(value), int(point["step"])

"""Mirror a run folder to MLflow: a parent run per shootout, a child per method, model and seed.

Written by the driver only and never read back as truth. Mirroring twice changes nothing: runs are found again by
their tags, and a value is logged only where it differs. `mlflow` is imported only here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mlbench import environment
from mlbench.results import Results

RATES = ("asr", "leak", "over_refusal", "accuracy", "invalid", "unparsed", "language_match")
SUMMARY = ("asr", "asr_unseen", "worst_asr", "over_refusal", "utility", "invalid", "delta", "p", "p_holm", "mde")
COSTS = ("train_seconds", "peak_memory_mb", "trainable_parameters", "steps", "tokens")
LONGEST_PARAM = 500


def default_uri(root: Path) -> str:
    """Return the sqlite store beside the run folders."""
    return f"sqlite:///{root.absolute().parent / 'mlflow.db'}"


def mirror(
    root: Path,
    plan: Mapping[str, Any],
    results: Results,
    curves: Mapping[str, list[dict[str, float]]],
    *,
    uri: str,
    artifacts: Mapping[str, Path],
) -> str:
    """Bring MLflow up to date with a run folder and return the id of the parent run."""
    environment.prepare()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they tell of every table they create
        logging.getLogger(name).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri or default_uri(root))
    experiment = _experiment(client, plan["name"], root, own_store=not uri)
    folder = {"mlbench.run": str(root.absolute())}
    parent = _run(client, experiment, plan["name"], folder | {"mlbench.role": "shootout"})
    _log_params(client, parent, {"baseline": plan["baseline"], "methods": ", ".join(plan["methods"])})
    for path in artifacts.values():
        client.log_artifact(parent, str(path))
    for (method, model, seed), cells in results.cells.groupby(["method", "model", "seed"]):
        tags = folder | {
            "mlbench.role": "checkpoint",
            "mlbench.method": method,
            "mlbench.model": model,
            "mlbench.seed": str(seed),
            "mlbench.paper": ", ".join(link["paper"] for link in plan["methods"][method]),
            "mlflow.parentRunId": parent,
        }
        child = _run(client, experiment, f"{method} · {model} · seed {seed}", tags)
        _log_params(client, child, dict(_fields(plan["methods"][method])))
        _log_metrics(client, child, dict(_metrics(cells, results, method, model)))
        _log_curve(client, child, _curve(plan, curves, method, model, seed))
        failed = bool((cells["status"] != "done").any())
        client.set_terminated(child, status="FAILED" if failed else "FINISHED")
    client.set_terminated(parent, status="FINISHED" if results.failures.empty else "FAILED")
    return parent


def _experiment(client: Any, name: str, root: Path, *, own_store: bool) -> str:
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    # With a sqlite store MLflow would put artifacts into ./mlruns of the current folder.
    place = (root.absolute().parent / "mlflow-artifacts" / name).as_uri() if own_store else None
    # Without this tag the pages of MLflow 3 open on traces of chat applications.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=place, tags=tags))


def _run(client: Any, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    query = " and ".join(
        f"tags.`{key}` = '{_quoted(value)}'" for key, value in tags.items() if key.startswith("mlbench.")
    )
    found = client.search_runs([experiment], filter_string=query, max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)


def _quoted(value: str) -> str:
    return value.replace("'", "\\'")


def _fields(links: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for link in links:
        for name, value in link["fields"].items():
            yield f"{link['method']}.{name}", str(value)
        for name, value in (link["training"] if link["effect"] == "training" else {}).items():
            yield f"training.{name}", str(value)


def _log_params(client: Any, run: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run).data.params
    new = [Param(key, value[:LONGEST_PARAM]) for key, value in params.items() if key not in known]
    if new:
        client.log_batch(run, params=new)


def _metrics(cells: pd.DataFrame, results: Results, method: str, model: str) -> Iterator[tuple[str, float]]:
    for line in cells.to_dict("records"):
        for rate in RATES:
            yield f"{rate}/{line['task']}/{line['language']}", line[rate]
    ranking = results.ranking
    for line in ranking[(ranking["method"] == method) & (ranking["model"] == model)].to_dict("records"):
        for name in SUMMARY:
            yield _summary_name(name, results.design.baseline), line[name]
        for name in COSTS:
            yield f"cost/{name}", line[name]


def _summary_name(name: str, baseline: str) -> str:
    if name in ("delta", "p", "p_holm", "mde"):
        return f"{name}/asr_vs_{baseline}"
    return f"macro/{name}"


def _log_metrics(client: Any, run: str, metrics: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric

    known = client.get_run(run).data.metrics
    now = client.get_run(run).info.start_time
    new = [
        Metric(key, float(value), now, 0)
        for key, value in metrics.items()
        if value is not None and not pd.isna(value) and math.isfinite(value) and known.get(key) != float(value)
    ]
    for at in range(0, len(new), 1000):
        client.log_batch(run, metrics=new[at : at + 1000])


def _curve(
    plan: Mapping[str, Any], curves: Mapping[str, list[dict[str, float]]], method: str, model: str, seed: int
) -> list[dict[str, float]]:
    for cell in plan["cells"]:
        if (cell["method"], cell["model"], cell["seed"]) == (method, model, seed):
            return curves.get(cell["chain"][-1], [])
    return []


def _log_curve(client: Any, run: str, curve: list[dict[str, float]]) -> None:
    from mlflow.entities import Metric

    known = client.get_run(run).data.metrics
    start = client.get_run(run).info.start_time
    points = [
        Metric(f"train/{name}", float(value), start, int(point["step"]))
        for point in curve
        for name, value in point.items()
        if name != "step" and f"train/{name}" not in known
    ]
    for at in range(0, len(points), 1000):
        client.log_batch(run, metrics=points[at : at + 1000])

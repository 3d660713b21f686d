"""How MLflow is told: in batches, and only what it does not know yet."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

LONGEST_PARAM = 6000
BATCH = 1000
"""Metrics that MLflow takes in one call."""


def name(text: str) -> str:
    """Return a name with what MLflow takes in names."""
    return re.sub(r"[^\w.\-/: ]", "_", text)


def log_params(client: Any, run: Any, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    new = [Param(name(key), value[:LONGEST_PARAM]) for key, value in params.items() if name(key) not in run.data.params]
    for at in range(0, len(new), 100):
        client.log_batch(run.info.run_id, params=new[at : at + 100])


def log_inputs(client: Any, run: Any, datasets: Mapping[tuple[str, str], Mapping[str, str]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known = {(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs}
    new = [
        DatasetInput(
            Dataset(name=name, digest=digest, source_type="mlbench", source=about["source"], profile=about["profile"]),
            tags=[InputTag("mlflow.data.context", about["context"])],
        )
        for (name, digest), about in datasets.items()
        if (name, digest) not in known
    ]
    if new:
        client.log_inputs(run.info.run_id, datasets=new)


def log_metrics(client: Any, run: Any, metrics: Mapping[str, Any]) -> None:
    known = run.data.metrics
    points = [
        (key, float(value), 0)
        for key, value in metrics.items()
        if value is not None and not pd.isna(value) and math.isfinite(value) and known.get(name(key)) != float(value)
    ]
    log_points(client, run, points)


def log_points(client: Any, run: Any, points: list[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric

    # The same point with the same time is one point in the store, however often it is sent.
    new = [Metric(name(key), value, run.info.start_time, step) for key, value, step in points]
    for at in range(0, len(new), BATCH):
        client.log_batch(run.info.run_id, metrics=new[at : at + BATCH])


def log_tables(client: Any, run: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables as MLflow's own tables, which its pages show; `log_table` would append to an earlier one."""
    paths = []
    for name, found in tables.items():
        table = found.map(lambda value: str(value) if isinstance(value, Mapping) else value)
        paths.append({"path": f"tables/{name}.json", "type": "table"})
        client.log_text(run, table.to_json(orient="split", index=False), paths[-1]["path"])
    client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(paths))


def set_tags(client: Any, run: Any, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        if run.data.tags.get(key) != value:
            client.set_tag(run.info.run_id, key, value)


def set_state(client: Any, run: str, state: str, end: float) -> None:
    if state == "RUNNING":
        client.update_run(run, status=state)
    else:
        client.set_terminated(run, status=state, end_time=int(1000 * end))

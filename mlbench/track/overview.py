"""What MLflow's page of an experiment shows first: the columns, the order and the charts, as one of its shared views.

A shared view is the state of the page as JSON in a tag of the experiment, read when the address names its key. The
names of the fields are those of MLflow's pages; they ignore unknown ones, so that a newer MLflow loses a chart at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlbench.track import sending

KEY = "mlbench"
TAG = f"mlflow.sharedViewState.{KEY}"
COLUMNS = ("macro/asr", "macro/asr_unseen", "macro/worst_asr", "macro/over_refusal", "macro/utility", "macro/invalid")
TESTED = ("delta/asr_vs_{}", "p_adj/asr_vs_{}")
BARS = ("macro/asr", "macro/over_refusal", "macro/utility", "macro/asr_unseen", "macro/worst_asr")


def address(experiment: str) -> str:
    """Return the page with this view, relative to the server's own address."""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"


def view(plan: Mapping[str, Any]) -> str:
    """Return the view as JSON: a row per method (and model) with the mean of its seeds, the safest first."""
    keys = ("method", "model") if len(plan["models"]) > 1 else ("method",)
    charts = [
        *(_chart("BAR", "macro", name, metricKey=name) for name in BARS),
        _chart("SCATTER", "macro", "macro/asr against macro/utility", xaxis=_axis("utility"), yaxis=_axis("asr")),
        _chart("LINE", "train", "train/loss", metricKey="train/loss", **LINE),
    ]
    metrics = (*COLUMNS, *(sending.name(tested.format(plan["baseline"])) for tested in TESTED))
    return json.dumps(
        {
            "searchFilter": "tags.`mlbench.role` = 'checkpoint'",
            "orderByKey": "metrics.`macro/asr`",
            "orderByAsc": True,
            "selectedColumns": [*(f"metrics.`{name}`" for name in metrics), "tags.`mlbench.verdict`"],
            "groupBy": {"aggregateFunction": "average", "groupByKeys": [_param(key) for key in keys]},
            "groupsExpanded": {f"param.method.{method}": False for method in plan["methods"]},
            "runsHiddenMode": "FIRST_20_RUNS",
            "compareRunCharts": charts,
            "compareRunSections": [
                {"uuid": name, "name": name, "display": True, "isReordered": True} for name in ("macro", "train")
            ],
            "isAccordionReordered": True,  # keeps these sections above those that MLflow adds for all other metrics
        }
    )


LINE: dict[str, Any] = {
    "xAxisKey": "step",
    "yAxisKey": "metric",
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "lineSmoothness": 0,
    "selectedXAxisMetricKey": "",
    "yAxisExpressions": [],
    "range": {},
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}


def _param(name: str) -> dict[str, str]:
    return {"mode": "param", "groupByData": name}


def _axis(rate: str) -> dict[str, str]:
    return {"key": f"macro/{rate}", "type": "METRIC"}


def _chart(kind: str, section: str, title: str, **fields: Any) -> dict[str, Any]:
    known = {"uuid": f"{kind} {title}", "type": kind, "metricSectionId": section, "displayName": title}
    return known | {"runsCountToCompare": 100, "deleted": False, "isGenerated": False} | fields

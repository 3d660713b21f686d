"""Another judge over the stored answers of a run: nothing is generated again.

A second judgement lies beside the planned one in <run>/judgements/<name>.json and names its own judge jobs; `view`
gives the plan as that judge sees it, so that every table and report can be made by either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mlbench import plan, plugins
from mlbench.core import Judge
from mlbench.errors import DataError, UserError, nearest
from mlbench.plan import Job
from mlbench.results import frames
from mlbench.store import Store, write_json
from mlbench.yamlfile import Document, validate

KEY = ("model", "method", "seed", "task", "language", "prompt_id", "sample")
"""What names an answer."""


def make(data: Mapping[str, Any], store: Store, name: str, judge: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return the judgement of a judge: its jobs, and which of them stands for which planned one.

    Cells with an answer that needs no judge's opinion (multiple choice) keep their own judge.

    Raises:
        UserError: The name is taken by other settings, or the judge or one of its fields does not exist.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise UserError(f"{name!r} is no name for a judgement: letters, digits and . _ + - only")
    made: Any = load(judge, fields)
    spec = {
        "judge": judge,
        "fields": asdict(made),
        "code": plugins.source_hash("judge", judge),
        "plugin_files": plugins.files("judge", [judge]),
        "engine": plan.engine_hash("judge"),
    }
    jobs: dict[str, Job] = {}
    keys: dict[str, str] = {}
    for cell in data["cells"]:
        if cell["kind"] != "utility":
            job = _job(data, cell, spec)
            jobs[job.key] = job
            keys[cell["judge_key"]] = job.key
    record: dict[str, Any] = {
        "name": name,
        "judge": judge,
        "fields": spec["fields"],
        "keys": keys,
        "jobs": {key: asdict(job) for key, job in jobs.items()},
    }
    path = _path(store.root, name)
    old = read(store.root, name) if path.is_file() else record
    if (old["judge"], old["fields"]) != (judge, record["fields"]):
        raise UserError(f"the run has a judgement {name!r} with other settings", hint="give this one a name with --as")
    path.parent.mkdir(exist_ok=True)
    write_json(path, record)
    return record


def load(judge: str, fields: Mapping[str, Any]) -> Judge:
    """Return a judge with fields from the command line.

    Raises:
        UserError: The judge or a field does not exist, or a value is out of range.
    """
    found: Judge = validate(plugins.load("judge", judge), dict(fields), Document(path="--with", text="", data={}))
    if hasattr(found, "check"):
        found.check()
    return found


def _job(data: Mapping[str, Any], cell: Mapping[str, Any], spec: Mapping[str, Any]) -> Job:
    planned = data["jobs"][cell["judge_key"]]
    mine = dict(spec) | {name: planned["spec"][name] for name in ("answers", "prompts")}
    what = {name: value for name, value in mine.items() if name not in plan.PLACEMENT}
    key = f"judge-{plan.digest(what)}"
    return Job(
        kind="judge",
        key=key,
        spec=mine,
        after=(cell["answer_key"],),
        affinity=f"judge:{spec['judge']}",
        label=planned["label"],
    )


def _path(root: Path, name: str) -> Path:
    return root / "judgements" / f"{name}.json"


def names(root: Path) -> list[str]:
    """Return the judgements of a run besides the planned one."""
    return sorted(path.stem for path in (root / "judgements").glob("[!.]*.json"))


def read(root: Path, name: str) -> dict[str, Any]:
    """Return one judgement.

    Raises:
        UserError: The run has no judgement of that name.
    """
    if name not in names(root):
        raise UserError(f"the run has no judgement {name!r}", allowed=names(root), hint=nearest(name, names(root)))
    record: dict[str, Any] = json.loads(_path(root, name).read_text(encoding="utf-8"))
    return record


def view(data: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan as if it had named this judge."""
    cells = [
        cell | {"judge_key": record["keys"][cell["judge_key"]], "judge": record["judge"]}
        if cell["judge_key"] in record["keys"]
        else cell
        for cell in data["cells"]
    ]
    return {**data, "cells": cells, "jobs": {**data["jobs"], **record["jobs"]}}


def labels(data: Mapping[str, Any], store: Store, record: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per answer that both judges have labelled: `planned`, `second` and `source`, its source prompt.

    Raises:
        DataError: No cell has been judged by both.
    """
    cells = [cell for cell in data["cells"] if cell["judge_key"] in record["keys"]]
    sides = []
    for column, seen in (("planned", {**data, "cells": cells}), ("second", view({**data, "cells": cells}, record))):
        rows = frames.verdicts(seen, store)
        if rows.empty:
            raise DataError("no cell has been judged by both judges yet")
        rows["source"] = rows["task"] + " " + rows["cluster"]
        sides.append(rows[[*KEY, "kind", "source", "label"]].rename(columns={"label": column}))
    return sides[0].merge(sides[1].drop(columns=["kind", "source"]), on=list(KEY), validate="1:1")

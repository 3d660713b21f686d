"""Plans, runs and machines in words: the text behind `plan`, `status` and `doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbench import cache as caches
from mlbench import catalogue, environment, plugins, sketch, stats, usage, view
from mlbench.plan import Plan
from mlbench.shootout import Shootout
from mlbench.store import Store

LOOK_SECONDS = 0.2
"""How long the use of this machine is looked at."""


def of_plan(made: Plan, folder: Path) -> dict[str, Any]:
    """Return what a plan will do, as plain data."""
    store = Store(folder)
    settings = made.shootout.settings
    missing = [job for job in made.jobs.values() if not store.is_done(job.key)]
    answers = {cell.answer_key: cell.prompts for cell in made.cells}
    todo = {job.key for job in missing}
    return {
        "name": settings.name,
        "folder": str(folder),
        "methods": list(made.methods),
        "models": [model.name for model in made.models],
        "languages": list(made.languages),
        "unseen": settings.unseen,
        "tasks": {label: task.kind for label, task in made.tasks.items()},
        "seeds": settings.seeds,
        "baseline": made.baseline,
        "cells": len(made.cells),
        "selection": _selection(settings),
        "jobs": dict(Counter(job.kind for job in made.jobs.values())),
        "to_run": dict(Counter(job.kind for job in missing)),
        "answers_to_write": sum(count for key, count in answers.items() if key in todo),
        "seconds": _expected_seconds(made, missing, store),
        "detectable": _detectable(made),
        "overlaps": made.overlaps,
        "missing": list(made.missing),
        "gpu_hours": sketch.gpu_hours(made),
        "excluded": list(made.excluded),
        "notes": list(made.notes),
    }


def _selection(settings: Shootout) -> str:
    """Return what is done to select settings, "" for nothing."""
    select = settings.select
    if select is None:
        return ""
    searched = [entry.label for entry in settings.methods if entry.search]
    fixed = [entry.label for entry in settings.methods if not entry.search]
    kept = f"; fixed: {', '.join(fixed)}" if fixed else ""
    return (
        f"{select.trials} trials each of {', '.join(searched)} on split {select.split!r}, before the jobs below; "
        f"{select.rule}{kept}"
    )


def _expected_seconds(made: Plan, missing: Sequence[Any], store: Store) -> float | None:
    """Return the expected work in job-seconds from finished jobs of the same kinds, None when a kind has none."""
    known: dict[str, list[float]] = {}
    for key, job in made.jobs.items():
        status = store.status(key)
        if status and status.state == "done":
            known.setdefault(job.kind, []).append(status.seconds)
    if any(job.kind not in known for job in missing):
        return None
    return sum(sum(known[job.kind]) / len(known[job.kind]) for job in missing)


def _detectable(made: Plan) -> dict[str, Any] | None:
    """Return the smallest difference in macro ASR that the design sees with 80 % power, Holm's worst case."""
    asked = {
        (cell.task, cell.language): made.jobs[cell.judge_key].spec["prompts"]
        for cell in made.cells
        if cell.kind == "safety"
    }
    clusters = {prompt.cluster for key in set(asked.values()) for prompt in made.prompts[key]}
    if not clusters:
        return None
    settings = made.shootout.settings.statistics
    tests = max(1, (len(made.methods) - 1) * len(made.models))
    smallest = stats.minimum_detectable(
        len(clusters), rows=len(asked), sd=settings.planned_sd, alpha=settings.alpha, tests=tests
    )
    return {
        "points": round(100 * smallest, 1),
        "clusters": len(clusters),
        "sd": settings.planned_sd,
        "comparisons": tests,
    }


def plan_text(about: Mapping[str, Any]) -> str:
    """Return a plan as one screen of text."""
    tasks = ", ".join(f"{label} ({kind})" for label, kind in about["tasks"].items())
    unseen = f"; never trained on: {', '.join(about['unseen'])}" if about["unseen"] else ""
    lines = [
        f"{about['name']} in {about['folder']}",
        f"  methods    {', '.join(about['methods'])}  (baseline: {about['baseline']})",
        f"  models     {', '.join(about['models'])}",
        f"  languages  {', '.join(about['languages'])}{unseen}",
        f"  tasks      {tasks}",
        f"  seeds      {', '.join(map(str, about['seeds']))}",
        f"  cells      {about['cells']}",
        *([f"  selection  {about['selection']}"] if about["selection"] else []),
    ]
    for kind, count in about["jobs"].items():
        left = about["to_run"].get(kind, 0)
        lines.append(f"  {kind:<10} {count} jobs, {count - left} done, {left} to run")
    lines.append(f"  answers    {about['answers_to_write']:,} to write")
    if about["to_run"] and about["seconds"] is not None:
        lines.append(f"  work       about {about['seconds']:.0f} job-seconds, by the jobs already done")
    if found := about["detectable"]:
        lines.append(
            f"  detectable {found['points']} points of macro ASR or more ({found['clusters']} source prompts, "
            f"{found['comparisons']} comparisons, 80 % power, assumed sd {found['sd']})"
        )
    if about["gpu_hours"] is not None:
        lines.append(
            f"  gpu        about {about['gpu_hours']:.1f} hours on one of the H100 class, without judging; a guess"
        )
    lines += [f"  missing    {what}" for what in about["missing"]]
    lines += _overlap_lines(about["overlaps"])
    lines += [f"  note       {note}" for note in about["notes"]]
    lines += [f"  excluded   {item}" for item in about["excluded"]]
    return "\n".join(lines)


def _overlap_lines(overlaps: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Return the training prompts that the evaluation also asks, task by kind of match; equal models in one table."""
    tables = {str(tasks): tasks for tasks in overlaps.values() if tasks}
    lines = []
    for tasks in tables.values():
        kinds = list(next(iter(tasks.values())))
        width = max(map(len, tasks))
        lines.append(f"  overlap    {'training prompts in':<{width}}  " + "  ".join(f"{kind:>10}" for kind in kinds))
        for task, counts in tasks.items():
            lines.append(f"             {task:<{width}}  " + "  ".join(f"{counts[kind]:>10}" for kind in kinds))
    return lines


def of_run(folder: Path) -> dict[str, Any]:
    """Return the state of a run folder: jobs by kind and state, what runs now, what failed.

    Raises:
        DataError: The folder holds no plan.
    """
    from mlbench.results import frames

    store = Store(folder)
    plan = frames.read_plan(folder)
    table = frames.jobs(plan, store).drop_duplicates("key")
    running = {key: progress for key, progress in store.running().items() if key in plan["jobs"]}
    counts = table.groupby(["kind", "status"]).size()
    return {
        "name": plan["name"],
        "folder": str(store.root),
        "jobs": {f"{kind} {state}": int(count) for (kind, state), count in counts.items()},
        "running": {plan["jobs"][key]["label"]: progress for key, progress in running.items()},
        "machine": _machine() if running else "",
        "failed": [
            {"label": plan["jobs"][row.key]["label"], "error": f"{row.error_type}: {row.error}", "log": row.log}
            for row in table[table["status"] == "failed"].itertuples()
        ],
        "selecting": _selecting(folder),
        "slowest": [
            {"label": plan["jobs"][row.key]["label"], "kind": row.kind, "seconds": round(row.seconds, 1)}
            for row in table.nlargest(3, "seconds").itertuples()
            if row.seconds
        ],
    }


def _machine() -> str:
    machine = usage.Machine()
    time.sleep(LOOK_SECONDS)
    return machine()


def _selecting(folder: Path) -> dict[str, Any] | None:
    """Return the state of the selection while it goes on."""
    stage = folder / "selection"
    return of_run(stage) if (stage / "plan.json").is_file() and not (folder / "selection.json").is_file() else None


def run_text(about: Mapping[str, Any]) -> str:
    """Return the state of a run as text."""
    lines = ["selecting settings first:", run_text(about["selecting"]), "then:"] if about["selecting"] else []
    lines.append(f"{about['name']} in {about['folder']}")
    lines += [f"  {name:<16} {count}" for name, count in sorted(about["jobs"].items())]
    for label, progress in about["running"].items():
        lines.append(" ".join(filter(None, (f"  running: {label}:", *view.doing(progress)))))
    if about["machine"]:
        lines.append(f"  {about['machine']}")
    lines += [f"  failed: {item['label']}: {item['error']}\n    log: {item['log']}" for item in about["failed"]]
    lines += [f"  slow: {item['label']} ({item['kind']}): {item['seconds']} s" for item in about["slowest"]]
    return "\n".join(lines)


def doctor() -> dict[str, str]:
    """Return what a bug report should say about this machine and this installation."""
    facts = {f"version of {name}": version for name, version in environment.versions().items()}
    facts["machine"] = environment.machine()
    facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    facts["free disk"] = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB"
    facts["gpu"] = _gpu()
    cache = caches.folder()
    built = [path.name for path in sorted(cache.glob("organism/*/"))]
    facts["cache"] = f"{cache} ({len(built)} organisms)"
    facts["executable"] = f"{platform.python_implementation()} at {sys.executable}"
    for kind in plugins.KINDS:
        broken = [row for row in (catalogue.listed(kind, name) for name in plugins.names(kind)) if row["state"] != "ok"]
        state = "; ".join(f"{row['name']}: {row['about']}" for row in broken) or "all importable"
        facts[f"{kind} plugins"] = f"{len(plugins.names(kind))}, {state}"
    return facts


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(index) for index in range(count))


def facts_text(facts: Mapping[str, str]) -> str:
    """Return facts, one per line."""
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())

"""Plans, runs, plugins and machines in words: the text behind `plan`, `status`, `list`, `show` and `doctor`."""

from __future__ import annotations

import dataclasses
import inspect
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mlbench import cache as caches
from mlbench import environment, plugins, sources, stats
from mlbench.errors import PluginError, UserError, nearest, unknown
from mlbench.plan import Plan
from mlbench.shootout import Shootout
from mlbench.store import Store

KINDS = {"methods": "method", "tasks": "task", "judges": "judge"}


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
    lines += [f"  note       {note}" for note in about["notes"]]
    lines += [f"  excluded   {item}" for item in about["excluded"]]
    return "\n".join(lines)


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
        share = f" {progress['done']}/{progress['total']}" if progress["total"] else ""
        lines.append(f"  running: {label}: {progress['stage']}{share}")
    lines += [f"  failed: {item['label']}: {item['error']}\n    log: {item['log']}" for item in about["failed"]]
    lines += [f"  slow: {item['label']} ({item['kind']}): {item['seconds']} s" for item in about["slowest"]]
    return "\n".join(lines)


def listing(what: str) -> list[dict[str, str]]:
    """Return name, state and one line about every plugin of a kind, or the model sources.

    Raises:
        UserError: There is no such list.
    """
    if what == "models":
        return [
            {"name": size, "about": "a model organism built on this machine", "state": "ok"} for size in sources.SIZES
        ]
    if what not in KINDS:
        raise unknown("list", what, [*KINDS, "models"])
    return [_listed(KINDS[what], name) for name in plugins.names(KINDS[what])]


def _listed(kind: str, name: str) -> dict[str, str]:
    try:
        cls = plugins.load(kind, name)
    except PluginError as error:
        return {"name": name, "state": "unavailable", "about": error.message}
    about = (inspect.getdoc(inspect.getmodule(cls)) or "").split("\n")[0]
    mark = " (reconstruction)" if getattr(cls(), "fidelity", "") == "reconstruction" else ""
    return {"name": name, "state": "ok", "about": about + mark}


def listing_text(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a list as text."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in rows:
        state = "" if row["state"] == "ok" else "UNAVAILABLE: "
        lines.append(f"{row['name']:<{width}}  {state}{row['about']}")
    return "\n".join(lines)


def about(name: str) -> dict[str, Any]:
    """Return what there is to know about a plugin.

    Raises:
        PluginError: No plugin has that name, or it cannot be imported.
    """
    kind = next((kind for kind in plugins.KINDS if name in plugins.names(kind)), None)
    if kind is None:
        options = [option for kind in plugins.KINDS for option in plugins.names(kind)]
        raise PluginError(f"unknown plugin {name!r}", allowed=options, hint=nearest(name, options))
    cls = plugins.load(kind, name)
    module = inspect.getmodule(cls)
    made = cls()
    facts = {key: getattr(made, key) for key in ("paper", "source", "licence", "kind", "judge") if hasattr(made, key)}
    if kind == "method":
        facts |= {"follows": getattr(made, "fidelity", "baseline"), "does": getattr(cls, "effect", "training")}
        facts["needs"] = sorted(made.needs) or "nothing"
    if kind == "task":
        facts["languages"] = list(made.languages)
    return {
        "name": name,
        "plugin": kind,
        "file": inspect.getsourcefile(cls),
        "about": inspect.getdoc(module) or "",
        "facts": facts,
        "fields": _fields(cls),
        "field_notes": inspect.getdoc(cls) or "",
        "presets": {name: dataclasses.asdict(preset) for name, preset in getattr(cls, "presets", {}).items()},
        "reported": list(getattr(cls, "reported", ())),
    }


def _fields(cls: Any) -> list[dict[str, str]]:
    hints = get_type_hints(cls, include_extras=True)
    return [
        {"name": item.name, "type": _type_name(hints[item.name]), "default": _default(item)}
        for item in dataclasses.fields(cls)
    ]


def _type_name(hint: Any) -> str:
    """Return a type as a user reads it: `float > 0`, `'dpo' or 'sft'`, `list of str`."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        limits = [limit for note in notes for limit in getattr(note, "metadata", [])]
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        ranges = [
            f"{sign} {getattr(limit, name)}" for limit in limits for name, sign in signs.items() if hasattr(limit, name)
        ]
        return " ".join([_type_name(base), " and ".join(ranges)]).strip()
    if get_origin(hint) is Literal:
        return " or ".join(repr(value) for value in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list):
        return f"list of {_type_name(get_args(hint)[0])}"
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
        return f"mapping of {' to '.join(_type_name(part) for part in get_args(hint))}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _default(item: Any) -> str:
    if item.default_factory is not dataclasses.MISSING:
        return repr(item.default_factory())
    default = getattr(item.default, "default", item.default)  # pydantic's Field wraps it
    if factory := getattr(item.default, "default_factory", None):
        return repr(factory())
    return "required" if default is dataclasses.MISSING else repr(default)


def about_text(facts: Mapping[str, Any]) -> str:
    """Return a plugin's description as text."""
    lines = [f"{facts['name']} ({facts['plugin']})  {facts['file']}", "", facts["about"], ""]
    lines += [
        f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in facts["facts"].items()
    ]
    if facts["fields"]:
        width = max(len(item["name"]) for item in facts["fields"])
        lines += ["", "fields (name, default, type):"]
        lines += [f"  {item['name']:<{width}}  {item['default']:<16} {item['type']}" for item in facts["fields"]]
        lines += ["", facts["field_notes"]]
    for name, preset in facts["presets"].items():
        changes = {**preset["fields"], **{f"training.{key}": value for key, value in preset["training"].items()}}
        lines += ["", f"{facts['name']}[{name}]: {preset['note']}"]
        lines += ["  " + ", ".join(f"{key} = {value!r}" for key, value in changes.items())] if changes else []
    if facts["reported"]:
        lines += ["", "reported by the paper (never ranked with measured numbers):"]
        lines += ["  " + ", ".join(f"{value}" for value in row.values()) for row in facts["reported"]]
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
        broken = [row for row in (_listed(kind, name) for name in plugins.names(kind)) if row["state"] != "ok"]
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


def check(names: Sequence[str], file: str | None) -> list[Any]:
    """Run the contract suite over plugins, printing each finding as it comes.

    Raises:
        UserError: A plugin has an unknown name or the file is not KIND:PATH.
    """
    from mlbench import check as suite

    chosen = [_named(name) for name in names]
    if file is not None:
        kind, _, path = file.partition(":")
        if kind not in plugins.KINDS or not Path(path).is_file():
            raise UserError(
                f"--plugin takes KIND:FILE, got {file!r}", allowed=[f"{kind}:FILE" for kind in plugins.KINDS]
            )
        chosen.append((kind, plugins.add_file(kind, Path(path))))
    if not chosen:
        chosen = [(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)]
    findings = []
    for kind, name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for finding in suite.plugin(kind, plugins.load(kind, name), Path(folder)):
                findings.append(finding)
                mark = "FAIL" if not finding.passed else "skip" if finding.skipped else "ok  "
                detail = f": {finding.detail}" if finding.detail else ""
                print(f"{mark} {kind} {name}: {finding.check}{detail}", flush=True)
    return findings


def _named(name: str) -> tuple[str, str]:
    for kind in plugins.KINDS:
        if name in plugins.names(kind):
            return kind, name
    options = [option for kind in plugins.KINDS for option in plugins.names(kind)]
    raise PluginError(f"unknown plugin {name!r}", allowed=options, hint=nearest(name, options))

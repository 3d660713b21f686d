"""Two run folders: which cells both have, how they differ, and what differs in settings, code and versions."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mlbench import environment, report, reporting
from mlbench.errors import DataError, UserError, shorten
from mlbench.report import Half, Versus
from mlbench.results import frames, versus
from mlbench.results.cells import CELL
from mlbench.store import Store

NOT_SETTINGS = ("checkpoint", "prompts", "engine", "code", "api_key_env", "plugin_files", "answers")
"""Keys of the spec of an answer or judge job that are told elsewhere."""


class Fact(NamedTuple):
    """What a plan says in one place.

    Attributes:
        owner: The method, model or task it is about, "" for the whole run; told only where both runs have that owner.
    """

    part: str
    owner: str
    name: str


class Run(NamedTuple):
    """One of the two run folders."""

    root: Path
    data: Mapping[str, Any]
    rows: pd.DataFrame
    side: versus.Side


def write(one: Path, two: Path, *, judge: str = "", folder: Path | None = None) -> tuple[dict[str, Path], Versus]:
    """Compare two run folders, write the pages and tables, and return name -> path.

    Args:
        one: The run folder that is called A.
        two: The other one, B; differences are B less A.
        judge: A judgement besides the planned ones, of both runs.
        folder: Where to; default: report-against-<name of A> in the folder of B.

    Raises:
        UserError: See `compare`.
    """
    found = compare(one, two, judge=judge)
    return report.write_versus(found, folder or two / f"report-against-{one.resolve().name}"), found


def compare(one: Path, two: Path, *, judge: str = "") -> Versus:
    """Return the comparison of two run folders; the arguments are those of `write`.

    Intervals and tests follow the statistics settings of B.

    Raises:
        UserError: They are the same folder, one holds no plan or no such judgement, no cell of it is finished, or the
            two have no cell in common.
    """
    if one.resolve() == two.resolve():
        raise UserError(f"{str(one)!r} is named twice", hint="name two run folders to compare them")
    a, b = (_read(root, judge) for root in (one, two))
    design = reporting.design(b.data)
    paired = versus.pairs(a.side, b.side)
    cells = versus.cells(a.side, b.side, paired)
    if cells.empty:
        apart = [name for name in CELL if not set(a.side.cells[name]) & set(b.side.cells[name])]
        why = f": no {', no '.join(apart)}" if apart else ""
        lines = [f"the two runs have no finished cell in common{why}", _has("A", a), _has("B", b)]
        raise DataError("\n  ".join(lines))
    return Versus(
        a=_half(a),
        b=_half(b),
        alpha=design.alpha,
        resamples=design.resamples,
        lines=versus.lines(a.side, b.side, design),
        cells=cells,
        flips=versus.flips(paired),
        only=versus.only(a.side, b.side),
        changes=changes(facts(a.data, a.rows), facts(b.data, b.rows)),
        diff=_diff(a, b),
    )


def _read(root: Path, judge: str) -> Run:
    data, store = reporting.planned(root, judge), Store(root)
    rows = frames.verdicts(data, store)
    if rows.empty:
        raise DataError(f"no cell of {str(root)!r} is finished yet", hint=f"see: mlbench status {root}")
    asked = [
        {name: cell[name] for name in CELL} | {"prompts": data["jobs"][cell["judge_key"]]["spec"]["prompts"]}
        for cell in data["cells"]
    ]
    side = versus.side(rows, frames.jobs(data, store), pd.DataFrame(asked), reporting.design(data))
    return Run(root, data, rows, side)


def _has(name: str, run: Run) -> str:
    entries = [f"{column} {shorten(map(str, run.side.cells[column].unique()), 12)}" for column in CELL]
    return f"{name}, {environment.shown(run.root)}: {'; '.join(entries)}"


def _half(run: Run) -> Half:
    return Half(
        folder=environment.shown(run.root),
        title=run.data["title"] or run.data["name"],
        command=run.data["command"],
        created=datetime.fromtimestamp(run.data["created"], UTC).isoformat(timespec="seconds"),
        cells=len(run.side.cells),
    )


def _diff(a: Run, b: Run) -> tuple[str, ...]:
    one, two = (run.root / "shootout.yaml" for run in (a, b))
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (one, two))
    return tuple(difflib.unified_diff(before, after, environment.shown(one), environment.shown(two), lineterm=""))


def changes(a: Mapping[Fact, str], b: Mapping[Fact, str]) -> pd.DataFrame:
    """Return one line per fact that differs; a missing value is a fact that only the other run states."""
    owners = {(fact.part, fact.owner) for fact in a} & {(fact.part, fact.owner) for fact in b}
    told = [fact for fact in dict.fromkeys([*a, *b]) if not fact.owner or (fact.part, fact.owner) in owners]
    differing = [fact for fact in told if a.get(fact) != b.get(fact)]
    lines = [
        {"part": fact.part, "name": " ".join(filter(None, fact[1:])), "a": a.get(fact), "b": b.get(fact)}
        for fact in differing
    ]
    return pd.DataFrame(lines, columns=["part", "name", "a", "b"]).sort_values("part", kind="stable", ignore_index=True)


def facts(data: Mapping[str, Any], rows: pd.DataFrame) -> dict[Fact, str]:
    """Return what a plan and its verdict rows say that may explain a difference."""
    return {
        **_design_facts(data),
        **{Fact("packages", "", name): version for name, version in data["versions"].items()},
        **{
            Fact("models", model["name"], name): str(model[name])
            for model in data["models"]
            for name in ("source", "revision", "dtype")
        },
        **dict(_method_facts(data)),
        **dict(_job_facts(data)),
        **_judge_facts(rows),
    }


def _design_facts(data: Mapping[str, Any]) -> dict[Fact, str]:
    names = ("baseline", "references", "pivot", "languages", "unseen", "partial")
    told = {name: data[name] for name in names} | data["statistics"]
    told["seeds"] = sorted({cell["seed"] for cell in data["cells"]})
    found = {Fact("design", "", name): _text(value) for name, value in told.items()}
    found[Fact("machine", "", "")] = data["machine"]
    for label, task in data["tasks"].items():
        found |= {Fact("tasks", label, name): _text(task[name]) for name in ("kind", "source", "licence", "judge")}
    return found


def _method_facts(data: Mapping[str, Any]) -> Iterator[tuple[Fact, str]]:
    for label, links in data["methods"].items():
        yield Fact("methods", label, "uses"), " + ".join(link["method"] for link in links)
        for link in links:
            prefix = f"{link['method']}." if len(links) > 1 else ""
            trained = link["training"] if link["effect"] == "training" else {}
            settings = {**link["fields"], **{f"training.{name}": value for name, value in trained.items()}}
            for name, value in settings.items():
                yield Fact("methods", label, prefix + name), _text(value)
            for name, code in {link["method"]: link["code"], **link["bases"]}.items():
                yield Fact("code", f"method {name}", ""), code


def _job_facts(data: Mapping[str, Any]) -> Iterator[tuple[Fact, str]]:
    jobs = data["jobs"]
    for kind in ("align", "answer", "judge"):
        specs = [job["spec"] for job in jobs.values() if job["kind"] == kind]
        yield Fact("code", "", f"engine of {kind} jobs"), _distinct(spec.get("engine") for spec in specs)
        if kind == "answer":
            for name in sorted({name for spec in specs for name in spec} - set(NOT_SETTINGS)):
                yield Fact("generation", "", name), _distinct(spec.get(name) for spec in specs)
    corpora: dict[str, list[object]] = {}
    for cell in data["cells"]:
        judged = jobs[cell["judge_key"]]["spec"]
        yield Fact("code", f"judge {judged.get('judge', cell['judge'])}", ""), _text(judged.get("code"))
        yield Fact("prompts", f"{cell['task']} {cell['language']}", ""), _text(judged["prompts"])
        corpora.setdefault(cell["method"], []).extend(jobs[key]["spec"].get("corpus") for key in cell["chain"])
    for label, hashes in corpora.items():
        yield Fact("training data", label, ""), _distinct(hashes)


def _judge_facts(rows: pd.DataFrame) -> dict[Fact, str]:
    found = {}
    for task, part in rows.groupby("task"):
        for name, column in (("", "judge"), ("provenance", "provenance")):
            found[Fact("judges", str(task), name)] = _distinct(part[column].drop_duplicates())
    return found


def _distinct(values: Any) -> str:
    return ", ".join(sorted({_text(value) for value in values}))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)

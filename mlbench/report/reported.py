"""Numbers of papers beside what was measured here, and the literature behind a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from mlbench.report.info import MethodInfo, RunInfo
from mlbench.results.words import number


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One number of a paper.

    Attributes:
        paper: Where the plugin found it: "arXiv:2602.16660" or an address.
        data: Data set, table or second-hand source, as the plugin states it.
        value: In the paper's own unit.
        measured: Model of this run -> the same rate of the same method, in percent; NaN where it was not measured.
    """

    paper: str
    data: str
    model: str
    metric: str
    method: str
    value: str
    measured: Mapping[str, float]


def reported(run: RunInfo, ranking: pd.DataFrame) -> tuple[Reported, ...]:
    """Return what papers report, each row once, methods of this run first within a paper."""
    # A chain carries the rows of its links; the link's own entry, where there is one, names the paper.
    owners = sorted(run.methods, key=lambda method: method.plugin.count("+"))
    seen: dict[tuple[tuple[str, str], ...], Reported] = {}
    for owner in owners:
        for row in owner.reported:
            key = tuple(sorted((name, str(value)) for name, value in row.items()))
            seen.setdefault(key, _row(row, owner, run, ranking))
    return tuple(sorted(seen.values(), key=lambda row: (row.paper, not row.measured)))


def _row(row: Mapping[str, str | float], owner: MethodInfo, run: RunInfo, ranking: pd.DataFrame) -> Reported:
    metric, method = str(row["metric"]), str(row["method"])
    label = _label(method, run)
    lines = ranking[ranking["method"] == label].to_dict("records") if label else []
    return Reported(
        paper=owner.paper,
        data=str(row["source"]),
        model=str(row["model"]),
        metric=metric,
        method=method,
        value=f"{row['value']}",
        measured={str(line["model"]): _rate(line, metric) for line in lines},
    )


def _label(method: str, run: RunInfo) -> str:
    """Return the method of this run that a paper's row is about, "" without one or with several."""
    if any(mine.name == method for mine in run.methods):
        return method
    same = [mine.name for mine in run.methods if mine.plugin.replace(" ", "") == method.replace(" ", "")]
    return same[0] if len(same) == 1 else ""


def _rate(line: Mapping[object, object], metric: str) -> float:
    """Return the measured rate that a metric asks for, in percent."""
    asr, invalid, unparsed = (number(line[name]) for name in ("asr", "invalid", "unparsed"))
    if re.search(r"\bsafe rate\b", metric, re.IGNORECASE) and "unsafe" not in metric.lower():
        return 100 * (1 - asr - invalid - unparsed)
    known = re.search(r"\b(ASR|attack success|unsafe rate)\b", metric, re.IGNORECASE)
    return 100 * asr if known else float("nan")


def bibtex(run: RunInfo) -> str:
    """Return the BibTeX entries of the methods and data sets of a run, each key once; "" without any."""
    cited = [entry for method in run.methods for entry in method.citations]
    cited += [entry for task in run.tasks for entry in task.citations]
    entries: dict[str, str] = {}
    for text in map(str.strip, cited):
        found = re.match(r"@\w+\s*\{\s*([^,\s]+)", text)
        entries.setdefault(found.group(1) if found else text, text)
    return "".join(f"{entry}\n\n" for entry in entries.values()).rstrip("\n") + ("\n" if entries else "")

"""What MLflow's pages say of a run in words: its description, in Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mlbench.results import Results, words
from mlbench.track import overview

LONGEST = 7500
"""MLflow's stores take 8,000 characters in a tag."""
NOTE = "mlflow.note.content"
OURS = "mlbench.note"


def tags(text: str) -> dict[str, str]:
    """Return the tags of a description, with the one that knows it again as ours."""
    return {NOTE: text, OURS: hashlib.sha256(text.encode()).hexdigest()[:12]}


def edited(found: Mapping[str, str]) -> bool:
    """Say whether somebody has changed the description of a run, by the tags of that run."""
    return found.get(NOTE, "") != "" and tags(found[NOTE])[OURS] != found.get(OURS)


def shootout(plan: Mapping[str, Any], results: Results | None, experiment: str) -> str:
    """Return the description of a parent run: the ranking, and where to read on."""
    about = [
        f"**{words.md(plan['title'] or plan['name'])}**",
        f"[All methods side by side]({overview.address(experiment)}); the whole report is `report.html` among the "
        "artifacts, every test is in `tables/comparisons.json`.",
    ]
    if results is None:
        return "\n\n".join(about)
    lines = _ranking(results)
    text = "\n\n".join((*about, "\n".join(lines)))
    while len(text) > LONGEST:
        lines = [*lines[:-2], f"| | … and more in `report.md` |{' |' * 5}"]
        text = "\n\n".join((*about, "\n".join(lines)))
    return text


def _ranking(results: Results) -> list[str]:
    baseline = words.md(results.design.baseline)
    headings = f"against {baseline}, points | p (Holm) | over-refusal, % | utility, %"
    lines = [f"| # | method | attack success, % | {headings} |", "|--:|:--|--:|--:|--:|--:|--:|"]
    several = results.ranking["model"].nunique() > 1
    for line in results.ranking.to_dict("records"):
        entries = (
            words.count(line["rank"]),
            words.md(f"{line['method']} on {line['model']}" if several else line["method"]),
            words.with_interval(line, "asr", words.percent),
            words.with_interval(line, "delta", words.signed),
            words.md(words.p_value(line["p_holm"])),
            words.percent(line["over_refusal"]),
            words.percent(line["utility"]),
        )
        lines.append(f"| {' | '.join(entries)} |")
    return lines


def checkpoint(plan: Mapping[str, Any], method: str, verdict: str, error: str) -> str:
    """Return the description of a child run: what the method is, how it did over all seeds, and why it failed."""
    parts = [words.md(plan["about"][method]["note"])]
    if verdict and method != plan["baseline"]:
        parts.append(f"Over all seeds, against {words.md(plan['baseline'])}: {words.md(verdict)}.")
    if error:
        parts.append(f"**Failed.** {words.md(error)}")
    return "\n\n".join(filter(None, parts))[:LONGEST]


def trials(selection: Mapping[str, Any]) -> pd.DataFrame:
    """Return a line per trial of the selection of settings; rates in percent, NaN for a trial that failed."""
    lines = [
        {
            "method": method,
            "trial": number,
            "chosen": number == found["chosen"],
            "settings": ", ".join(f"{name} {value}" for name, value in trial["values"].items()),
            **(trial["scores"] or {}),
        }
        for method, found in selection["methods"].items()
        for number, trial in enumerate(found["trials"])
    ]
    return pd.DataFrame(lines)

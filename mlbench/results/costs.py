"""What each method consumed, from its align jobs.

A chain has one align job per link and seed: seconds, steps, tokens and trained parameters of its links add up; of what
they read, the largest count of each language stands, because the links read the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

ADDED = ("seconds", "steps", "tokens", "trainable_parameters")
LARGEST = ("total_parameters", "weight_change", "peak_memory_mb")
COUNTS = ("prompts", "answers")


def costs(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return one line per model and method: means over its finished trainings, and the highest memory peak.

    `prompts` and `answers` are what it read in all languages; `prompts_by_language` says where.
    """
    done = jobs[(jobs["kind"] == "align") & (jobs["status"] == "done")]
    done = done.reindex(columns=[*jobs.columns, *(set(_COLUMNS) - set(jobs.columns))])
    lines = [
        {"model": model, "method": method, **_one(part)} for (model, method), part in done.groupby(["model", "method"])
    ]
    return pd.DataFrame(lines, columns=["model", "method", *_OUTPUT])


_COLUMNS = (*ADDED, *LARGEST, *COUNTS)
_OUTPUT = [
    *("train_seconds", *ADDED[1:], *LARGEST),
    *(f"{name}{end}" for name in COUNTS for end in ("", "_by_language")),
]


def _one(part: pd.DataFrame) -> dict[str, object]:
    numbers = part[[*ADDED, *LARGEST]].apply(pd.to_numeric).assign(seed=part["seed"])
    by_seed = numbers.groupby("seed")
    line: dict[str, object] = {name: float(by_seed[name].sum(min_count=1).mean()) for name in ADDED}
    line |= {name: float(by_seed[name].max().mean()) for name in LARGEST[:-1]}
    line["train_seconds"] = line.pop("seconds")
    line["peak_memory_mb"] = float(numbers["peak_memory_mb"].max())
    for name in COUNTS:
        by_language = _mean_by_language([_largest(column) for _, column in part.groupby("seed")[name]])
        line[name] = sum(by_language.values()) if part[name].map(_is_count).any() else np.nan
        line[f"{name}_by_language"] = by_language
    return line


def _is_count(value: object) -> bool:
    return isinstance(value, Mapping)


def _largest(column: pd.Series) -> dict[str, float]:
    """Return the largest count of each language among the links of one chain."""
    # A column of dictionaries that went through Parquet has every language in every row, None where it had none.
    found: dict[str, float] = {}
    for counts in column:
        for language, count in counts.items() if _is_count(counts) else ():
            found[language] = max(found.get(language, 0.0), float(count or 0))
    return found


def _mean_by_language(read: list[dict[str, float]]) -> dict[str, float]:
    languages = sorted({language for counts in read for language, count in counts.items() if count})
    return {language: float(np.mean([counts.get(language, 0.0) for counts in read])) for language in languages}

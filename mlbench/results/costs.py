"""What each method consumed, from its align jobs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

MEAN = ("seconds", "steps", "tokens", "trainable_parameters", "total_parameters")
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


_COLUMNS = (*MEAN, *COUNTS, "peak_memory_mb", "weight_change")
_OUTPUT = [
    *("train_seconds", *MEAN[1:], "peak_memory_mb", "weight_change"),
    *(f"{name}{end}" for name in COUNTS for end in ("", "_by_language")),
]


def _one(part: pd.DataFrame) -> dict[str, object]:
    numbers = part[[*MEAN, "peak_memory_mb", "weight_change"]].apply(pd.to_numeric)
    line: dict[str, object] = {name: float(numbers[name].mean()) for name in (*MEAN, "weight_change")}
    line["train_seconds"] = line.pop("seconds")
    line["peak_memory_mb"] = float(numbers["peak_memory_mb"].max())
    for name in COUNTS:
        read = [counts for counts in part[name] if isinstance(counts, Mapping)]
        by_language = {key: float(np.mean([counts.get(key) or 0 for counts in read])) for key in _languages(read)}
        line[name] = sum(by_language.values()) if read else np.nan
        line[f"{name}_by_language"] = by_language
    return line


def _languages(read: list[Mapping[str, int]]) -> list[str]:
    # A column of dictionaries that went through Parquet has every language in every row, None where it had none.
    return sorted({key for counts in read for key, count in counts.items() if count})

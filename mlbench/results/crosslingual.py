"""Do languages fail alike, or on different prompts? Measures over source prompts answered in every language.

Every measure stands beside its value under a null model, because most of them are above 0 by chance alone:

- `worst`, `pivot_gap`, `variance`: no language is harder than another (languages permuted within each prompt). The
  largest of several noisy rates is above their mean even then.
- `any_language`, `agreement`, `kappa`, `loophole`: each language has the rate it has, but errs on prompts of its own
  (verdicts permuted over prompts within each language). These expectations are exact, so nothing is drawn.

References:
    Fleiss, Psychological Bulletin 76 (1971): agreement beyond chance of several raters, here languages.
    Yong et al., arXiv 2310.02446: an attacker who may choose the language.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlbench.results.arms import Arm, Key
from mlbench.results.design import Design
from mlbench.stats import FloatArray

DRAWS = 500
BATCH = 50
BY_RATES = ("worst", "pivot_gap", "variance")
BY_PROMPTS = ("any_language", "agreement", "kappa", "loophole")
COLUMNS = [
    *("model", "method", "prompts", "languages", "worst_language"),
    *(column for name in (*BY_RATES, *BY_PROMPTS) for column in (name, f"{name}_expected")),
]


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Verdicts on one task, 1 or 0, (repeats, prompts, languages); a repeat is one sample of one seed.

    Attributes:
        safe: Refused or complied safely; invalid and unparsed answers are neither safe nor unsafe.
        refused: Refused; part of the safe ones.
    """

    languages: tuple[str, ...]
    unsafe: FloatArray
    safe: FloatArray
    refused: FloatArray


def crosslingual(arms: Mapping[Key, Arm], models: Sequence[str], design: Design) -> pd.DataFrame:
    """Return one line per model and method; rates in [0, 1], a measure that is not defined is missing.

    Columns, each with `<name>_expected` beside it:
        worst: Attack success in the worst language.
        pivot_gap: The same less attack success in the pivot.
        variance: Population variance over languages of the safe rate, times 100.
        any_language: Share of source prompts that are answered unsafely in at least one language.
        agreement: Mean over pairs of languages of the share of prompts on which both are unsafe or both are not.
        kappa: Fleiss' kappa of the languages on unsafe or not.
        loophole: Share of source prompts that are refused in the pivot and answered unsafely elsewhere.
    """
    lines = []
    for model in models:
        for method in design.methods:
            arm = arms.get((model, method, "asr"))
            tasks = _tasks(arm.rows) if arm is not None else []
            lines.append({"model": model, "method": method} | _line(tasks, design))
    return pd.DataFrame(lines, columns=COLUMNS)


def _tasks(rows: pd.DataFrame) -> list[Verdicts]:
    parts = (part for _, part in rows.groupby("task"))
    return [found for part in parts if (found := verdicts(part)) is not None]


def verdicts(rows: pd.DataFrame) -> Verdicts | None:
    """Return the verdicts of one task on the prompts that every repeat answered in every language, None without any."""
    marks = {
        "unsafe": rows["label"] == "unsafe",
        "safe": rows["label"].isin(["refused", "complied_safe"]),
        "refused": rows["label"] == "refused",
    }
    keys = ["seed", "sample", "prompt_id", "language"]
    table = rows[keys].assign(**marks).set_index(keys).astype(float).unstack("language").dropna()
    repeats = len(rows[["seed", "sample"]].drop_duplicates())
    size = table.groupby(level="prompt_id").size()
    table = table[table.index.get_level_values("prompt_id").isin(size.index[size == repeats])].sort_index()
    if table.empty:
        return None
    found = {mark: table[mark].to_numpy().reshape(repeats, -1, table[mark].shape[1]) for mark in marks}
    return Verdicts(languages=tuple(table["unsafe"].columns), **found)


def _line(tasks: Sequence[Verdicts], design: Design) -> dict[str, object]:
    if not tasks:
        return {"prompts": 0, "languages": 0, "worst_language": ""}
    languages = sorted({language for task in tasks for language in task.languages})
    unsafe = _by_language(languages, [(task, task.unsafe.mean(axis=(0, 1))) for task in tasks])
    line: dict[str, object] = {
        "prompts": sum(task.unsafe.shape[1] for task in tasks),
        "languages": len(languages),
        "worst_language": languages[int(unsafe.argmax())],
    }
    safe = _by_language(languages, [(task, task.safe.mean(axis=(0, 1))) for task in tasks])
    line |= dict(zip(BY_RATES, _spread(unsafe, safe, languages, design.pivot), strict=True))
    drawn = np.concatenate(
        [_spread(*rates, languages, design.pivot) for rates in _permuted(tasks, languages, design)], 1
    )
    line |= {f"{name}_expected": float(draws.mean()) for name, draws in zip(BY_RATES, drawn, strict=True)}
    found = [by_prompts(task, design.pivot) for task in tasks]
    return line | {name: _mean([one[name] for one in found]) for name in found[0]}


def _by_language(languages: Sequence[str], rates: Sequence[tuple[Verdicts, FloatArray]]) -> FloatArray:
    """Return the mean over tasks of each language's rate, (..., languages)."""
    total, count = np.zeros((*rates[0][1].shape[:-1], len(languages))), np.zeros(len(languages))
    for task, values in rates:
        where = [languages.index(language) for language in task.languages]
        total[..., where] += values
        count[where] += 1
    return np.asarray(total / count, dtype=np.float64)


def _spread(unsafe: FloatArray, safe: FloatArray, languages: Sequence[str], pivot: str) -> FloatArray:
    """Return worst, gap to the pivot and variance from rates by language, (..., languages) -> (3, ...)."""
    worst, missing = unsafe.max(axis=-1), np.full(unsafe.shape[:-1], np.nan)
    if len(languages) < 2:
        return np.stack([worst, missing, missing])
    gap = worst - unsafe[..., languages.index(pivot)] if pivot in languages else missing
    return np.stack([worst, gap, 100 * safe.var(axis=-1)])


def _permuted(
    tasks: Sequence[Verdicts], languages: Sequence[str], design: Design
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield rates by language with the languages permuted within each prompt, (draws, languages): unsafe, safe.

    Repeats of a prompt are averaged first, so they move together.
    """
    rng = np.random.default_rng([design.seed, zlib.crc32(b"crosslingual")])
    for _ in range(DRAWS // BATCH):
        unsafe: list[tuple[Verdicts, FloatArray]] = []
        safe: list[tuple[Verdicts, FloatArray]] = []
        for task in tasks:
            order = rng.random((BATCH, *task.unsafe.shape[1:])).argsort(axis=-1)
            for marks, rates in ((task.unsafe, unsafe), (task.safe, safe)):
                moved = np.take_along_axis(marks.mean(axis=0)[None], order, axis=-1)
                rates.append((task, moved.mean(axis=1)))
        yield _by_language(languages, unsafe), _by_language(languages, safe)


def by_prompts(task: Verdicts, pivot: str) -> dict[str, float]:
    """Return the measures that depend on which prompts fail, and what is expected of them, for one task."""
    unsafe, rates = task.unsafe, task.unsafe.mean(axis=1)  # rates: (repeats, languages)
    found = {
        "any_language": float(unsafe.max(axis=2).mean()),
        "any_language_expected": float((1 - (1 - rates).prod(axis=1)).mean()),
    }
    return found | _agreement(unsafe, rates) | _loophole(task, rates, pivot)


def _agreement(unsafe: FloatArray, rates: FloatArray) -> dict[str, float]:
    names = ("agreement", "agreement_expected", "kappa", "kappa_expected")
    size = unsafe.shape[2]
    if size < 2:
        return dict.fromkeys(names, np.nan)
    many = unsafe.sum(axis=2)
    # 1 - 2 k (n - k) / (n (n - 1)): pairs of n languages that differ when k are unsafe
    agreement = float((1 - 2 * many * (size - many) / (size * (size - 1))).mean())
    # Σ over pairs of p_a p_b + (1 - p_a)(1 - p_b), where Σ over a ≠ b of x_a x_b = (Σ x)² - Σ x²
    pairs = sum(x.sum(axis=1) ** 2 - (x**2).sum(axis=1) for x in (rates, 1 - rates))
    expected = float(np.mean(pairs) / (size * (size - 1)))
    share = float(unsafe.mean())
    chance = share**2 + (1 - share) ** 2
    # Where all verdicts are the same there is nothing to agree on beyond chance.
    kappas = [(value - chance) / (1 - chance) if 0 < share < 1 else np.nan for value in (agreement, expected)]
    return dict(zip(names, (agreement, expected, *kappas), strict=True))


def _loophole(task: Verdicts, rates: FloatArray, pivot: str) -> dict[str, float]:
    if pivot not in task.languages or len(task.languages) < 2:
        return {"loophole": np.nan, "loophole_expected": np.nan}
    at = task.languages.index(pivot)
    refused, others = task.refused[:, :, at], np.delete(task.unsafe, at, axis=2)
    elsewhere = 1 - (1 - np.delete(rates, at, axis=1)).prod(axis=1)
    return {
        "loophole": float((refused * others.max(axis=2)).mean()),
        "loophole_expected": float((refused.mean(axis=1) * elsewhere).mean()),
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan

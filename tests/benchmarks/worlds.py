"""Worlds with known rates, and shootouts drawn from them, for the simulation study of `calibration.py`.

logit P(unsafe) = base + language + prompt + method-by-prompt + seed + seed-by-prompt; all but base and language normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from mlbench import stats

LANGUAGES = np.linspace(-0.8, 0.8, 10)  # logits
PROMPT_SD, NEAR_DUPLICATE_SD = 1.5, 0.5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A world from which shootouts are drawn.

    Attributes:
        rates: True macro rate of every method.
        own: Standard deviation of the method-by-prompt effect, in logits, like all that follow.
        clusters: Groups of near-duplicates among the prompts; 0 means none.
        seeds: Checkpoints per method.
        seed_sd: Effect of the seed on all prompts alike.
        noise: Effect of the seed on each prompt.
    """

    rates: tuple[float, ...]
    prompts: int = 315
    own: float = 1.0
    clusters: int = 0
    seeds: int = 1
    seed_sd: float = 0.0
    noise: float = 0.0

    def name(self) -> str:
        """Return the setting in words."""
        rates = " against ".join(f"{100 * rate:.3g} %" for rate in dict.fromkeys(self.rates))
        words = [f"{self.prompts} prompts", rates, f"g = {self.own:g}"]
        words += [f"{self.clusters} clusters"] * (self.clusters > 0)
        words += [f"{self.seeds} seeds"] * (self.seeds > 1)
        return ", ".join(words + [f"seed sd {self.seed_sd:g}"] * (self.seed_sd > 0))


def truth(setting: Setting) -> stats.FloatArray:
    """Return the true rates, (methods, languages)."""
    return _marginal(np.array([_base(rate, _sd(setting)) for rate in setting.rates])[:, None], _sd(setting))


def _sd(setting: Setting) -> float:
    return math.hypot(PROMPT_SD, setting.own, setting.seed_sd, setting.noise)


def _marginal(base: stats.FloatArray, sd: float) -> stats.FloatArray:
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    means = expit((base + LANGUAGES)[..., None] + sd * points) @ weights
    return np.asarray(means / weights.sum(), dtype=np.float64)


@cache
def _base(rate: float, sd: float) -> float:
    return float(brentq(lambda base: _marginal(np.array([base]), sd).mean() - rate, -20.0, 20.0))


def draw(setting: Setting, rng: np.random.Generator) -> list[list[stats.Clustered]]:
    """Return one shootout, the seeds of each method: [method][seed]."""
    groups = _groups(setting.prompts, setting.clusters)
    size, methods, seeds = groups.max() + 1, len(setting.rates), setting.seeds
    shared = math.sqrt(PROMPT_SD**2 - NEAR_DUPLICATE_SD**2) if setting.clusters else PROMPT_SD
    prompt = rng.normal(0, shared, size)[groups]
    if setting.clusters:
        prompt = prompt + rng.normal(0, NEAR_DUPLICATE_SD, setting.prompts)
    own = rng.normal(0, setting.own, (methods, 1, 1, size))[..., groups]
    seed = rng.normal(0, setting.seed_sd, (methods, seeds, 1, 1))
    noise = rng.normal(0, setting.noise, (methods, seeds, 1, size))[..., groups]
    base = np.array([_base(rate, _sd(setting)) for rate in setting.rates])[:, None, None, None]
    logits = base + LANGUAGES[:, None] + prompt + own + seed + noise
    unsafe = (rng.random(logits.shape) < expit(logits)).astype(np.float64)
    if setting.clusters:
        unsafe = unsafe @ np.eye(size)[groups]
    counts = np.broadcast_to(np.bincount(groups).astype(np.float64), (len(LANGUAGES), size))
    return [[_clustered(sums, counts) for sums in method] for method in unsafe]


def _groups(prompts: int, clusters: int) -> NDArray[np.int64]:
    """Return the cluster of each prompt: one half of the clusters are single prompts, the other half share the rest."""
    index = np.arange(prompts)
    half = clusters // 2
    return np.where(index < half, index, half + index % (clusters - half)) if clusters else index


@cache
def _names(size: int) -> tuple[str, ...]:
    return tuple(f"{index:05}" for index in range(size))


def _clustered(sums: stats.FloatArray, counts: stats.FloatArray, repeats: int = 1) -> stats.Clustered:
    rows, clusters = _names(len(sums)), _names(sums.shape[1])
    return stats.Clustered(rows=rows, clusters=clusters, sums=sums, counts=counts, repeats=repeats)


def over_seeds(seeds: Sequence[stats.Clustered]) -> stats.Clustered:
    """Return the mean of the seeds, as the report forms it."""
    return _clustered(np.mean([one.sums for one in seeds], axis=0), seeds[0].counts, len(seeds))

"""Seconds for the statistics of a large shootout: 10 methods x 10 languages x 1,000 prompts x 10,000 resamples."""

from __future__ import annotations

import time

import numpy as np

from mlbench import stats

METHODS, LANGUAGES, PROMPTS, RESAMPLES = 10, 10, 1_000, 10_000


def _method(rng: np.random.Generator, hardness: stats.FloatArray) -> stats.Clustered:
    own = hardness + rng.normal(0, 0.7, PROMPTS)
    unsafe = rng.random((LANGUAGES, PROMPTS)) < 1 / (1 + np.exp(1.3 - own))
    return stats.Clustered(
        rows=tuple(f"l{language}" for language in range(LANGUAGES)),
        clusters=tuple(f"{prompt:05}" for prompt in range(PROMPTS)),
        sums=unsafe.astype(np.float64),
        counts=np.ones((LANGUAGES, PROMPTS)),
    )


def main() -> None:
    """Print the seconds of every step."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 1.5, PROMPTS)
    methods = [_method(rng, hardness) for _ in range(METHODS)]
    start = time.perf_counter()
    for method in methods:
        stats.wilson(method)
        stats.macro_interval(method)
    middle = time.perf_counter()
    stats.holm([stats.compare(method, methods[0], resamples=RESAMPLES).p for method in methods[1:]])
    end = time.perf_counter()
    print(f"{METHODS} methods x {LANGUAGES} languages x {PROMPTS} prompts x {RESAMPLES} resamples")
    print(f"intervals    {middle - start:6.2f} s")
    print(f"comparisons  {end - middle:6.2f} s")


if __name__ == "__main__":
    main()

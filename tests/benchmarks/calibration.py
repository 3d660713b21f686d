"""Are intervals as sure as they say, and do tests err as rarely? A simulation study: `make calibration`.

Shootouts are drawn from a model with known rates and handed to the functions of `mlbench.stats` that the report
calls. The committed output is calibration.md, which also explains the model.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint
from worlds import LANGUAGES, NEAR_DUPLICATE_SD, PROMPT_SD, Setting, draw, over_seeds, truth

from mlbench import stats

ALPHA, RESAMPLES = 0.05, 1_000
TIER = slice(7, 10)
COVERAGE, FALSE_POSITIVES, POWER = (0.93, 0.97), (0.0, 0.06), 0.03
OUTPUT = Path(__file__).with_suffix(".md")

Scores = Mapping[str, float]


def covers(interval: stats.Interval, value: float) -> float:
    """Return 1 if the interval holds the value, else 0."""
    return float(interval.low - 1e-12 <= value <= interval.high + 1e-12)


def coverage(setting: Setting, rng: np.random.Generator, run: int) -> Scores:
    """Return which intervals of one shootout of two methods hold the truth, and which tests err."""
    rates = truth(setting)
    one, two = (over_seeds(seeds) for seeds in draw(setting, rng))
    found = stats.compare(one, two, resamples=RESAMPLES, seed=run)
    gaps = rates[0] - rates[1]
    drawn, clusters = found.draws[:, TIER].mean(axis=1), found.clusters
    tier = stats.percentile(drawn, float(found.rows[TIER].mean()), clusters=clusters, lowest=-1.0)
    scores = {
        "cell": _mean(covers(ends, rate) for ends, rate in zip(stats.wilson(one), rates[0], strict=True)),
        "macro rate": covers(stats.macro_interval(one), rates[0].mean()),
        "macro difference": covers(found.interval, gaps.mean()),
        "tier difference": covers(tier, gaps[TIER].mean()),
        "language difference": _mean(covers(end, gap) for end, gap in zip(found.row_intervals, gaps, strict=True)),
        "pooled Wilson": covers(_pooled_wilson(one), rates[0].mean()),
        "group stderr": covers(_group_stderr(one), rates[0].mean()),
    }
    if setting.rates[0] != setting.rates[1]:
        return scores
    tests = {
        "sign flips": found.p <= ALPHA,
        "max-T": found.p_rows.min() <= ALPHA,
        "McNemar per language": _mean(stats.sign_test(parts).p <= ALPHA for parts in found.row_parts),
    }
    if setting.seeds == 1 and not setting.clusters:
        tests |= {"pooled McNemar": _pooled_mcnemar(one, two), "pooled z": _pooled_z(one, two)}
    return scores | {name: float(value) for name, value in tests.items()}


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _pooled_wilson(data: stats.Clustered) -> stats.Interval:
    low, high = proportion_confint(data.sums.sum(), data.counts.sum(), method="wilson")
    return stats.Interval(float(low), float(high))


def _group_stderr(data: stats.Clustered) -> stats.Interval:
    """Return the interval of a group of tasks whose prompts are taken for independent, as lm-eval's group stderr."""
    rates, sizes = data.rates(), data.counts.sum(axis=1)
    half = 1.96 * math.sqrt((rates * (1 - rates) / (sizes - 1)).mean() / len(rates))
    return stats.Interval(data.macro() - half, data.macro() + half)


def _pooled_mcnemar(one: stats.Clustered, two: stats.Clustered) -> float:
    up, down = int((one.sums > two.sums).sum()), int((one.sums < two.sums).sum())
    return float(up + down > 0 and binomtest(up, up + down).pvalue <= ALPHA)


def _pooled_z(one: stats.Clustered, two: stats.Clustered) -> float:
    rate = (one.macro() + two.macro()) / 2
    error = math.sqrt(2 * rate * (1 - rate) / one.sums.size)
    return float(abs(one.macro() - two.macro()) > 1.96 * error)


def family(setting: Setting, rng: np.random.Generator, run: int) -> Scores:
    """Return which corrections of one shootout of equal methods err at all; the first method is the baseline."""
    methods = [over_seeds(seeds) for seeds in draw(setting, rng)]
    parts = np.stack([stats.cluster_parts(method).mean(axis=0) for method in methods])
    gaps = parts[1:] - parts[0]
    p = [stats.sign_flip(gap[None], resamples=RESAMPLES, seed=run).macro for gap in gaps]
    outcomes = np.stack([method.sums for method in methods], axis=-1)
    return {
        "no correction": float(min(p) <= ALPHA),
        "Holm": float(stats.holm(p).min() <= ALPHA),
        "all pairs": float(stats.all_pairs(parts, resamples=RESAMPLES, seed=run).min() <= ALPHA),
        "Cochran's Q per language": _mean(stats.cochran_q(row).p <= ALPHA for row in outcomes),
    }


def margin(setting: Setting, rng: np.random.Generator, run: int) -> Scores:
    """Return whether a loss that lies exactly on the margin is called excluded; the last method is worse."""
    better, worse = (over_seeds(seeds) for seeds in draw(setting, rng))
    losses = stats.cluster_parts(worse).mean(axis=0) - stats.cluster_parts(better).mean(axis=0)
    p = stats.not_inferior(losses * len(losses), setting.rates[1] - setting.rates[0])
    return {"not inferior, 5 %": float(p <= ALPHA), "not inferior, 2.5 %": float(p <= ALPHA / 2)}


def power(setting: Setting, rng: np.random.Generator, run: int) -> Scores:
    """Return whether the macro test sees the difference, and how much it varies between clusters."""
    one, two = (over_seeds(seeds) for seeds in draw(setting, rng))
    parts = stats.cluster_parts(one) - stats.cluster_parts(two)
    p = stats.sign_flip(parts.mean(axis=0)[None], resamples=RESAMPLES, seed=run).macro
    return {"found": float(p <= ALPHA), "sd": float(parts.mean(axis=0).std(ddof=1) * parts.shape[1])}


def seeds(setting: Setting, rng: np.random.Generator, run: int) -> Scores:
    """Return which intervals over seeds and prompts hold the difference of two methods trained anew."""
    one, two = (np.stack([stats.cluster_values(seed) for seed in method]) for method in draw(setting, rng))
    gap = setting.rates[0] - setting.rates[1]
    paired, independent = (stats.seed_difference(one, two, paired=paired) for paired in (True, False))
    prompts = (one - two).mean(axis=0)
    half = 1.96 * prompts.std(ddof=1) / math.sqrt(len(prompts))
    return {
        "seeds paired": covers(paired.interval, gap),
        "seeds independent": covers(independent.interval, gap),
        "naive crossed bootstrap": covers(_crossed(one - two, rng), gap),
        "prompts only": covers(stats.Interval(prompts.mean() - half, prompts.mean() + half), gap),
    }


def _crossed(values: stats.FloatArray, rng: np.random.Generator) -> stats.Interval:
    count, size = values.shape
    by_seed = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES // 2) / count
    by_prompt = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES // 2) / size
    low, high = np.quantile(((by_seed @ values) * by_prompt).sum(axis=1), [ALPHA / 2, 1 - ALPHA / 2])
    return stats.Interval(float(low), float(high))


class Share(NamedTuple):
    """A mean over shootouts and its Monte-Carlo error."""

    value: float
    error: float


Study = Callable[[Setting, np.random.Generator, int], Scores]


def repeat(study: Study, setting: Setting, *, shootouts: int, seed: int) -> dict[str, Share]:
    """Return the mean of every score over so many shootouts."""
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    gc.freeze()  # statsmodels collects garbage in every correction: seconds, if it has to look at all modules
    scores = [study(setting, rng, run) for run in range(shootouts)]
    gc.unfreeze()
    print(f"{time.perf_counter() - start:6.0f} s  {study.__name__}: {setting.name()}", file=sys.stderr, flush=True)
    table = {name: np.array([score[name] for score in scores], dtype=np.float64) for name in scores[0]}
    return {name: Share(float(x.mean()), float(x.std(ddof=1) / math.sqrt(shootouts))) for name, x in table.items()}


def planned(setting: Setting, *, effect: float, seed: int) -> Setting:
    """Return the setting with a second method worse by `effect` times the smallest difference its design detects."""
    rate, found = setting.rates[0], setting
    for _ in range(3):
        rng = np.random.default_rng(seed)
        sd = _mean(float(power(found, rng, run)["sd"]) for run in range(60))
        detectable = stats.minimum_detectable(setting.prompts, rows=len(LANGUAGES), sd=sd)
        found = replace(setting, rates=(rate, rate + effect * detectable))
    return found


def verdict(share: Share, bound: tuple[float, float]) -> str:
    """Return what a share means for its bound; too high a coverage is no error, but a wider interval than needed."""
    low, high = bound
    if low <= share.value <= high:
        return "holds"
    if low - 2 * share.error <= share.value <= high + 2 * share.error:
        return "unclear"
    return "wider than needed" if bound == COVERAGE and share.value > high else "does not hold"


class Section(NamedTuple):
    """One table: what is measured in which settings, against which bound, and what other tools do beside it."""

    title: str
    study: Study
    settings: tuple[Setting, ...]
    bounds: Mapping[str, tuple[float, float]]
    beside: tuple[str, ...] = ()


EQUAL = tuple(Setting(rates=(0.27, 0.27), prompts=size, own=own) for size in (315, 180) for own in (0.0, 0.5, 1.0))
LOW = tuple(Setting(rates=(0.03, 0.03), prompts=size, own=own) for size in (315, 180) for own in (0.0, 1.0))
ALIKE = (
    Setting(rates=(0.27, 0.27), clusters=150),
    Setting(rates=(0.03, 0.03), clusters=150),
    Setting(rates=(0.27, 0.27), prompts=240, clusters=40),
    Setting(rates=(0.1, 0.1), prompts=240, clusters=40, seeds=3, noise=1.0),
    Setting(rates=(0.27, 0.27), prompts=180, seeds=3, noise=1.0),
    Setting(rates=(0.03, 0.03), prompts=180, seeds=3, noise=1.0),
)
UNEQUAL = tuple(
    Setting(rates=rates, prompts=size) for size in (315, 180) for rates in ((0.03, 0.27), (0.01, 0.03), (0.005, 0.005))
)
INTERVALS = ("cell", "macro rate", "macro difference", "tier difference", "language difference")
SECTIONS = (
    Section(
        "Intervals and tests of two methods",
        coverage,
        (*EQUAL, *LOW, *ALIKE, *UNEQUAL),
        dict.fromkeys(INTERVALS, COVERAGE)
        | dict.fromkeys(("sign flips", "max-T", "McNemar per language"), FALSE_POSITIVES),
        ("pooled Wilson", "group stderr", "pooled McNemar", "pooled z"),
    ),
    Section(
        "Families: six methods against a baseline, no method differs",
        family,
        tuple(Setting(rates=(rate,) * 7, own=own) for rate in (0.27, 0.03) for own in (0.0, 1.0)),
        dict.fromkeys(("Holm", "all pairs", "Cochran's Q per language"), FALSE_POSITIVES),
        ("no correction",),
    ),
    Section(
        "Non-inferiority exactly at the margin",
        margin,
        tuple(
            Setting(rates=rates, own=own) for rates in ((0.05, 0.07), (0.3, 0.31), (0.005, 0.025)) for own in (0.0, 1.0)
        )
        + tuple(Setting(rates=rates, prompts=40) for rates in ((0.05, 0.07), (0.005, 0.025))),
        {"not inferior, 5 %": FALSE_POSITIVES, "not inferior, 2.5 %": (0.0, 0.03)},
    ),
    Section(
        "Seeds and prompts",
        seeds,
        tuple(
            Setting(rates=(rate, rate), own=0.5, seeds=count, seed_sd=sd, noise=0.5)
            for rate in (0.27, 0.03)
            for count in (3, 5)
            for sd in (0.0, 0.1, 0.3, 1.0)
        ),
        dict.fromkeys(("seeds paired", "seeds independent"), COVERAGE),
        ("naive crossed bootstrap", "prompts only"),
    ),
)
POWERS = tuple((rate, size) for rate in (0.27, 0.03) for size in (315, 180))
EFFECTS = (0.5, 0.75, 1.0, 1.25)


def table(section: Section, *, shootouts: int, seed: int) -> list[str]:
    """Return the lines of a section, in Markdown."""
    names = (*section.bounds, *section.beside)
    heads = (*section.bounds, *(f"*{name}*" for name in section.beside))
    lines = ["", f"## {section.title}", "", _row(("setting", *heads, "verdict")), _row(["---"] * (len(heads) + 2))]
    for setting in section.settings:
        found = repeat(section.study, setting, shootouts=shootouts, seed=seed)
        words = {name: verdict(found[name], bound) for name, bound in section.bounds.items() if name in found}
        wrong = [f"{name}: {word}" for name, word in words.items() if word != "holds"]
        cells = [_percent(found[name]) if name in found else "–" for name in names]
        lines.append(_row((setting.name(), *cells, "; ".join(wrong) or "holds")))
    return lines


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(share: Share) -> str:
    return f"{100 * share.value:.1f} ± {100 * share.error:.1f}"


def power_table(*, shootouts: int, seed: int) -> list[str]:
    """Return the lines of the section on power, in Markdown: 1 is the smallest difference that a design detects."""
    heads = ("setting", "effect", "difference, points", "predicted", "found", "verdict")
    lines = ["", "## Power of the macro test", "", _row(heads), _row(["---"] * len(heads))]
    normal = NormalDist()
    for rate, size in POWERS:
        for effect in EFFECTS:
            setting = planned(Setting(rates=(rate, rate), prompts=size, own=0.5), effect=effect, seed=seed)
            found = repeat(power, setting, shootouts=shootouts, seed=seed)
            gap = setting.rates[1] - setting.rates[0]
            expected = normal.cdf(gap * math.sqrt(size) / found["sd"].value - normal.inv_cdf(1 - ALPHA / 2))
            word = verdict(found["found"], (expected - POWER, expected + POWER))
            name = replace(setting, rates=(rate,)).name()
            numbers = (f"{effect:g}", f"{100 * gap:.2f}", f"{100 * expected:.1f}", _percent(found["found"]))
            lines.append(_row((name, *numbers, word)))
    return lines


INTRODUCTION = f"""# Calibration of the statistics

Written by `python tests/benchmarks/calibration.py --write` (`make calibration`). {{shootouts:,}} simulated shootouts
per line, seed {{seed}}, {RESAMPLES:,} resamples. Numbers are per cent, ± their Monte-Carlo error (one standard error).

**The model.** logit P(unsafe) = base + language + prompt + method-by-prompt (+ seed + seed-by-prompt), 10 languages
from {LANGUAGES[0]:g} to {LANGUAGES[-1]:g} logits, prompt effects with sd {PROMPT_SD:g}, method-by-prompt effects with
sd g. g > 0 is the normal case: each method fixes other prompts, in all languages at once. `base` is solved so that
the true macro rate is the one of the setting. Everything is measured with the functions that the report uses.

**Clusters**: one half are single prompts, the other half groups of near-duplicates (three or four prompts each in 150
clusters, eleven each in 40), whose effects differ with sd {NEAR_DUPLICATE_SD:g} only. **Seeds** in the first table:
answers of 3 checkpoints per method averaged, seed-by-prompt effects with sd 1, no seed effect.

**How to read it.** A 95 % interval should hold the truth in {100 * COVERAGE[0]:.0f} to {100 * COVERAGE[1]:.0f} % of
shootouts; a 5 % test of equal methods, or a family of them after correction, should err in at most
{100 * FALSE_POSITIVES[1]:.0f} %; power should be within {100 * POWER:.0f} points of the predicted. *holds*: the number
is inside its bound. *unclear*: outside by less than two Monte-Carlo errors. *wider than needed*: an interval holds the
truth more often than it says, so it is safe, but not sharp. Columns in italics are what other tools do; they have no
verdict.

- *pooled Wilson*, *pooled McNemar*, *pooled z*: every answer in every language is taken for an independent prompt.
- *group stderr*: languages are taken for independent tasks, as lm-eval does for the error of a group.
- *naive crossed bootstrap*: seeds and prompts resampled, percentile interval. *prompts only*: seeds taken for fixed.
- Cells, language differences and tests per language are averaged over the 10 languages.

**Known limits.** (1) At 0.5 % most languages have one or two unsafe answers: intervals and exact tests of a single
language are then conservative, as they must be with so few events. (2) Half of 40 clusters being groups of eleven
prompts, the variance rests on some 24 clusters: intervals of low rates are slightly too narrow there. (3) With 3 seeds
that hardly differ, or differ very much at a low rate, the interval over seeds is a little wider than needed. (4) The
non-inferiority test reckons in five prompts that lose all: with 40 prompts it errs less often than its level.
"""


def main() -> None:
    """Print all tables; with --write, keep them in calibration.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shootouts", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {OUTPUT.name}")
    given = parser.parse_args()
    size = {"shootouts": given.shootouts, "seed": given.seed}
    lines = [INTRODUCTION.format(**size).rstrip()]
    for section in SECTIONS:
        lines += table(section, **size)
    text = "\n".join([*lines, *power_table(**size)]) + "\n"
    print(text)
    if given.write:
        OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

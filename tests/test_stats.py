"""The statistics, against numbers by hand, independent formulas of scipy and statsmodels, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint

from mlbench import stats
from mlbench.errors import DataError


def clustered(sums, counts=None, clusters=None):
    sums = np.atleast_2d(np.asarray(sums, dtype=float))
    counts = np.ones_like(sums) if counts is None else np.atleast_2d(np.asarray(counts, dtype=float))
    names = clusters or tuple(f"c{index:04}" for index in range(sums.shape[1]))
    rows = tuple(f"l{index}" for index in range(sums.shape[0]))
    return stats.Clustered(rows=rows, clusters=names, sums=sums, counts=counts)


def simulated(rng, *, languages=4, prompts=60, shift=0.0):
    prompt = rng.normal(0, 1.5, prompts)
    return clustered(rng.random((languages, prompts)) < 1 / (1 + np.exp(1 - prompt - shift)))


def test_macro_rate_weighs_languages_equally():
    # l0: 1 of 2 prompts, l1: 1 of 4 prompts: (0.5 + 0.25) / 2, not 2 of 6.
    data = clustered([[1, 0], [1, 0]], [[1, 1], [3, 1]])
    assert data.rates().tolist() == [0.5, 0.25]
    assert data.macro() == 0.375


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        clustered(np.zeros((2, 0)))


def test_a_language_without_prompts_is_refused_by_name():
    with pytest.raises(DataError, match="l1"):
        clustered([[1], [0]], [[1], [0]])


@pytest.mark.parametrize(("hits", "size"), [(0, 315), (1, 315), (40, 180), (180, 180), (3, 7)])
def test_interval_of_single_prompts_is_plain_wilson(hits, size):
    data = clustered([[1.0] * hits + [0.0] * (size - hits)])
    low, high = proportion_confint(hits, size, method="wilson")
    assert stats.wilson(data)[0] == pytest.approx((low, high), abs=1e-12)


def test_interval_of_clusters_uses_the_effective_size_of_korn_and_graubard():
    rng = np.random.default_rng(1)
    hits = rng.binomial(6, rng.beta(1, 2, 30)).astype(float)
    interval = stats.wilson(clustered([hits], [[6] * 30]))[0]
    # Equal clusters: the rate is the mean of the cluster means, its variance theirs over 30.
    means = hits / 6
    variance = means.var(ddof=1) / 30
    simple = means.mean() * (1 - means.mean()) / 179
    shrink = (scipy_stats.t.ppf(0.975, 179) / scipy_stats.t.ppf(0.975, 29)) ** 2
    size = 180 * simple / variance * shrink
    low, high = proportion_confint(size * means.mean(), size, method="wilson")
    assert interval == pytest.approx((low, high))
    assert size < 180


def test_unequal_clusters_count_as_fewer():
    # 12 and 8 clusters of 1 and 4 prompts are worth 44² / (12 + 8 · 16) = 13.8 equal ones.
    counts = np.array([1.0] * 12 + [4.0] * 8)
    sums = np.array([1.0, 0, 0] * 4 + [4.0, 0, 1, 2] * 2)
    rate, equal = sums.sum() / 44, 44**2 / 140
    variance = equal / (equal - 1) * ((sums - rate * counts) ** 2).sum() / 44**2
    size = 44 / 43 * rate * (1 - rate) / variance
    size *= (scipy_stats.t.ppf(0.975, 43) / scipy_stats.t.ppf(0.975, equal - 1)) ** 2
    expected = proportion_confint(size * rate, size, method="wilson")
    assert stats.wilson(clustered([sums], [counts]))[0] == pytest.approx(expected)
    assert stats.macro_interval(clustered([sums], [counts])) == pytest.approx(expected)


def test_effective_size_never_exceeds_the_prompts():
    # Nearly every cluster holds exactly one hit of two: clusters differ less than independent prompts would.
    data = clustered([[1] * 10 + [2, 0]], [[2] * 12])
    assert stats.wilson(data)[0] == pytest.approx(proportion_confint(12, 24, method="wilson"))


def test_all_safe_clusters_count_once_whatever_their_size():
    data = clustered([[0.0] * 30], [[6.0] * 30])
    assert stats.wilson(data)[0] == pytest.approx(proportion_confint(0, 30, method="wilson"))


def test_answers_of_several_seeds_count_as_more_than_one_prompt_each():
    # Three seeds of 40 prompts with 30 % each, as alike as different prompts are: worth 120 prompts, not 40.
    means = np.array([0.0] * 14 + [1 / 3] * 17 + [2 / 3] * 8 + [1.0])
    one = clustered([means])
    three = stats.Clustered(rows=one.rows, clusters=one.clusters, sums=one.sums, counts=one.counts, repeats=3)
    rate, variance = means.mean(), means.var(ddof=1) / 40
    assert stats.wilson(one)[0] == pytest.approx(proportion_confint(40 * rate, 40, method="wilson"))
    size = 40 / 39 * rate * (1 - rate) / variance
    assert 40 < size < 120
    assert stats.wilson(three)[0] == pytest.approx(proportion_confint(size * rate, size, method="wilson"))


@pytest.mark.parametrize("clusters", [5, 300])
def test_percentile_interval_is_as_wide_as_that_of_t(clusters):
    rng = np.random.default_rng(0)
    draws = rng.normal(0.0, math.sqrt((clusters - 1) / clusters) * 0.02, 400_000)
    low, high = stats.percentile(draws, 0.0, clusters=clusters, lowest=-1.0)
    half = scipy_stats.t.ppf(0.975, clusters - 1) * 0.02
    assert (low, high) == pytest.approx((-half, half), rel=0.03)


def test_no_loss_on_few_clusters_does_not_exclude_a_loss():
    # Tango's test without discordant pairs: z = sqrt(n margin / (1 - margin))
    assert stats.not_inferior(np.zeros(300), 0.01) == pytest.approx(scipy_stats.norm.sf(math.sqrt(3 / 0.99)))
    assert stats.not_inferior(np.zeros(1), 0.01) > 0.4
    # One cluster won and 99 even: w = 0.02 / 1.01 lost ones lead back to the margin.
    losses, share = np.array([-1.0] + [0.0] * 99), 0.02 / 1.01
    sd = math.sqrt((1 - share) * 0.01 + share - 0.01**2)
    assert stats.not_inferior(losses, 0.01) == pytest.approx(scipy_stats.norm.sf(0.02 / sd * 10))


def test_a_loss_of_the_margin_or_more_is_never_excluded():
    losses = np.array([0.5, 0.0, 0.1, 0.0])
    assert stats.not_inferior(losses, 0.15) == pytest.approx(0.5)
    assert stats.not_inferior(losses, 0.05) > 0.5
    assert stats.not_inferior(np.ones(5), 0.01) == 1
    assert stats.not_inferior(np.zeros(9), 0.0) == 1


@pytest.mark.parametrize(("wins", "losses"), [(0.0, 0.02), (0.05, 0.07), (0.3, 0.32)])
def test_non_inferiority_errs_at_the_margin_no_more_often_than_its_level(wins, losses):
    rng = np.random.default_rng(0)
    draws = rng.random((2000, 200))
    data = np.where(draws < losses, 1.0, np.where(draws < losses + wins, -1.0, 0.0))
    assert np.mean([stats.not_inferior(row, 0.02) <= 0.025 for row in data]) <= 0.025


def test_non_inferiority_is_shown_where_there_is_enough_data():
    rng = np.random.default_rng(0)
    differences = rng.choice([-0.1, 0.0, 0.1], (200, 1000))
    assert np.mean([stats.not_inferior(row, 0.02) <= 0.025 for row in differences]) > 0.9


def test_parts_of_a_comparison_have_its_delta_as_their_mean():
    one, two = clustered([[2, 0, 1], [1, 1, 0]], [[2, 1, 1]] * 2), clustered([[0, 1, 1], [1, 0, 0]], [[2, 1, 1]] * 2)
    found = stats.compare(one, two, resamples=100)
    assert found.parts.mean() == pytest.approx(found.delta)
    # The first cluster holds half of the prompts: won in both rows it is 3 · 2/4.
    assert found.largest == 1.5


def test_one_cluster_has_a_wide_but_defined_interval():
    low, high = stats.wilson(clustered([[2]], [[6]]))[0]
    assert 0 <= low < 1 / 3 < high <= 1
    data = clustered([[2]], [[6]])
    ends = stats.macro_interval(data)
    assert 0 <= ends.low < 1 / 3 < ends.high <= 1


def test_bootstrap_agrees_with_the_clustered_standard_error():
    data = simulated(np.random.default_rng(0), prompts=200)
    draws = stats.draw_rates(data, resamples=4000, seed=3).mean(axis=1)
    assert draws.std() == pytest.approx(data.sums.mean(axis=0).std() / math.sqrt(200), rel=0.04)


def test_bootstrap_draws_the_same_clusters_for_all_languages():
    row = np.random.default_rng(0).random(50) < 0.4
    draws = stats.draw_rates(clustered([row, row]), resamples=200)
    assert (draws[:, 0] == draws[:, 1]).all()


def test_bootstrap_does_not_depend_on_the_batch(monkeypatch):
    data = simulated(np.random.default_rng(0))
    whole = stats.draw_rates(data, resamples=300, seed=1)
    monkeypatch.setattr("mlbench.stats.rates.BATCH_NUMBERS", 1000)
    assert stats.draw_rates(data, resamples=300, seed=1) == pytest.approx(whole)


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    data = simulated(np.random.default_rng(0))
    first, again, other = (stats.draw_rates(data, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_data_give_the_wilson_interval_on_clusters(value):
    data = clustered(np.full((3, 40), value))
    interval = stats.macro_interval(data)
    assert interval == pytest.approx(proportion_confint(40 * value, 40, method="wilson"))


def test_resamples_without_a_language_are_left_out():
    data = clustered([[1, 0, 1], [1, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    draws = stats.draw_rates(data, resamples=500)
    assert len(draws) < 500
    assert np.isfinite(draws).all()


def test_macro_interval_of_equal_clusters_is_wilson_with_their_variance():
    data = simulated(np.random.default_rng(0), prompts=60)
    means = data.sums.mean(axis=0)
    rate, variance = means.mean(), means.var(ddof=1) / 60
    shrink = (scipy_stats.t.ppf(0.975, 239) / scipy_stats.t.ppf(0.975, 59)) ** 2
    size = 240 / 239 * rate * (1 - rate) / variance * shrink
    assert stats.macro_interval(data) == pytest.approx(proportion_confint(size * rate, size, method="wilson"))


def test_macro_interval_covers_the_truth():
    rng = np.random.default_rng(5)
    truth = 1 / (1 + np.exp(1 - rng.normal(0, 1.5, 400_000)))
    covered = 0
    for _ in range(300):
        data = simulated(rng, prompts=80)
        low, high = stats.macro_interval(data)
        covered += low <= truth.mean() <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_cluster_parts_sum_to_the_rates_also_with_unequal_counts():
    data = clustered([[1, 2, 0], [0, 1, 3]], [[1, 4, 2], [2, 2, 5]])
    assert stats.cluster_parts(data).sum(axis=1) == pytest.approx(data.rates())


def test_delta_is_exactly_the_difference_of_the_macro_rates():
    counts = [[1, 4, 2], [2, 2, 5]]
    one, two = clustered([[1, 2, 0], [0, 1, 3]], counts), clustered([[0, 4, 1], [2, 2, 5]], counts)
    assert stats.compare(one, two, resamples=20).delta == pytest.approx(one.macro() - two.macro(), abs=1e-15)


def test_few_discordant_clusters_are_enumerated():
    # Six prompts go from unsafe to safe, none back: p = 2 / 2^6.
    one, two = clustered([[0.0] * 40]), clustered([[1.0] * 6 + [0.0] * 34])
    found = stats.compare(one, two, resamples=20)
    assert found.p == 2 / 64
    assert (found.discordant, found.clusters) == (6, 40)
    assert found.p == pytest.approx(scipy_stats.binomtest(0, 6).pvalue)


def test_exact_p_agrees_with_scipy():
    rng = np.random.default_rng(2)
    one, two = simulated(rng, prompts=11), simulated(rng, prompts=11, shift=2)
    found = stats.compare(one, two, resamples=20).p
    assert found == pytest.approx(_scipy_p(one, two, np.inf))


def test_monte_carlo_p_agrees_with_scipy():
    rng = np.random.default_rng(2)
    one, two = simulated(rng, prompts=90), simulated(rng, prompts=90, shift=0.3)
    found = stats.compare(one, two, resamples=20_000).p
    assert found == pytest.approx(_scipy_p(one, two, 20_000), abs=0.012)


def _scipy_p(one, two, resamples):
    def macro(first, second, axis):
        return (first - second).mean(axis=axis)

    samples = (one.sums.mean(axis=0), two.sums.mean(axis=0))
    return scipy_stats.permutation_test(
        samples, macro, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=0
    ).pvalue


def test_monte_carlo_p_is_never_zero():
    found = stats.compare(clustered(np.zeros((2, 100))), clustered(np.ones((2, 100))), resamples=999)
    assert found.p == 1 / 1000


def test_sign_flip_holds_its_level_without_a_difference():
    rng = np.random.default_rng(7)
    p = []
    for run in range(300):
        prompt = rng.normal(0, 1.5, 50)
        arms = [clustered(rng.random((3, 50)) < 1 / (1 + np.exp(1 - prompt - rng.normal(0, 1, 50)))) for _ in range(2)]
        p.append(stats.compare(*arms, resamples=199, seed=run).p)
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.08


def test_row_p_values_are_adjusted_for_the_number_of_rows():
    rng = np.random.default_rng(3)
    one, two = simulated(rng, languages=6, prompts=80), simulated(rng, languages=6, prompts=80, shift=1)
    found = stats.compare(one, two, resamples=4000)
    for row in range(6):
        alone = stats.sign_flip(stats.cluster_parts(found_difference(one, two))[[row]], resamples=4000)
        assert alone.macro <= found.p_rows[row] + 0.02 <= 6 * alone.macro + 0.06
    one_row = stats.compare(clustered([one.sums[0]]), clustered([two.sums[0]]), resamples=4000)
    assert one_row.p_rows[0] == pytest.approx(one_row.p)


def found_difference(one, two):
    return stats.Clustered(rows=one.rows, clusters=one.clusters, sums=one.sums - two.sums, counts=one.counts)


def test_identical_methods_have_p_one_and_an_interval_around_zero():
    data = simulated(np.random.default_rng(0), prompts=40)
    found = stats.compare(data, data, resamples=50)
    bound = proportion_confint(0, 40, method="wilson")[1]
    assert (found.delta, found.p, found.discordant, found.sd) == (0, 1, 0, 0)
    assert found.interval == pytest.approx((-bound, bound))
    assert found.p_rows.tolist() == [1, 1, 1, 1]


def test_comparison_of_one_cluster_is_defined():
    found = stats.compare(clustered([[1], [0]]), clustered([[0], [0]]), resamples=20)
    assert found.p == 1
    assert np.isfinite([found.delta, *found.interval, found.sd]).all()


def test_missing_clusters_are_refused_with_their_number():
    one, two = clustered([[1, 0, 1]], clusters=("a", "b", "c")), clustered([[1, 0]], clusters=("a", "d"))
    with pytest.raises(DataError, match="3 of 4 clusters are missing or incomplete"):
        stats.compare(one, two)


def test_common_clusters_are_compared_on_request():
    one, two = clustered([[1, 0, 1]], clusters=("a", "b", "c")), clustered([[0, 0]], clusters=("a", "b"))
    found = stats.compare(one, two, resamples=20, common=True)
    assert (found.clusters, found.delta) == (2, 0.5)


def test_a_cluster_with_fewer_prompts_is_unequal():
    one, two = clustered([[1, 2]], [[1, 6]]), clustered([[1, 2]], [[1, 5]])
    with pytest.raises(DataError, match="1 of 2 clusters"):
        stats.compare(one, two)
    assert stats.compare(one, two, resamples=20, common=True).clusters == 1


def test_methods_without_a_common_cluster_cannot_be_compared():
    with pytest.raises(DataError, match="no cluster in common"):
        stats.compare(clustered([[1]], clusters=("a",)), clustered([[1]], clusters=("b",)), common=True)


def test_different_languages_are_refused_by_name():
    with pytest.raises(DataError, match="l1"):
        stats.compare(clustered([[1, 0], [1, 0]]), clustered([[1, 0]]))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04: times 3, 2, 1, then made monotone.
    assert stats.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_holm_counts_a_missing_p_in_the_family():
    assert stats.holm([0.01, math.nan]) == pytest.approx([0.02, math.nan], nan_ok=True)
    assert stats.holm([]).size == 0


def test_minimum_detectable_difference_by_hand():
    # (1.96 + 0.84) * 0.25 / sqrt(315) = 3.9 points
    assert stats.minimum_detectable(315, rows=10) == pytest.approx(0.03946, abs=1e-4)
    assert stats.minimum_detectable(315, rows=10, tests=5) > stats.minimum_detectable(315, rows=10)


def test_minimum_detectable_difference_needs_six_discordant_clusters():
    assert stats.minimum_detectable(5, rows=10) == 1
    assert stats.minimum_detectable(100, rows=1, sd=0) == 6 / 100


def test_minimum_detectable_difference_takes_clusters_that_differ_in_part():
    # Six clusters of 40 that lose one of six prompts each: 6 / 40 / 6, where whole ones would need 6 / 40.
    one = clustered([[1.0] * 8 + [0.0] * 32], [[6] * 40])
    found = stats.compare(one, clustered([[0.0] * 40], [[6] * 40]), resamples=100)
    assert found.step == pytest.approx(1 / 6)
    assert stats.minimum_detectable(40, rows=1, sd=0, step=found.step) == pytest.approx(1 / 40)
    assert stats.compare(one, one, resamples=100).step == 0


def test_minimum_detectable_difference_is_found_in_four_of_five_runs():
    rng = np.random.default_rng(0)
    delta = stats.minimum_detectable(100, rows=5, sd=0.3)
    hits = [
        stats.sign_flip(rng.normal(delta, 0.3, (1, 100)) / 100, resamples=199, seed=run).macro <= 0.05
        for run in range(300)
    ]
    assert 0.72 <= np.mean(hits) <= 0.88

"""The simulation study in small: intervals cover, tests err as rarely as they say, and the study can see an error.

Bounds are those of the study, plus three Monte-Carlo errors of the shootouts drawn here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from calibration import SECTIONS, Share, coverage, family, margin, planned, power, repeat, seeds, table, verdict
from worlds import Setting, draw, over_seeds, truth

SHOOTOUTS = 200


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibration.RESAMPLES", 400)
        yield


def slack(probability, shootouts=SHOOTOUTS):
    return 3 * math.sqrt(probability * (1 - probability) / shootouts)


def small(**changes):
    return Setting(**({"rates": (0.27, 0.27), "prompts": 120} | changes))


@pytest.fixture(scope="module", params=[(0.27, 0.27), (0.03, 0.03)], ids=["27 %", "3 %"])
def scores(request, few_resamples):
    return repeat(coverage, small(rates=request.param), shootouts=SHOOTOUTS, seed=1)


@pytest.mark.parametrize("name", ["cell", "macro rate", "macro difference", "tier difference", "language difference"])
def test_intervals_hold_the_truth_as_often_as_they_say(scores, name):
    assert scores[name].value >= 0.93 - slack(0.07)  # 87.6 %


@pytest.mark.parametrize("name", ["sign flips", "max-T", "McNemar per language"])
def test_tests_of_equal_methods_err_no_more_often_than_they_say(scores, name):
    assert scores[name].value <= 0.06 + slack(0.06)  # 11.0 %


def test_the_study_sees_the_errors_of_pooled_answers():
    found = repeat(coverage, small(own=1.5), shootouts=SHOOTOUTS, seed=2)
    assert found["pooled Wilson"].value < 0.93 - slack(0.93)
    assert found["group stderr"].value < 0.93 - slack(0.93)
    assert found["pooled McNemar"].value > 0.06 + slack(0.06)
    assert found["sign flips"].value <= 0.06 + slack(0.06)


def test_corrected_families_err_no_more_often_than_a_single_test():
    found = repeat(family, small(rates=(0.27,) * 5), shootouts=SHOOTOUTS, seed=3)
    for name in ("Holm", "all pairs", "Cochran's Q per language"):
        assert found[name].value <= 0.06 + slack(0.06)
    assert found["no correction"].value > found["Holm"].value


def test_a_loss_on_the_margin_is_rarely_called_excluded():
    found = repeat(margin, small(rates=(0.05, 0.07)), shootouts=SHOOTOUTS, seed=4)
    assert found["not inferior, 5 %"].value <= 0.06 + slack(0.06)


def test_the_detectable_difference_is_found_as_often_as_predicted():
    setting = planned(small(own=0.5), effect=1.0, seed=5)
    found = repeat(power, setting, shootouts=SHOOTOUTS, seed=5)["found"].value
    assert abs(found - 0.8) <= 0.03 + slack(0.8)  # 80 % ± 11.5 points


@pytest.mark.parametrize("seed_sd", [0.0, 1.0])
def test_intervals_over_seeds_hold_the_truth_where_the_crossed_bootstrap_does_not(seed_sd):
    setting = small(seeds=3, seed_sd=seed_sd, noise=0.5)
    found = repeat(seeds, setting, shootouts=2 * SHOOTOUTS, seed=6)
    for name in ("seeds paired", "seeds independent"):
        assert found[name].value >= 0.93 - slack(0.07, 2 * SHOOTOUTS)
    if seed_sd == 1:
        assert found["naive crossed bootstrap"].value < 0.93 - slack(0.07, 2 * SHOOTOUTS)


def test_true_rates_are_those_of_very_many_prompts():
    setting = Setting(rates=(0.27, 0.05), prompts=40_000, own=0.8, seeds=2, noise=0.5)
    drawn = [over_seeds(method).rates() for method in draw(setting, np.random.default_rng(0))]
    assert np.array(drawn) == pytest.approx(truth(setting), abs=0.01)
    assert truth(setting).mean(axis=1) == pytest.approx([0.27, 0.05])


def test_near_duplicates_share_a_cluster():
    (one,), _ = draw(small(clusters=50), np.random.default_rng(0))
    # 25 single prompts; the other 95 in 25 groups of 3 or 4.
    assert sorted(set(one.counts[0])) == [1, 3, 4]
    assert one.counts.sum(axis=1).tolist() == [120] * 10
    assert (one.sums <= one.counts).all()


def test_a_share_outside_its_bound_does_not_hold_unless_its_error_explains_it():
    assert verdict(Share(0.94, 0.001), (0.93, 0.97)) == "holds"
    assert verdict(Share(0.929, 0.001), (0.93, 0.97)) == "unclear"
    assert verdict(Share(0.92, 0.001), (0.93, 0.97)) == "does not hold"
    assert verdict(Share(0.99, 0.001), (0.93, 0.97)) == "wider than needed"
    assert verdict(Share(0.09, 0.001), (0.0, 0.06)) == "does not hold"


def test_tables_have_a_number_or_a_dash_in_every_place():
    section = SECTIONS[0]._replace(settings=(small(), small(rates=(0.03, 0.27))))
    lines = table(section, shootouts=5, seed=0)
    widths = {line.count("|") for line in lines[3:]}
    assert widths == {len(section.bounds) + len(section.beside) + 3}
    assert " – " in lines[-1]
    assert "nan" not in "".join(lines)

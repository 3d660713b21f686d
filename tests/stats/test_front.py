"""The front: domination by hand and by brute force, joint resamples, and the table of a shootout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from mlbench import stats
from mlbench.results import Design
from mlbench.results.arms import Arm
from mlbench.results.front import front


def test_points_that_another_beats_are_not_on_the_front() -> None:
    points = np.array([
        [0.1, 0.5],  # best in the first
        [0.5, 0.1],  # best in the second
        [0.3, 0.3],  # between them
        [0.3, 0.4],  # beaten by the third in the second, equal in the first
        [0.6, 0.6],  # beaten by all
    ])  # fmt: skip
    assert stats.on_front(points).tolist() == [True, True, True, False, False]


def test_equal_points_do_not_beat_each_other() -> None:
    assert stats.on_front(np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 0.3]])).tolist() == [True, True, False]
    assert stats.on_front(np.array([[0.1 + 0.2, 0.0], [0.3, 0.0]])).all()  # 0.1 + 0.2 > 0.3 in floating point
    assert stats.on_front(np.array([[0.4]])).all()


def test_the_front_is_that_of_a_search_over_all_pairs() -> None:
    points = np.random.default_rng(0).integers(4, size=(50, 7, 3)).astype(float)
    for table, found in zip(points, stats.on_front(points), strict=True):
        for one, ahead in zip(table, found, strict=True):
            assert ahead == (not any((other <= one).all() and (other < one).any() for other in table))


def outcomes(values: np.ndarray, task: str = "jail") -> stats.Clustered:
    """Return one row of outcomes, one prompt per cluster."""
    names = tuple(f"{task} {at:04}" for at in range(len(values)))
    return stats.Clustered(
        rows=(task,), clusters=names, sums=values[None].astype(float), counts=np.ones((1, len(values)))
    )


def test_a_prompt_of_two_endpoints_is_drawn_for_both_and_others_are_independent() -> None:
    values = np.random.default_rng(1).random(200)
    shared = outcomes(values)
    draws = stats.draw_macros([[shared, outcomes(1 - values), outcomes(values, "qa")]], resamples=4000)
    assert draws.shape == (4000, 1, 3)
    of_attack, of_refusal, of_utility = draws[:, 0].T
    assert of_refusal == pytest.approx(1 - of_attack)
    # 4,000 independent pairs have a correlation of at most 0.06 in all but 1 of 6,000 cases
    assert abs(np.corrcoef(of_attack, of_utility)[0, 1]) < 0.06
    assert of_utility.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.05)
    assert of_attack.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.05)


def test_every_endpoint_is_its_own_macro_mean() -> None:
    sums, counts = np.array([[1.0, 0, 1], [0, 0, 1]]), np.array([[1.0, 1, 1], [0, 0, 1]])
    two = stats.Clustered(rows=("a en", "a th"), clusters=("a 0", "a 1", "a 2"), sums=sums, counts=counts)
    one = outcomes(np.zeros(3), "b")
    draws = stats.draw_macros([[two, one], [two, one]], resamples=200)
    assert set(draws[:, :, 1].ravel()) == {0.0}
    # The second language has one prompt, always unsafe: (rate of the first + 1) / 2
    assert draws[:, :, 0].min() >= 0.5
    assert (draws[:, 0] == draws[:, 1]).all()
    assert len(draws) < 200  # resamples without that prompt have no rate in the second language


DESIGN = Design(methods=("a", "b", "c"), baseline="a", primary=("jail",), pivot="en", resamples=2000)


def arm(values: np.ndarray, endpoint: str, task: str) -> Arm:
    """Return an arm with one language, one seed and one answer per prompt."""
    rows = pd.DataFrame({endpoint: values.astype(float), "task": task, "cell": f"{task} en", "seed": 0, "sample": 0})
    return Arm(rows=rows.assign(unit=[f"{task} {at:04}" for at in range(len(values))]), seeds=(0,), planned=1)


TASK = {"asr": "jail", "over_refusal": "benign", "accuracy": "qa"}


def arms(rates: Mapping[str, tuple[float, float, float]], size: int = 100) -> dict[tuple[str, str, str], Arm]:
    """Return arms of one model in which the first prompts of each endpoint have the outcome."""
    return {
        ("m", method, endpoint): arm(np.arange(size) < rate * size, endpoint, TASK[endpoint])
        for method, each in rates.items()
        for endpoint, rate in zip(TASK, each, strict=True)
    }


def lines(table: pd.DataFrame) -> dict[str, tuple[object, object]]:
    return {line["method"]: (line["on_front"], line["p_front"]) for line in table.to_dict("records")}


def test_less_attack_less_refusal_and_more_utility_is_better() -> None:
    found = lines(front(arms({"a": (0.2, 0.1, 0.8), "b": (0.3, 0.2, 0.7), "c": (0.4, 0.05, 0.7)}), ["m"], DESIGN))
    assert found["a"] == (True, 1.0)
    assert found["b"][0] is False and found["c"][0] is True
    # b is beaten by a unless a resample misses the ten prompts that tell them apart in every endpoint
    assert found["b"][1] < 0.01


def test_the_share_of_resamples_is_that_of_normal_theory_with_one_endpoint() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.random(400) < 0.30, rng.random(400) < 0.33
    both = {("m", name, "asr"): arm(values, "asr", "jail") for name, values in (("a", one), ("b", two))}
    found = lines(front(both, ["m"], DESIGN))
    difference = one.astype(float) - two
    z = difference.mean() / (difference.std() / 20)
    half_tie = 0.5 / 400 / (difference.std() / 20)  # the mean is a multiple of 1/400, and a tie is on the front
    assert found["a"][1] == pytest.approx(NormalDist().cdf(-z + half_tie), abs=0.03)
    assert found["b"][1] == pytest.approx(NormalDist().cdf(z + half_tie), abs=0.03)
    assert pd.isna(found["c"][0]) and math.isnan(found["c"][1])  # type: ignore[arg-type]


def test_methods_with_equal_answers_share_the_front() -> None:
    found = lines(front(arms({"a": (0.2, 0.1, 0.8), "b": (0.2, 0.1, 0.8)}), ["m"], DESIGN))
    assert found["a"] == found["b"] == (True, 1.0)


def test_a_method_that_lacks_an_endpoint_is_not_placed_and_beats_nobody() -> None:
    made = arms({"a": (0.1, 0.0, 0.9), "b": (0.3, 0.2, 0.7), "c": (0.3, 0.1, 0.8)})
    del made["m", "a", "accuracy"]
    found = lines(front(made, ["m"], DESIGN))
    assert pd.isna(found["a"][0]) and math.isnan(found["a"][1])  # type: ignore[arg-type]
    assert found["c"][0] is True and found["b"][0] is False


def test_an_endpoint_that_nobody_has_is_left_out() -> None:
    made = arms({"a": (0.1, 0.3, 0.9), "b": (0.2, 0.1, 0.9), "c": (0.3, 0.2, 0.9)})
    found = lines(front({key: arm for key, arm in made.items() if key[2] != "accuracy"}, ["m"], DESIGN))
    assert [found[name][0] for name in "abc"] == [True, True, False]


def test_a_method_that_answered_other_prompts_is_missing_and_no_error() -> None:
    made = arms({"a": (0.1, 0.1, 0.9), "b": (0.3, 0.2, 0.8), "c": (0.3, 0.1, 0.8)})
    fewer = made["m", "a", "asr"]
    made["m", "a", "asr"] = Arm(rows=fewer.rows.iloc[:-1], seeds=(0,), planned=1)
    found = lines(front(made, ["m"], DESIGN))
    assert pd.isna(found["a"][0]) and math.isnan(found["a"][1])  # type: ignore[arg-type]
    assert found["c"][0] is True and found["b"][0] is False


def test_models_have_fronts_of_their_own_and_the_same_shares_each_time() -> None:
    made = arms({"a": (0.3, 0.1, 0.8), "b": (0.4, 0.15, 0.78)}) | {
        ("n", method, endpoint): found for (_, method, endpoint), found in arms({"a": (0.4, 0.1, 0.8)}).items()
    }
    table = front(made, ["m", "n"], DESIGN)
    assert table[["model", "method"]].values.tolist() == [[model, method] for model in "mn" for method in "abc"]
    assert lines(table[table["model"] == "n"])["a"] == (True, 1.0)
    pd.testing.assert_frame_equal(table, front(made, ["m", "n"], DESIGN))
    nobody = front({}, ["m"], DESIGN)
    assert nobody["on_front"].isna().all() and nobody["p_front"].isna().all()

"""All pairs of methods and their letters: two methods share one exactly when they cannot be told apart."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from mlbench import stats
from mlbench.results.arms import Arm, Key
from mlbench.results.arms import arms as find_arms
from mlbench.results.cells import grid as find_grid
from mlbench.results.cells import per_seed, planned_jobs, prepare
from mlbench.results.ties import ties
from tests.frames import Behaviour, Grid, jobs, verdicts


def symmetric(size: int, *pairs: tuple[int, int]) -> np.ndarray:
    differ = np.zeros((size, size), dtype=bool)
    for one, two in pairs:
        differ[one, two] = differ[two, one] = True
    return differ


def assert_letters_say(differ: np.ndarray) -> tuple[str, ...]:
    found = stats.letters(differ)
    sets = [set(text.split()) for text in found]
    assert all(sets)
    for one, two in combinations(range(len(differ)), 2):
        assert bool(sets[one] & sets[two]) == (not differ[one, two]), (one, two, found)
    return found


def test_letters_of_four_methods_by_hand() -> None:
    assert stats.letters(symmetric(4)) == ("a", "a", "a", "a")
    assert stats.letters(symmetric(3, (0, 1), (0, 2), (1, 2))) == ("a", "b", "c")
    # Only the best and the worst differ: all between them go with both.
    assert stats.letters(symmetric(4, (0, 3))) == ("a", "a b", "a b", "b")
    # The best is like the third, but not like the second.
    assert stats.letters(symmetric(3, (0, 1))) == ("a", "b", "a b")
    assert stats.letters(symmetric(1)) == ("a",)


def test_random_matrices_are_said_exactly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):
        size, share = int(rng.integers(1, 14)), rng.random()
        upper = np.triu(rng.random((size, size)) < share, k=1)
        found = assert_letters_say(upper | upper.T)
        assert "a" in found[0].split()


def test_no_letter_is_superfluous() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        upper = np.triu(rng.random((8, 8)) < 0.3, k=1)
        differ = upper | upper.T
        sets = [set(text.split()) for text in stats.letters(differ)]
        for letter in set().union(*sets):
            fewer = [names - {letter} for names in sets]
            pairs = combinations(range(8), 2)
            said = all(bool(fewer[one] & fewer[two]) == (not differ[one, two]) for one, two in pairs)
            assert not (said and all(fewer))


def test_thirty_methods_with_more_sets_than_letters_are_said_exactly() -> None:
    upper = np.triu(np.random.default_rng(2).random((30, 30)) < 0.5, k=1)
    found = assert_letters_say(upper | upper.T)
    names = {name for text in found for name in text.split()}
    assert {"z", "aa", "ab"} <= names


def by_enumeration(parts: np.ndarray) -> np.ndarray:
    """Return the adjusted p-values of the pairs by their definition, every sign vector and every subset in a loop."""
    pairs = list(combinations(range(len(parts)), 2))
    rows = [parts[one] - parts[two] for one, two in pairs]
    observed = [abs(row.sum()) / np.sqrt((row**2).sum()) for row in rows]
    order = sorted(range(len(pairs)), key=lambda place: -observed[place])
    signs = [np.array(flip) for flip in product([-1, 1], repeat=parts.shape[1])]
    p, before = np.ones((len(parts),) * 2), 0.0
    for step, place in enumerate(order):
        maxima = [max(abs(flip @ rows[k]) / np.sqrt((rows[k] ** 2).sum()) for k in order[step:]) for flip in signs]
        before = max(before, np.mean([m >= observed[place] - 1e-9 for m in maxima]))
        p[pairs[place]] = p[pairs[place][::-1]] = before
    return p


def test_p_values_are_those_of_the_step_down_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.5, 2.0):
        parts = rng.normal(size=(4, 7)) + shift * np.arange(4)[:, None]
        assert stats.all_pairs(parts) == pytest.approx(by_enumeration(parts))


@pytest.mark.parametrize("clusters", [9, 30])
def test_two_methods_have_the_p_value_of_their_comparison(clusters: int) -> None:
    parts = np.random.default_rng(4).normal(size=(2, clusters))
    parts[1] += 0.4
    expected = stats.sign_flip((parts[0] - parts[1])[None], resamples=999, seed=5).macro
    assert stats.all_pairs(parts, resamples=999, seed=5)[0, 1] == expected


def test_methods_that_are_the_same_up_to_rounding_do_not_differ() -> None:
    parts = np.random.default_rng(5).random((3, 20))
    parts[1] = parts[0] + 1e-16
    p = stats.all_pairs(parts, resamples=200)
    assert p[0, 1] == 1
    assert p[0, 2] == p[1, 2]
    assert (stats.all_pairs(np.zeros((3, 20))) == 1).all()
    assert stats.all_pairs(np.ones((1, 5))).tolist() == [[1]]


def test_equal_methods_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(6)
    wrong = 0
    for seed in range(200):
        parts = (rng.random((6, 60)) < 0.3).astype(float)
        wrong += bool((stats.all_pairs(parts, resamples=200, seed=seed) <= 0.05).any())
    # 5 % of 200 are 10; 20 would be 3.2 standard errors above.
    assert wrong <= 20


def found_arms(grid: Grid, rows: pd.DataFrame) -> dict[Key, Arm]:
    prepared = prepare(rows)
    cells = per_seed(prepared, find_grid(prepared, planned_jobs(jobs(grid))), alpha=0.05)
    return find_arms(prepared, cells, grid.design())


FOUR = {
    "none": Behaviour(unsafe=0.8, steps=0),
    "good": Behaviour(unsafe=0.05),
    "twin": Behaviour(copies="good"),
    "fair": Behaviour(unsafe=0.4),
}


def test_groups_of_a_model_are_ordered_from_best_to_worst() -> None:
    grid = Grid(methods=FOUR, models=("x", "y"), prompts=80)
    table = ties(found_arms(grid, verdicts(grid)), ["x", "y"], grid.design())
    assert table.values.tolist() == [
        [model, method, group]
        for model in "xy"
        for method, group in (("none", "c"), ("good", "a"), ("twin", "a"), ("fair", "b"))
    ]


def test_methods_without_comparable_answers_have_no_letter() -> None:
    grid = Grid(methods=FOUR, prompts=80)
    rows = verdicts(grid)
    missing = (rows["method"] == "fair") & (rows["prompt_id"] == "p3")
    rows = rows[~missing]
    rows.loc[(rows["method"] == "none") & (rows["prompt_id"] == "p5"), "cluster"] = "another"
    table = ties(found_arms(grid, rows), ["organism"], grid.design()).set_index("method")["group"]
    assert table.to_dict() == {"none": "", "good": "a", "twin": "a", "fair": ""}
    nothing = ties({}, ["organism"], grid.design())
    assert nothing["group"].tolist() == [""] * 4

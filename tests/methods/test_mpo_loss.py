"""Both terms of MPO against numbers computed by hand or elsewhere."""

import numpy as np
import pytest
import torch
from mlbench_methods.mpo import gap_loss, padded_width, positions, retain_loss, reward_gap

from mlbench.training import answers, hidden

from .mpo_runs import FORMS

# Mean log-probabilities: pivot chosen, pivot rejected, target chosen, target rejected.
ROW_1 = (-0.9, -2.5, -1.2, -1.5)  # RG^d = 1.6, RG^t = 0.3
ROW_2 = (-1.1, -3.0, -0.8, -2.6)  # RG^d = 1.9, RG^t = 1.8


def likely(means: list[float], tokens: list[int] | None = None) -> answers.LogProbs:
    count = torch.tensor(tokens or [1] * len(means))
    return answers.LogProbs(torch.tensor(means, dtype=torch.float64) * count, count)


def gaps(*rows: tuple[float, float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gap of the targets and that of the pivot."""
    target = likely([value for row in rows for value in row[2:]])
    pivot = likely([value for row in rows for value in row[:2]])
    return reward_gap(target), reward_gap(pivot)


@pytest.mark.parametrize(
    ("rows", "beta", "expected"),
    [
        ((ROW_1,), 1.0, 1.69),  # (0.3 - 1.6)^2
        ((ROW_1,), 1.5, 1.3225),  # (0.45 - 1.6)^2
        ((ROW_1, ROW_2), 1.0, 0.85),  # (1.69 + 0.01) / 2
        ((ROW_1, ROW_2), 1.5, 0.98125),  # (1.3225 + 0.64) / 2
    ],
)
def test_the_gap_loss_has_the_value_computed_by_hand(
    rows: tuple[tuple[float, float, float, float], ...], beta: float, expected: float
) -> None:
    assert gap_loss(*gaps(*rows), beta=beta).mean().item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (1.0, [-1.3, -0.1]),
        (1.5, [-1.725, 1.2]),  # the second target has more than its share and is pulled back
    ],
)
def test_the_slope_of_the_batch_mean_is_the_one_computed_by_hand(beta: float, expected: list[float]) -> None:
    target, pivot = gaps(ROW_1, ROW_2)
    target.requires_grad_()
    (slope,) = torch.autograd.grad(gap_loss(target, pivot, beta=beta).mean(), target)
    np.testing.assert_allclose(slope, expected, atol=1e-12)


def test_swapping_the_answers_on_both_sides_or_shifting_them_all_changes_no_loss() -> None:
    swapped = (ROW_1[1], ROW_1[0], ROW_1[3], ROW_1[2])
    shifted = tuple(value - 0.7 for value in ROW_1)
    for same in (swapped, shifted):
        assert gap_loss(*gaps(same), beta=1.0).item() == pytest.approx(1.69, abs=1e-12)


def test_answers_of_twice_the_length_have_the_same_gap_per_token_and_twice_the_gap_in_sum() -> None:
    once, twice = likely([-1.2, -1.5], [4, 6]), likely([-1.2, -1.5], [8, 12])
    assert reward_gap(once).item() == pytest.approx(0.3)
    assert reward_gap(twice).item() == pytest.approx(0.3)
    assert reward_gap(once, length_normalised=False).item() == pytest.approx(4.2)  # -4.8 + 9.0
    assert reward_gap(twice, length_normalised=False).item() == pytest.approx(8.4)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_the_loss_rests_at_the_pivots_gap_over_beta_and_nowhere_else(beta: float) -> None:
    pivot = torch.tensor([1.6, -0.4, 0.0], dtype=torch.float64)
    target = (pivot / beta).requires_grad_()
    found = gap_loss(target, pivot, beta=beta)
    (slope,) = torch.autograd.grad(found.sum(), target)
    np.testing.assert_allclose(found.detach(), 0, atol=1e-30)
    np.testing.assert_allclose(slope, 0, atol=1e-15)
    assert (gap_loss(target + 0.1, pivot, beta=beta) > 0).all()
    assert (gap_loss(target - 0.1, pivot, beta=beta) > 0).all()


def test_one_sided_does_nothing_above_the_target_and_the_same_below() -> None:
    target, pivot = gaps(ROW_1, ROW_2)
    target.requires_grad_()
    found = gap_loss(target, pivot, beta=1.5, one_sided=True)
    (slope,) = torch.autograd.grad(found.mean(), target)
    np.testing.assert_allclose(found.detach(), [1.3225, 0], atol=1e-12)
    np.testing.assert_allclose(slope, [-1.725, 0], atol=1e-12)


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_gap_loss_equals_the_formula_in_numpy(one_sided: bool) -> None:
    draw = np.random.default_rng(0)
    means, tokens = -draw.exponential(size=(2, 9, 2)), draw.integers(1, 20, size=(2, 9, 2))
    target, pivot = (
        likely(means[at].ravel().tolist(), tokens[at].ravel().tolist()) for at in range(2)
    )  # chosen and rejected of each row side by side
    short = (means[1, :, 0] - means[1, :, 1]) - 0.8 * (means[0, :, 0] - means[0, :, 1])
    expected = np.where(short > 0, short, 0) ** 2 if one_sided else short**2
    found = gap_loss(reward_gap(target), reward_gap(pivot), beta=0.8, one_sided=one_sided)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_the_positions_of_each_form_are_those_written_out_by_hand() -> None:
    lengths = torch.tensor([[2, 3], [9, 4]])
    assert padded_width(lengths).tolist() == [8, 16]  # next multiple of 8 of the longer one
    assert padded_width(torch.tensor([[8, 1]])).tolist() == [8]
    read = {form: positions(lengths, 16, form).long().sum(-1).tolist() for form in FORMS}
    assert read == {"masked_mean": [[2, 3], [9, 4]], "official": [[8, 8], [16, 16]], "paper": [[1, 1], [1, 1]]}
    assert positions(lengths, 16, "masked_mean")[0, 1].nonzero().flatten().tolist() == [0, 1, 2]
    assert positions(lengths, 16, "official")[0, 0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert positions(lengths, 16, "paper")[1, 0].nonzero().flatten().tolist() == [8]


@pytest.mark.parametrize("form", FORMS)
def test_pooling_and_distance_equal_the_formula_in_numpy(form: str) -> None:
    lengths = np.array([[2, 3], [9, 4], [16, 1]])
    draw = np.random.default_rng(1)
    now, before = draw.normal(size=(2, 3, 2, 16, 5))
    expected = []
    for row in range(3):
        moved = []
        for side in range(2):
            end = -(-lengths[row].max() // 8) * 8 if form == "official" else lengths[row, side]
            first = end - 1 if form == "paper" else 0
            change = now[row, side, first:end].mean(0) - before[row, side, first:end].mean(0)
            moved.append((change**2).sum() / (1 if form == "paper" else 5))
        expected.append(sum(moved) / 2)
    read = positions(torch.tensor(lengths), 16, form).flatten(0, 1)
    states = [hidden.mean_token(torch.tensor(each).flatten(0, 1), read).view(3, 2, 5) for each in (now, before)]
    np.testing.assert_allclose(retain_loss(*states, form), expected, rtol=1e-9)

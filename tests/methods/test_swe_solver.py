"""The edit that SWE solves for: Theorem 4.1 against its own claims and other ways to the same edit."""

import numpy as np
import pytest
import torch
from mlbench_methods.swe import gap, truncate

from mlbench.errors import JobError
from mlbench.training.edit import factor, free_directions

HARM, SAFE, DIM, UNITS, RANK = 40, 12, 24, 10, 3
GAMMA, RIDGE = 0.7, 0.05


class Case:
    """A regression whose benign inputs span only half of the space."""

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed).standard_normal
        self.low, self.safe, self.gap = draw((HARM, DIM)), draw((SAFE, DIM)), draw((HARM, UNITS))
        self.weight = draw((DIM, UNITS))

    def cost(self, delta: np.ndarray, gamma: float = GAMMA, ridge: float = RIDGE) -> float:
        """Return J as the paper's equation 8 has it, each sum over its rows."""
        terms = ((self.low @ delta - self.gap) ** 2).sum() / HARM, ((self.safe @ delta) ** 2).sum() / SAFE
        return float(terms[0] + gamma * terms[1] + ridge * (delta**2).sum())

    def quadratic(self, gamma: float = GAMMA) -> np.ndarray:
        return self.low.T @ self.low / HARM + gamma * self.safe.T @ self.safe / SAFE

    def best(self, gamma: float = GAMMA, ridge: float = RIDGE) -> np.ndarray:
        """Return the unconstrained solution M."""
        return np.linalg.solve(self.quadratic(gamma) + ridge * np.eye(DIM), self.low.T @ self.gap / HARM)

    def edit(self, rank: int = RANK, gamma: float = GAMMA, ridge: float = RIDGE) -> np.ndarray:
        """Return what the code under test makes of it."""
        lower = factor(torch.from_numpy(self.quadratic(gamma)), ridge).lower
        left, right = truncate(lower, torch.from_numpy(self.low.T @ self.gap / HARM), rank)
        return (left @ right.T).numpy()


def test_full_rank_is_the_ridge_solution_and_less_is_its_best_truncation() -> None:
    case = Case()
    np.testing.assert_allclose(case.edit(rank=UNITS), case.best(), rtol=0, atol=1e-12)
    assert np.linalg.matrix_rank(case.edit()) == RANK
    # R M = U Sigma V^T; what the truncation costs is the tail of the spectrum.
    root = np.linalg.cholesky(case.quadratic() + RIDGE * np.eye(DIM)).T
    tail = (np.linalg.svd(root @ case.best(), compute_uv=False)[RANK:] ** 2).sum()
    assert case.cost(case.edit()) - case.cost(case.best()) == pytest.approx(tail, rel=1e-9)


def test_no_other_edit_of_that_rank_is_better() -> None:
    case = Case()
    reached = case.cost(case.edit())
    assert reached < case.cost(np.zeros((DIM, UNITS)))
    draw = np.random.default_rng(1).standard_normal
    for step in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            u, sigma, vt = np.linalg.svd(case.edit() + step * draw((DIM, UNITS)), full_matrices=False)
            assert case.cost(u[:, :RANK] * sigma[:RANK] @ vt[:RANK]) > reached
    # Truncating M itself, without the metric, is another edit and a worse one.
    u, sigma, vt = np.linalg.svd(case.best(), full_matrices=False)
    assert case.cost(u[:, :RANK] * sigma[:RANK] @ vt[:RANK]) > reached * (1 + 1e-6)


def test_primal_dual_and_projection_form_agree() -> None:
    case = Case()
    # M = A^T (A A^T + lambda I)^-1 [D; 0] with A = [X_low; sqrt(gamma) X_safe]
    rows = np.vstack([case.low / HARM**0.5, (GAMMA / SAFE) ** 0.5 * case.safe])
    wanted = np.vstack([case.gap / HARM**0.5, np.zeros((SAFE, UNITS))])
    dual = rows.T @ np.linalg.solve(rows @ rows.T + RIDGE * np.eye(len(rows)), wanted)
    np.testing.assert_allclose(case.best(), dual, rtol=1e-8)
    # dW = M V_r V_r^T with the top eigenvectors of D^T X_low M
    vectors = np.linalg.eigh(case.gap.T @ case.low @ dual / HARM)[1][:, -RANK:]
    np.testing.assert_allclose(case.edit(), dual @ vectors @ vectors.T, rtol=1e-8)


def test_the_limits_of_lambda_gamma_and_the_gap() -> None:
    case = Case()
    assert np.abs(case.edit(ridge=1e9)).max() < 1e-8
    case.gap = np.zeros_like(case.gap)
    assert np.abs(case.edit()).max() == 0


def hard(case: Case, protected: float = 0.99) -> np.ndarray:
    basis = free_directions(torch.from_numpy(case.safe.T @ case.safe), protected)
    quadratic = basis.T @ torch.from_numpy(case.quadratic(gamma=0)) @ basis
    left, right = truncate(
        factor(quadratic, RIDGE).lower, basis.T @ torch.from_numpy(case.low.T @ case.gap / HARM), RANK
    )
    return (basis @ left @ right.T).numpy()


def test_the_hard_edit_leaves_benign_inputs_alone_and_a_large_gamma_comes_close_to_it() -> None:
    case = Case()
    assert np.abs(case.safe @ hard(case)).max() < 1e-12
    assert np.linalg.matrix_rank(hard(case)) == RANK
    far, near = (np.abs(case.edit(gamma=gamma) - hard(case)).max() for gamma in (1e4, 1e8))
    assert near < 1e-6 < far < 1e-2


def test_free_directions_are_those_that_benign_inputs_have_least_of() -> None:
    gram = torch.diag(torch.tensor([4.0, 0.0, 9.0, 1.0, 16.0], dtype=torch.float64))
    # int(0.5 * 5) = 2 protected: the ones with 16 and 9.
    np.testing.assert_array_equal((free_directions(gram, 0.5) ** 2).sum(1), [1, 1, 0, 1, 0])
    # All that is used is protected, and no more: the one with 0 stays free.
    np.testing.assert_array_equal((free_directions(gram, 0.99) ** 2).sum(1), [0, 1, 0, 0, 0])


def test_a_matrix_that_is_not_positive_gets_a_larger_lambda_up_to_three_times() -> None:
    quadratic = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    found = factor(quadratic, 0.01)
    assert found.raised == 2  # 0.01 and 0.1 are too little, 1 is enough
    np.testing.assert_allclose(found.lower @ found.lower.T, [[2, 0], [0, 0.5]])
    with pytest.raises(JobError, match=r"not positive definite even with lambda = 0\.1"):
        factor(quadratic, 1e-4)


def test_order_of_the_rows_is_irrelevant() -> None:
    case, mixed = Case(), Case()
    order = np.random.default_rng(2).permutation(HARM)
    mixed.low, mixed.gap = case.low[order], case.gap[order]
    np.testing.assert_allclose(mixed.edit(), case.edit(), rtol=1e-9, atol=1e-12)


def test_the_gap_vanishes_where_the_inputs_agree_but_not_as_printed() -> None:
    low, pivot, weight = (torch.from_numpy(Case(seed).low) for seed in (0, 1, 2))
    weight = weight.T[:, :4]
    bias = torch.full((4,), 0.3, dtype=torch.float64)
    assert gap(low, low, weight, bias).abs().max() == 0
    np.testing.assert_allclose(gap(low, pivot, weight, bias), (pivot @ weight + 0.3) - (low @ weight + 0.3), atol=1e-12)
    values = (pivot @ weight + 0.3).numpy()
    literal = values / (1 + np.exp(-values)) - (low @ weight + 0.3).numpy()
    np.testing.assert_allclose(gap(low, pivot, weight, bias, torch.nn.SiLU()), literal, atol=1e-12)

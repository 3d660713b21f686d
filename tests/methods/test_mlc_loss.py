"""The loss of MLC, its floor and its other form, against numbers computed by hand or elsewhere."""

import numpy as np
import pytest
import torch
from mlbench_methods.mlc import MLC, consistency_loss, floor

from mlbench.core import Example

TAU = 0.2
# Equicorrelated unit vectors: languages, cosine, printed loss and |derivative|, released loss and |derivative|.
TABLE = [
    (10, 0.3, 3.9e-2, 0.56, 0.4277, 2.66),
    (10, 0.5, 2.5e-3, 3.3e-2, 0.2420, 1.20),
    (10, 0.7, 1.9e-4, 2.4e-3, 0.1545, 0.68),
    (10, 0.9, 1.2e-5, 1.9e-4, 0.0975, 0.47),
    (10, 0.99, 2.2e-6, 7.0e-5, 0.0687, 0.68),
    (5, 0.9, 4.3e-4, 5.4e-3, 0.0548, 0.31),
    (2, 0.9, 4.9e-3, 4.8e-2, 0.0210, 0.15),
]


def equicorrelated(languages: int, cosine: torch.Tensor) -> torch.Tensor:
    """Return unit vectors with that cosine between any two, (1, languages, languages): the root of the Gram matrix."""
    shared = torch.full((languages, languages), 1 / languages, dtype=torch.float64)
    apart = torch.eye(languages, dtype=torch.float64) - shared
    return ((1 - cosine).sqrt() * apart + (1 + (languages - 1) * cosine).sqrt() * shared)[None]


def everywhere(states: torch.Tensor) -> torch.Tensor:
    return torch.ones(states.shape[:2], dtype=torch.bool)


def loss(states: torch.Tensor, scale: str = "detached_top", present: torch.Tensor | None = None) -> torch.Tensor:
    present = everywhere(states) if present is None else present
    return consistency_loss(states, present, temperature=TAU, scale=scale)


@pytest.mark.parametrize(("languages", "cosine", "printed", "printed_slope", "released", "released_slope"), TABLE)
def test_loss_and_slope_are_those_of_the_table(
    languages: int, cosine: float, printed: float, printed_slope: float, released: float, released_slope: float
) -> None:
    for scale, value, slope in (("none", printed, printed_slope), ("detached_top", released, released_slope)):
        at = torch.tensor(cosine, dtype=torch.float64, requires_grad=True)
        found = loss(equicorrelated(languages, at), scale)
        (gradient,) = torch.autograd.grad(found.sum(), at)
        assert found.item() == pytest.approx(value, rel=0.03)  # the table has two digits for the small ones
        assert abs(gradient.item()) == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
def test_orthogonal_translations_lose_ln_l_and_the_slope_is_one_sided(scale: str) -> None:
    near = torch.tensor(1e-5, dtype=torch.float64)
    orthogonal = loss(equicorrelated(10, torch.zeros((), dtype=torch.float64)), scale)
    assert orthogonal.item() == pytest.approx(np.log(10), abs=1e-9)
    assert (loss(equicorrelated(10, near), "none") - orthogonal).item() / 1e-5 == pytest.approx(-22.5, rel=0.01)


def test_translations_in_one_direction_reach_the_floor_and_not_zero() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert loss(equicorrelated(10, one)).item() == pytest.approx(0.0589, abs=5e-5)
    assert loss(equicorrelated(10, one), "none").item() == pytest.approx(1.2e-6, rel=0.03)
    counts = torch.tensor([10.0, 5.0, 2.0], dtype=torch.float64)
    released = floor(counts, temperature=TAU, scale="detached_top")
    np.testing.assert_allclose(released, [0.0589, 0.0266, 0.0067], atol=5e-5)
    printed = floor(counts, temperature=TAU, scale="none")
    assert printed[0].item() == pytest.approx(loss(equicorrelated(10, one), "none").item(), rel=1e-6)


def by_numpy(vectors: np.ndarray, scale: str) -> float:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sigma = np.linalg.svd(units, compute_uv=False)
    scores = sigma / (sigma[0] if scale == "detached_top" else 1) / TAU
    return float(np.log(np.exp(scores).sum()) - scores[0])


@pytest.mark.parametrize("scale", ["none", "detached_top"])
@pytest.mark.parametrize(("languages", "dim"), [(2, 16), (7, 16), (7, 3)])
def test_loss_equals_the_formula_in_numpy(languages: int, dim: int, scale: str) -> None:
    states = torch.randn(5, languages, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [by_numpy(prompt, scale) for prompt in states.numpy()]
    np.testing.assert_allclose(loss(states, scale), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
def test_a_missing_translation_makes_a_smaller_l_and_moves_no_other_row(scale: str) -> None:
    states = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)
    expected = [by_numpy(row[keep].numpy(), scale) for row, keep in zip(states, present, strict=True)]
    np.testing.assert_allclose(loss(states, scale, present), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
def test_order_length_and_sign_of_the_vectors_do_not_matter(scale: str) -> None:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(4, 6, 12, dtype=torch.float64, generator=generator)
    lengths = torch.rand(4, 6, 1, dtype=torch.float64, generator=generator) + 0.1
    signs = torch.tensor([1, -1, 1, 1, -1, 1], dtype=torch.float64)[:, None]
    before = loss(states, scale)
    for same in (states[:, torch.tensor([3, 1, 5, 0, 2, 4])], states * lengths, states * signs):
        torch.testing.assert_close(loss(same, scale), before)


@pytest.mark.parametrize("scale", ["none", "detached_top"])
@pytest.mark.parametrize(
    "states",
    [torch.ones(2, 5, 8), torch.eye(5, 8).expand(2, 5, 8), torch.tensor([[1.0, 0], [-1, 0], [2, 0]]).expand(2, 3, 2)],
    ids=["rank one", "orthogonal", "opposite"],
)
def test_gradient_is_finite_where_singular_values_coincide(states: torch.Tensor, scale: str) -> None:
    leaf = states.clone().requires_grad_()
    loss(leaf, scale).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_the_two_forms_have_one_direction_and_different_temperatures() -> None:
    # printed with tau * sigma_1 in place of tau is the released form
    states = torch.randn(1, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    top = torch.linalg.svdvals(states / states.norm(dim=-1, keepdim=True))[0, 0].item()
    printed = consistency_loss(states, everywhere(states), temperature=TAU * top, scale="none")
    torch.testing.assert_close(loss(states), printed)


def terms(method: MLC, states: torch.Tensor, sizes: list[int]) -> tuple[float, dict[str, float]]:
    prompts = [
        tuple(
            Example(id=f"p{number}", cluster="c", language=str(index), prompt="", harmful=number % 2 == 0)
            for index in range(size)
        )
        for number, size in enumerate(sizes)
    ]
    found = method.terms(states, prompts, None, 0)
    return found.loss.item(), dict(found.values)


def test_cosine_form_is_one_minus_the_mean_pairwise_cosine() -> None:
    states = torch.randn(7, 6, generator=torch.Generator().manual_seed(5))
    units = (states / states.norm(dim=-1, keepdim=True)).numpy()
    # prompts of 4 and of 3 languages: 6 and 3 pairs
    cosines = [
        np.mean([units[one] @ units[other] for one in rows for other in rows if one < other])
        for rows in (range(4), range(4, 7))
    ]
    loss_found, values = terms(MLC(form="cosine"), states, [4, 3])
    assert loss_found == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert values["cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert values["normalised"] == pytest.approx(loss_found)
    assert terms(MLC(form="cosine", normalise=True), states, [4, 3])[0] == loss_found
    opposite = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])
    assert terms(MLC(form="cosine"), opposite, [2])[0] == pytest.approx(2)
    assert terms(MLC(), opposite, [2])[1]["normalised"] == pytest.approx(0, abs=1e-6)  # blind to the sign


def test_separation_term_is_added_with_its_weight() -> None:
    # mean directions (1, 1) / sqrt 2 and (0, 1): cosine sqrt(1 / 2)
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    expected = np.log(1 + np.exp((np.sqrt(0.5) - 1) / 0.1))
    off, _ = terms(MLC(), states, [2, 2])
    on, values = terms(MLC(separation_weight=0.25), states, [2, 2])
    assert values["separation"] == pytest.approx(expected, abs=1e-6)
    assert values["consistency"] == pytest.approx(off)
    assert on == pytest.approx(off + 0.25 * expected, abs=1e-6)


@pytest.mark.parametrize("form", ["rank1", "cosine"])
def test_batch_of_one_equals_its_part_of_a_batch_of_four(form: str) -> None:
    states = torch.randn(12, 8, generator=torch.Generator().manual_seed(6))
    method = MLC(form=form)
    together, values = terms(method, states, [3, 3, 3, 3])
    alone = [terms(method, states[at : at + 3], [3]) for at in range(0, 12, 3)]
    assert together == pytest.approx(np.mean([each[0] for each in alone]), abs=1e-6)
    for name in ("cosine", "top_share", "effective_rank", "normalised"):
        assert values[name] == pytest.approx(np.mean([each[1][name] for each in alone]), abs=1e-6), name

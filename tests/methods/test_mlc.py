"""MLC: the loss against numbers computed elsewhere, and the penalty inside a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.dpo import DPO
from mlbench_methods.mlc import MLC, consistency_loss, floor, separation
from mlbench_methods.sft import SFT
from pydantic import ValidationError

from mlbench import models, tiny
from mlbench.core import Checkpoint, Corpus, Example
from mlbench.corpus import view
from mlbench.errors import DataError, UserError

torch.set_num_threads(1)

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


def test_separation_sees_the_sign_and_the_collapse_that_the_loss_does_not() -> None:
    # Prompt 1: two equal directions. Prompt 2: two opposite ones, which the loss takes for equal.
    equal, opposite = [[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, -3.0]]
    found = separation(torch.tensor([equal, opposite]), torch.ones(2, 2, dtype=torch.bool))
    assert found["cosine"] == pytest.approx(0.0)  # (1 - 1) / 2
    assert found["top_share"] == pytest.approx(1.0)  # both have rank one
    collapsed = separation(torch.ones(3, 2, 4), torch.ones(3, 2, dtype=torch.bool))
    assert collapsed["between"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


def trained(method: MLC | DPO | SFT, start: Checkpoint, folder: Path, **changes: int | float) -> tiny.Log:
    run = tiny.Log(folder=folder, training=tiny.budget(**{"steps": 4} | changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


def weights(run: tiny.Log) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("base", ["dpo", "sft"])
def test_weight_zero_equals_the_base_method_bit_for_bit(
    start: Checkpoint, tmp_path: Path, base: str, lora_rank: int
) -> None:
    plain = trained(DPO() if base == "dpo" else SFT(), start, tmp_path / "plain", lora_rank=lora_rank)
    zero = trained(MLC(base=base, weight=0), start, tmp_path / "zero", lora_rank=lora_rank)
    some = trained(MLC(base=base), start, tmp_path / "some", lora_rank=lora_rank)
    assert [step["loss"] for step in zero.curve] == [step["loss"] for step in plain.curve]
    assert weights(zero) == weights(plain)
    assert weights(some) != weights(plain)


def test_the_penalty_is_logged_on_its_steps_and_added_to_the_loss(start: Checkpoint, tmp_path: Path) -> None:
    plain = trained(DPO(), start, tmp_path / "plain").curve
    curve = trained(MLC(weight=0.5), start, tmp_path / "mlc").curve
    assert ["mlc/loss" in step for step in curve] == [True, False, True, False]
    assert curve[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.5 * curve[0]["mlc/loss"], abs=1e-6)
    assert {"mlc/normalised", "mlc/cosine", "mlc/top_share", "mlc/between"} <= set(curve[0])


@pytest.mark.parametrize(
    "method",
    [
        MLC(layer=1, every=1),
        MLC(layer=0.5, projection="none", scale="none", every=1),
        MLC(token="mean", projection="random", pivot_stop_gradient=True, every=1),
        MLC(projection="trained", projection_learning_rate=1e-3, languages_per_step=1, normalise=True, every=1),
    ],
    ids=lambda method: f"layer {method.layer}, {method.token}, {method.projection}",
)
def test_every_option_brings_translations_together(method: MLC, start: Checkpoint, tmp_path: Path) -> None:
    curve = trained(method, start, tmp_path, steps=30, learning_rate=3e-3).curve
    assert curve[-1]["mlc/loss"] < curve[0]["mlc/loss"]
    assert curve[-1]["mlc/cosine"] > curve[0]["mlc/cosine"]


@pytest.mark.parametrize("base", ["dpo", "sft"])
def test_micro_batches_change_nothing(start: Checkpoint, tmp_path: Path, base: str) -> None:
    whole = trained(MLC(base=base, every=1), start, tmp_path / "whole", batch_size=32).curve
    parts = trained(MLC(base=base, every=1), start, tmp_path / "parts", batch_size=32, micro_batch=8).curve
    for one, other in zip(whole, parts, strict=True):
        for name in ("loss", "mlc/loss", "grad_norm"):
            assert one[name] == pytest.approx(other[name], abs=2e-5), name


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_gradient_checkpointing_changes_nothing(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    method = MLC(every=1, layer=1)
    plain = trained(method, start, tmp_path / "plain", lora_rank=lora_rank).curve
    saving = trained(method, start, tmp_path / "saving", lora_rank=lora_rank, gradient_checkpointing=True).curve
    for one, other in zip(plain, saving, strict=True):
        for name in ("loss", "mlc/loss", "grad_norm"):
            assert one[name] == pytest.approx(other[name], abs=1e-6), name


def test_answers_in_other_languages_are_not_read(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MLC(), start, tmp_path, steps=8)
    assert {language for language, _, answers in run.read if answers} == {"en"}
    assert {language for language, _, answers in run.read if not answers} == set(tiny.LANGUAGES)


def test_one_target_per_step_is_the_pivot_and_one_more(tmp_path: Path) -> None:
    method = MLC(languages_per_step=1)
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=20))
    batches = method.batches(method.groups(tiny.corpus()), "en", run)
    assert len(batches) == 10  # every second step
    assert {len(prompt) for batch in batches for prompt in batch} == {2}
    assert {prompt[0].language for batch in batches for prompt in batch} == {"en"}
    assert {prompt[1].language for batch in batches for prompt in batch} == {"xa", "xb", "xc"}


def without(corpus: Corpus, *gone: tuple[str, str]) -> Corpus:
    rows = tuple(row for row in corpus.examples if (row.language, row.id) not in gone)
    return Corpus(pivot=corpus.pivot, languages=corpus.languages, examples=rows)


def test_a_ragged_corpus_gives_each_prompt_its_own_number_of_languages(start: Checkpoint, tmp_path: Path) -> None:
    corpus = without(tiny.corpus(), ("xa", "p0"), ("xb", "p0"), ("xc", "p1"))
    method = MLC(every=1)
    sizes = {len(group) for group in method.groups(corpus)}
    assert sizes == {2, 3, 4}
    run = tiny.Log(folder=tmp_path, training=tiny.budget())
    method.align(start, view(corpus, method.needs), run)
    assert all(np.isfinite(step["mlc/loss"]) for step in run.curve)


def test_padding_of_the_longest_prompt_leaves_the_others_alone(start: Checkpoint, tmp_path: Path) -> None:
    short, long = ("ask " * 2, "ask " * 9)
    rows = [
        Example(id="p", cluster="p", language=language, prompt=language + text, harmful=True)
        for language, text in (("en", short), ("xa", short), ("xb", long))
    ]
    loaded = models.load(start, device="cpu")
    run = tiny.Log(folder=tmp_path)
    groups = [{row.language: row for row in rows}]
    side = MLC(projection="none").side(loaded, groups, "en", run)
    with torch.no_grad():
        alone = side.loss(loaded.model, [(rows[0], rows[1])])
        beside = side.loss(loaded.model, [(rows[0], rows[1]), (rows[0], rows[2])])
        other = side.loss(loaded.model, [(rows[0], rows[2])])
    assert beside.loss.item() == pytest.approx((alone.loss.item() + other.loss.item()) / 2, abs=1e-6)


def test_a_layer_beyond_the_model_is_refused_with_the_number_it_has(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer 12 .* which has 2"):
        trained(MLC(layer=12), start, tmp_path)


def test_a_language_without_parallel_prompts_is_named(start: Checkpoint) -> None:
    corpus = without(tiny.corpus(), *(("xb", f"p{index}") for index in range(6)))
    with pytest.raises(DataError, match="no prompt in 'xb' is a translation"):
        MLC().groups(corpus)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"layer": 0}, {"layer": "first"}, {"weigth": 0.8}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MLC(**fields)

"""Measures of representations against numbers worked out by hand, and the layer that they choose."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlbench import models, tiny
from mlbench.training import fit, geometry, hidden

torch.set_num_threads(1)

BOTH = torch.ones(2, 2, dtype=torch.bool)


def groups(prompts: int, clusters: int | None = None) -> list[geometry.Group]:
    """Return prompts in every tiny language, spread over that many clusters."""
    found = tiny.corpus(prompts).parallel()
    spread = clusters or prompts
    return [
        {language: replace(row, cluster=f"c{index % spread}") for language, row in group.items()}
        for index, group in enumerate(found)
    ]


def test_rows_are_grouped_with_gaps_and_never_shift() -> None:
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    states, present = geometry.grouped(rows, [2, 1, 3])
    assert states[..., 0].tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert present.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_agreement_of_parallel_and_of_orthogonal_translations() -> None:
    parallel, orthogonal = [[1.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [0.0, 1.0]]
    found = geometry.agreement(torch.tensor([parallel, orthogonal]), BOTH)
    assert found["cosine"] == pytest.approx((1 + 0) / 2)
    assert found["top_share"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["effective_rank"] == pytest.approx((1 + 2) / 2)


def test_agreement_sees_the_sign_that_singular_values_do_not() -> None:
    # Prompt 1: two equal directions. Prompt 2: two opposite ones, which have rank one as well.
    equal, opposite = [[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, -3.0]]
    found = geometry.agreement(torch.tensor([equal, opposite]), BOTH)
    assert found["cosine"] == pytest.approx(0.0)  # (1 - 1) / 2
    assert found["top_share"] == pytest.approx(1.0)
    assert found["effective_rank"] == pytest.approx(1.0)


def test_agreement_of_a_ragged_block_equals_that_of_each_prompt_alone() -> None:
    states = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    block = geometry.agreement(states, present)
    alone = [
        geometry.agreement(row[keep][None], torch.ones(1, int(keep.sum()), dtype=torch.bool))
        for row, keep in zip(states, present, strict=True)
    ]
    for name, value in block.items():
        assert value == pytest.approx(np.mean([each[name] for each in alone]), abs=1e-6), name


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    # sigma^2 = 3, 1: shares 3/4 and 1/4
    expected = np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    found = geometry.effective_rank(torch.tensor([[np.sqrt(3), 1.0, 0.0]]))
    assert found.item() == pytest.approx(expected)


def test_prompts_that_collapse_have_cosine_one_between_them() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # pairs (1, 2), (1, 3), (2, 3) have cosines 0, 1, 0
    assert geometry.between(directions, "abc")["between"] == pytest.approx(1 / 3)
    # rows 1 and 3 are one prompt drawn twice: only pairs (1, 2) and (2, 3) count
    assert geometry.between(directions, "aba")["between"] == pytest.approx(0)
    assert geometry.between(directions, "aaa") == {}


def test_contrast_of_two_kinds_is_the_share_of_variance_between_them() -> None:
    # marked (1, 0), (0.6, 0.8), mean (0.8, 0.4); unmarked (0, 1), mean (0, 1); centre (1.6, 1.8) / 3
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    points = directions.numpy()
    centre, first, second = points.mean(0), np.array([0.8, 0.4]), np.array([0.0, 1.0])
    spread = 2 * ((first - centre) ** 2).sum() + ((second - centre) ** 2).sum()
    found = geometry.contrast(directions, [True, True, False])
    assert found["class_share"] == pytest.approx(spread / ((points - centre) ** 2).sum(), abs=1e-6)
    assert found["class_cosine"] == pytest.approx(0.4 / np.sqrt(0.8))
    assert geometry.contrast(directions, [False, False, True])["class_share"] == pytest.approx(found["class_share"])


@pytest.mark.parametrize("marked", [[True] * 3, [False] * 3])
def test_contrast_needs_both_kinds(marked: list[bool]) -> None:
    assert geometry.contrast(torch.eye(3), marked) == {}


def test_share_between_kinds_of_equal_prompts_is_one_by_n_minus_one_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = [
        geometry.contrast(torch.randn(9, 4, generator=generator), [True] * 4 + [False] * 5)["class_share"]
        for _ in range(400)
    ]
    assert np.mean(shares) == pytest.approx(1 / 8, abs=0.01)


def test_instance_loss_is_the_cross_entropy_against_the_identity() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    scores = np.array([[1, 0, 0.6], [0, 1, 0.8], [0.6, 0.8, 1]]) / 0.5
    expected = np.log(np.exp(scores).sum(1)) - 1 / 0.5
    np.testing.assert_allclose(geometry.instance_loss(directions, "abc", 0.5), expected, rtol=1e-6)
    assert geometry.instance_loss(directions[:1], "a", 0.5).item() == 0


def test_instance_loss_does_not_push_a_prompt_from_itself() -> None:
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # each of the first two sees itself and the third: ln(1 + e^(-1 / 0.5)); the third sees all
    expected = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(-2)), np.log(1 + 2 * np.exp(-2))]
    np.testing.assert_allclose(geometry.instance_loss(directions, "aab", 0.5), expected, rtol=1e-6)


def test_silhouette_of_four_points_by_hand() -> None:
    # on a line at 0, 1, 5, 9; labels a a b b
    points = torch.tensor([0.0, 1.0, 5.0, 9.0])
    distances = (points[:, None] - points).abs()
    # row 1: a = 1, b = (5 + 9) / 2 = 7; row 2: a = 1, b = (4 + 8) / 2 = 6
    # row 3: a = 4, b = (5 + 4) / 2 = 4.5; row 4: a = 4, b = (9 + 8) / 2 = 8.5
    expected = np.mean([6 / 7, 5 / 6, 0.5 / 4.5, 4.5 / 8.5])
    assert geometry.silhouette(distances, "aabb") == pytest.approx(expected)


def test_silhouette_takes_the_nearest_other_label_and_gives_0_to_a_row_alone() -> None:
    points = torch.tensor([0.0, 1.0, 3.0, 10.0, 12.0])
    distances = (points[:, None] - points).abs()
    # a: rows 1, 2; b: row 3, alone; c: rows 4, 5
    # row 1: a = 1, b = 3; row 2: a = 1, b = 2; row 4: a = 2, b = 7; row 5: a = 2, b = 9
    expected = np.mean([2 / 3, 1 / 2, 0, 5 / 7, 7 / 9])
    assert geometry.silhouette(distances, "aabcc") == pytest.approx(expected)


def test_silhouette_of_equal_points_is_0_and_of_wrong_labels_negative() -> None:
    assert geometry.silhouette(torch.zeros(4, 4), "aabb") == 0
    points = torch.tensor([0.0, 10.0, 0.0, 10.0])
    assert geometry.silhouette((points[:, None] - points).abs(), "aabb") < 0


def test_cosine_distance_ignores_length() -> None:
    found = geometry.cosine_distances(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [3.0, 4.0]]))
    expected = [[0, 1, 2, 0.4], [1, 0, 1, 0.2], [2, 1, 0, 1.6], [0.4, 0.2, 1.6, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_layer_with_the_largest_gap_wins_and_of_equal_ones_the_lowest() -> None:
    scores = [geometry.LayerScore(0.1, 0.6), geometry.LayerScore(0.4, 0.1), geometry.LayerScore(0.6, 0.3)]
    assert scores[1].gap == pytest.approx(0.3)
    assert geometry.best_layer(scores) == 2
    assert geometry.best_layer([*scores, geometry.LayerScore(0.5, 0.0)]) == 4
    assert geometry.best_layer([scores[0], scores[0]]) == 1


def test_probes_come_one_from_each_cluster_and_are_spared() -> None:
    made = groups(200, clusters=100)
    found = geometry.probes(made, "en", seed=3)
    assert len(found.groups) == 64
    assert len({group["en"].cluster for group in found.groups}) == 64
    assert len(found.rest) == 200 - 64
    assert not {group["en"].id for group in found.groups} & {group["en"].id for group in found.rest}
    assert geometry.probes(made, "en", seed=3) == found
    assert geometry.probes(made, "en", seed=4) != found


def test_probes_stay_in_the_training_where_too_few_others_are_left() -> None:
    made = groups(100)
    assert geometry.probes(made, "en", seed=0).rest == tuple(made)
    # 200 prompts, but only 70 of them in xa
    ragged = [
        {language: row for language, row in group.items() if language != "xa" or index < 70}
        for index, group in enumerate(groups(200))
    ]
    assert geometry.probes(ragged, "en", seed=0).rest == tuple(ragged)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_one_pass_gives_the_states_of_every_layer(tmp_path: Path, architecture: str) -> None:
    loaded = models.load(tiny.model(tmp_path, architecture, layers=3), device="cpu")
    rows = fit.encode_prompts(loaded, tiny.corpus(12).examples, 1024)  # 48, more than one batch
    for read in (hidden.last_token, hidden.mean_token):
        found = hidden.every_layer(loaded, rows, read)
        assert found.shape == (3, 48, 32)
        for layer in (1, 2, 3):
            block = hidden.pad(rows, loaded.tokenizer.pad_token_id, loaded.device)
            with torch.no_grad():
                expected = read(hidden.hidden_states(loaded.model, block, layer), block.mask)
            torch.testing.assert_close(found[layer - 1], expected, atol=1e-5, rtol=1e-5)


def test_a_layer_is_chosen_from_what_the_model_computes(tmp_path: Path) -> None:
    loaded = models.load(tiny.model(tmp_path / "start", layers=3), device="cpu")
    run = tiny.Log(folder=tmp_path / "run")
    made = groups(6)
    choice = geometry.choose_layer(loaded, made, "en", hidden.last_token, run)
    rows = [row for group in made for row in group.values()]
    states = hidden.every_layer(loaded, fit.encode_prompts(loaded, rows, 1024), hidden.last_token)
    gaps = []
    for layer in states:
        distances = geometry.cosine_distances(layer)
        meaning = geometry.silhouette(distances, [row.id for row in rows])
        gaps.append(meaning - geometry.silhouette(distances, [row.language for row in rows]))
    assert choice.layer == int(np.argmax(gaps)) + 1
    assert run.facts["layer_probes"] == 6
    assert run.facts["layer_probes_held_out"] == 0
    recorded = [
        np.array([float(value) for value in str(run.facts[f"layer_silhouettes_{by}"]).split()])
        for by in ("meaning", "language")
    ]
    np.testing.assert_allclose(recorded[0] - recorded[1], gaps, atol=2e-4)
    assert run.read == {(row.language, row.id, False) for row in rows}

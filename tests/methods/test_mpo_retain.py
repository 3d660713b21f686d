"""The retain term of MPO on a model: which states it reads, and that it holds the pivot where it was."""

import copy
from pathlib import Path

import pytest
import torch
from mlbench_methods.mpo import MPO, Pair, pooled_states

from mlbench import check, models, tiny
from mlbench.core import Checkpoint
from mlbench.training import answers, hidden

from .conftest import trained, weights
from .mpo_runs import FORMS, pivot_of

PAIRS = [
    Pair(answers.Dialogue([1, 4, 20, 2, 5], [30, 31, 2]), answers.Dialogue([1, 4, 20, 2, 5], [40, 2])),
    Pair(answers.Dialogue([1, 4, 20, 21, 2, 5], [30, 2]), answers.Dialogue([1, 4, 20, 21, 2, 5], [40, 41, 42, 43, 2])),
]


@pytest.mark.parametrize("architecture", check.ARCHITECTURES)
def test_official_states_are_those_of_a_batch_of_one_with_its_padding(architecture: str, tmp_path: Path) -> None:
    loaded = models.load(tiny.model(tmp_path, architecture), device="cpu")
    with torch.no_grad():
        found = pooled_states(loaded.model, PAIRS, 2, 0, "official")
    by_hand = (
        # 8 and 7 tokens: 8 positions, of which the second row has one of padding
        ([[1, 4, 20, 2, 5, 30, 31, 2], [1, 4, 20, 2, 5, 40, 2, 0]], [[1] * 8, [1] * 7 + [0]]),
        # 8 and 11 tokens: 16 positions
        (
            [[1, 4, 20, 21, 2, 5, 30, 2] + [0] * 8, [1, 4, 20, 21, 2, 5, 40, 41, 42, 43, 2] + [0] * 5],
            [[1] * 8 + [0] * 8, [1] * 11 + [0] * 5],
        ),
    )
    for row, (ids, mask) in enumerate(by_hand):
        with torch.no_grad():
            output = loaded.model(
                input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), output_hidden_states=True
            )
        torch.testing.assert_close(found[row], output.hidden_states[-1].mean(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_states_of_a_pair_do_not_depend_on_the_others_of_its_batch(refuser: Checkpoint, form: str) -> None:
    loaded = models.load(refuser, device="cpu")
    with torch.no_grad():
        together = pooled_states(loaded.model, PAIRS, 2, 0, form)
        for pair, expected in zip(PAIRS, together, strict=True):
            torch.testing.assert_close(pooled_states(loaded.model, [pair], 2, 0, form)[0], expected)


@pytest.mark.parametrize(("form", "read"), [("masked_mean", hidden.mean_token), ("paper", hidden.last_token)])
def test_forms_without_padding_are_the_same_with_padding_on_the_left(
    refuser: Checkpoint, form: str, read: object
) -> None:
    assert callable(read)
    loaded = models.load(refuser, device="cpu")
    rows = [[*each.prompt, *each.answer] for pair in PAIRS for each in pair]
    ids = torch.tensor([[0] * (12 - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (12 - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        left = read(hidden.hidden_states(loaded.model, hidden.Padded(ids, mask), 2), mask)
        found = pooled_states(loaded.model, PAIRS, 2, 0, form)
    torch.testing.assert_close(found.flatten(0, 1), left, atol=1e-5, rtol=1e-5)


def gradient(method: MPO, loaded: models.Loaded, folder: Path) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Return the curves and the gradient of the first step over all rows, the policy being a copy of the reference."""
    corpus = tiny.corpus()
    rows = method.targets(corpus)
    run = tiny.Log(folder=folder)
    objective = method.objective(loaded, rows, [pivot_of(corpus, row) for row in rows], run)
    policy = copy.deepcopy(loaded.model)
    terms = objective(policy, range(len(rows)), 0)
    terms.loss.backward()
    return dict(terms.values), [each.grad for each in policy.parameters()]


@pytest.mark.parametrize("form", FORMS)
def test_the_retain_term_is_exactly_zero_at_the_first_step_and_so_is_its_gradient(
    refuser: Checkpoint, tmp_path: Path, form: str
) -> None:
    loaded = models.load(refuser, device="cpu")
    values, found = gradient(MPO(retain=form, retain_weight=1e6), loaded, tmp_path)
    without, expected = gradient(MPO(retain="none"), loaded, tmp_path)
    assert values["mpo/retain_loss"] == 0
    assert "mpo/retain_loss" not in without
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_the_reference_gets_no_gradient(refuser: Checkpoint, tmp_path: Path) -> None:
    loaded = models.load(refuser, device="cpu")
    _, policy = gradient(MPO(), loaded, tmp_path)
    assert all(each.requires_grad and each.grad is None for each in loaded.model.parameters())
    assert any(each.abs().sum() > 0 for each in policy)


@pytest.mark.parametrize("form", FORMS)
def test_the_retain_term_sees_the_pivot_move_and_holds_it_back(refuser: Checkpoint, tmp_path: Path, form: str) -> None:
    free = trained(MPO(retain=form, retain_weight=0), refuser, tmp_path / "free", steps=10)
    held = trained(MPO(retain=form, retain_weight=100), refuser, tmp_path / "held", steps=10)
    assert 0 < held.curve[-1]["mpo/retain_loss"] < 0.5 * free.curve[-1]["mpo/retain_loss"]


def test_weight_zero_is_the_same_as_no_second_term(refuser: Checkpoint, tmp_path: Path) -> None:
    zero = trained(MPO(retain_weight=0), refuser, tmp_path / "zero")
    none = trained(MPO(retain="none"), refuser, tmp_path / "none")
    assert weights(zero) == weights(none)


def test_a_middle_layer_can_be_kept(refuser: Checkpoint, tmp_path: Path) -> None:
    middle = trained(MPO(retain_layer=1), refuser, tmp_path / "middle").curve[-1]
    last = trained(MPO(), refuser, tmp_path / "last").curve[-1]
    assert 0 < middle["mpo/retain_loss"] != last["mpo/retain_loss"]

"""MPO: both terms against numbers computed by hand or elsewhere, and the whole inside a training."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.mpo import MPO, Pair, gap_loss, padded_width, pooled_states, positions, retain_loss, reward_gap
from mlbench_methods.sft import SFT
from pydantic import ValidationError

from mlbench import check, models, tiny
from mlbench.core import Checkpoint, Corpus, Example, Shape
from mlbench.corpus import view
from mlbench.errors import ConfigError, DataError, UserError
from mlbench.training import answers, hidden
from mlbench.training.side import Side, Terms

torch.set_num_threads(1)

FORMS = ("masked_mean", "official", "paper")
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


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return a model that refuses in the pivot language more readily than in the others."""
    random = tiny.model(tmp_path_factory.mktemp("random"))
    run = tiny.Log(folder=tmp_path_factory.mktemp("start"), training=tiny.budget(steps=12, learning_rate=3e-3))
    return SFT(benign=False).align(random, view(tiny.corpus(), SFT(benign=False).needs), run)


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
def test_states_of_a_pair_do_not_depend_on_the_others_of_its_batch(start: Checkpoint, form: str) -> None:
    loaded = models.load(start, device="cpu")
    with torch.no_grad():
        together = pooled_states(loaded.model, PAIRS, 2, 0, form)
        for pair, expected in zip(PAIRS, together, strict=True):
            torch.testing.assert_close(pooled_states(loaded.model, [pair], 2, 0, form)[0], expected)


@pytest.mark.parametrize(("form", "read"), [("masked_mean", hidden.mean_token), ("paper", hidden.last_token)])
def test_forms_without_padding_are_the_same_with_padding_on_the_left(
    start: Checkpoint, form: str, read: object
) -> None:
    assert callable(read)
    loaded = models.load(start, device="cpu")
    rows = [[*each.prompt, *each.answer] for pair in PAIRS for each in pair]
    ids = torch.tensor([[0] * (12 - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (12 - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        left = read(hidden.hidden_states(loaded.model, hidden.Padded(ids, mask), 2), mask)
        found = pooled_states(loaded.model, PAIRS, 2, 0, form)
    torch.testing.assert_close(found.flatten(0, 1), left, atol=1e-5, rtol=1e-5)


def trained(method: MPO, start: Checkpoint, folder: Path, **changes: int | float) -> tiny.Log:
    run = tiny.Log(folder=folder, training=tiny.budget(**{"steps": 3} | changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


def weights(run: tiny.Log) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]


def pivot_of(corpus: Corpus, row: Example) -> Example:
    return next(each for each in corpus.rows(corpus.pivot) if each.id == row.id)


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
    start: Checkpoint, tmp_path: Path, form: str
) -> None:
    loaded = models.load(start, device="cpu")
    values, found = gradient(MPO(retain=form, retain_weight=1e6), loaded, tmp_path)
    without, expected = gradient(MPO(retain="none"), loaded, tmp_path)
    assert values["mpo/retain_loss"] == 0
    assert "mpo/retain_loss" not in without
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_the_reference_gets_no_gradient(start: Checkpoint, tmp_path: Path) -> None:
    loaded = models.load(start, device="cpu")
    _, policy = gradient(MPO(), loaded, tmp_path)
    assert all(each.requires_grad and each.grad is None for each in loaded.model.parameters())
    assert any(each.abs().sum() > 0 for each in policy)


@pytest.mark.parametrize("form", FORMS)
def test_the_retain_term_sees_the_pivot_move_and_holds_it_back(start: Checkpoint, tmp_path: Path, form: str) -> None:
    free = trained(MPO(retain=form, retain_weight=0), start, tmp_path / "free", steps=10)
    held = trained(MPO(retain=form, retain_weight=100), start, tmp_path / "held", steps=10)
    assert 0 < held.curve[-1]["mpo/retain_loss"] < 0.5 * free.curve[-1]["mpo/retain_loss"]


def test_weight_zero_is_the_same_as_no_second_term(start: Checkpoint, tmp_path: Path) -> None:
    zero = trained(MPO(retain_weight=0), start, tmp_path / "zero")
    none = trained(MPO(retain="none"), start, tmp_path / "none")
    assert weights(zero) == weights(none)


@pytest.mark.parametrize("length_normalised", [True, False])
def test_the_first_logged_loss_is_that_of_the_start_models_answers(
    start: Checkpoint, tmp_path: Path, length_normalised: bool
) -> None:
    # 18 rows (6 prompts in 3 target languages), all of them in the first step, so that their order is no matter.
    method = MPO(beta=1.5, length_normalised=length_normalised, benign=True)
    run = trained(method, start, tmp_path, batch_size=18)
    loaded = models.load(start, device="cpu")
    corpus = tiny.corpus()

    def gap(row: Example) -> float:
        scores = []
        for text in (row.chosen, row.rejected):
            found = answers.frozen_log_probs(loaded, answers.encode(loaded, [row], [text or ""], 100))
            scores.append((found.sums / (found.tokens if length_normalised else 1)).item())
        return scores[0] - scores[1]

    rows = [row for row in corpus.examples if row.language != "en"]
    target = np.array([gap(row) for row in rows])
    pivot = np.array([gap(pivot_of(corpus, row)) for row in rows])
    first = run.curve[0]
    assert len(rows) == 18
    assert first["mpo/target_gap"] == pytest.approx(target.mean(), rel=1e-4)
    assert first["mpo/pivot_gap"] == pytest.approx(pivot.mean(), rel=1e-4)
    assert first["mpo/gap_loss"] == pytest.approx(((1.5 * target - pivot) ** 2).mean(), rel=1e-4)
    assert first["loss"] == pytest.approx(first["mpo/gap_loss"], rel=1e-6)
    assert run.facts["pivot_gap"] == pytest.approx(pivot.mean(), rel=1e-4)  # each pivot row has three targets
    assert 0 < run.facts["pivot_gap_negative"] < 1
    assert run.facts["pivot_gap_negative"] == pytest.approx((pivot <= 0).mean())


def test_lora_starts_from_the_same_losses_as_full_fine_tuning(start: Checkpoint, tmp_path: Path) -> None:
    full = trained(MPO(), start, tmp_path / "full").curve[0]
    lora = trained(MPO(), start, tmp_path / "lora", lora_rank=4).curve[0]
    for name in ("loss", "mpo/target_gap", "mpo/pivot_gap", "mpo/gap_loss"):
        assert lora[name] == pytest.approx(full[name], abs=1e-6), name
    assert lora["mpo/retain_loss"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_micro_batches_change_nothing(start: Checkpoint, tmp_path: Path, form: str) -> None:
    whole = trained(MPO(retain=form), start, tmp_path / "whole", micro_batch=4).curve
    parts = trained(MPO(retain=form), start, tmp_path / "parts", micro_batch=1).curve
    assert whole[-1]["mpo/retain_loss"] > 0
    for one, other in zip(whole, parts, strict=True):
        for name in ("loss", "grad_norm", "mpo/target_gap", "mpo/pivot_gap", "mpo/gap_loss", "mpo/retain_loss"):
            assert one[name] == pytest.approx(other[name], abs=2e-5), name


@pytest.mark.parametrize("form", FORMS)
def test_one_seed_writes_the_same_tensors(start: Checkpoint, tmp_path: Path, form: str) -> None:
    first, second = (trained(MPO(retain=form), start, tmp_path / name) for name in ("first", "second"))
    assert weights(first) == weights(second)
    assert first.curve == second.curve


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_training_brings_the_targets_gap_to_the_pivots(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    run = trained(MPO(), start, tmp_path, steps=30, batch_size=9, lora_rank=lora_rank)
    first, last = run.curve[0], run.curve[-1]
    assert first["mpo/target_gap"] < last["mpo/target_gap"]
    assert last["mpo/gap_loss"] < 0.02 * first["mpo/gap_loss"]
    assert last["loss"] == pytest.approx(last["mpo/gap_loss"] + last["mpo/retain_loss"], abs=1e-4)


def test_only_harmful_answers_are_read_unless_benign_ones_are_asked_for(start: Checkpoint, tmp_path: Path) -> None:
    harmful, every = {"p0", "p2", "p4"}, {f"p{index}" for index in range(6)}
    for benign, ids in ((False, harmful), (True, every)):
        run = trained(MPO(benign=benign), start, tmp_path / str(benign), batch_size=18)
        assert run.read == {(language, id, True) for language in tiny.LANGUAGES for id in ids}


def test_named_languages_are_the_only_targets(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MPO(languages=("xc",)), start, tmp_path)
    assert {language for language, _, _ in run.read} == {"en", "xc"}


def test_another_loss_can_be_added(start: Checkpoint, tmp_path: Path) -> None:
    def size(model: torch.nn.Module, items: Sequence[int]) -> Terms:
        return Terms(model.get_input_embeddings().weight.square().sum(), {}, 0)

    method, run = MPO(), tiny.Log(folder=tmp_path / "both", training=tiny.budget())
    side = Side(name="size", weight=0.5, items=lambda step: [0], loss=size)
    method.align(start, view(tiny.corpus(), method.needs), run, side=lambda loaded: side)
    alone = trained(method, start, tmp_path / "alone").curve[0]
    first = run.curve[0]
    assert first["size/loss"] > 0.1
    assert first["mpo/gap_loss"] == pytest.approx(alone["mpo/gap_loss"], abs=1e-6)
    assert first["loss"] == pytest.approx(alone["loss"] + 0.5 * first["size/loss"], abs=1e-5)


def without(corpus: Corpus, language: str, *ids: str, answers_only: bool = False) -> Corpus:
    gone = [row for row in corpus.examples if row.language == language and row.id in ids]
    kept = {row: replace(row, chosen=None, rejected=None) for row in gone} if answers_only else {}
    rows = [kept.get(row, row) for row in corpus.examples if row not in gone or row in kept]
    return replace(corpus, examples=tuple(rows))


@pytest.mark.parametrize("answers_only", [False, True])
def test_a_row_needs_answers_on_both_sides(answers_only: bool) -> None:
    corpus = without(tiny.corpus(), "en", "p0", answers_only=answers_only)
    corpus = without(corpus, "xa", "p2", answers_only=answers_only)
    found = {(row.language, row.id) for row in MPO().targets(corpus)}
    assert found == {("xa", "p4"), ("xb", "p2"), ("xb", "p4"), ("xc", "p2"), ("xc", "p4")}


def test_a_language_without_pairs_is_named_while_the_shootout_is_planned() -> None:
    corpus = without(tiny.corpus(), "xb", "p0", "p2", "p4")
    with pytest.raises(DataError, match="no prompt has chosen and rejected answers both in 'xb' and in 'en'"):
        MPO().check(corpus, None)
    MPO(languages=("xa", "xc")).check(corpus, None)
    MPO(benign=True).check(corpus, None)  # its harmless rows are left


@pytest.mark.parametrize(("language", "reason"), [("xd", "is not in the training corpus"), ("en", "is the pivot")])
def test_a_language_that_is_no_target_is_refused_with_those_that_are(language: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{language}' {reason}\n  allowed: xa, xb, xc"):
        MPO(languages=("xa", language)).check(tiny.corpus(), None)


def test_a_corpus_of_the_pivot_alone_is_refused() -> None:
    with pytest.raises(DataError, match="no target language besides the pivot 'en'"):
        MPO().check(tiny.corpus(languages=("en",)), None)


def test_a_layer_beyond_the_model_is_refused_before_and_at_the_training(start: Checkpoint, tmp_path: Path) -> None:
    shape = Shape(layers=2, hidden=32, feed_forward=64)
    for layer in ("last", 2, 0.5):
        MPO(retain_layer=layer).check(tiny.corpus(), shape)
    MPO(retain_layer=3).check(tiny.corpus(), None)
    with pytest.raises(ConfigError, match="retain_layer = 3 is beyond the model, which has 2 layers"):
        MPO(retain_layer=3).check(tiny.corpus(), shape)
    with pytest.raises(UserError, match="layer 3 is not a layer of this model, which has 2"):
        trained(MPO(retain_layer=3), start, tmp_path)


def test_a_middle_layer_can_be_kept(start: Checkpoint, tmp_path: Path) -> None:
    middle = trained(MPO(retain_layer=1), start, tmp_path / "middle").curve[-1]
    last = trained(MPO(), start, tmp_path / "last").curve[-1]
    assert 0 < middle["mpo/retain_loss"] != last["mpo/retain_loss"]


@pytest.mark.parametrize("name", sorted(MPO.presets))
def test_presets_are_valid(name: str) -> None:
    preset = MPO.presets[name]
    MPO(**preset.fields)
    tiny.budget(**preset.training)


def test_the_released_budget_reads_600_rows_twice() -> None:
    for name, beta in (("llama3.1", 1.0), ("gemma2", 1.5), ("qwen2.5", 1.5)):
        preset = MPO.presets[name]
        assert preset.fields == {"beta": beta, "retain": "official"}
        assert preset.training["steps"] * preset.training["batch_size"] == 2 * 600


@pytest.mark.parametrize("fields", [{"beta": 0}, {"retain": "mean"}, {"retain_layer": 0}, {"betta": 1.0}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MPO(**fields)

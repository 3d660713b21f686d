"""Activations of MLPs: hooks against a pass by hand, pooling without padding, sums without rows, fair draws."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlbench import models, tiny
from mlbench.core import Corpus
from mlbench.errors import DataError
from mlbench.training.activations import Gram, Group, Moments, Wanted, draw, mlp, pool, summarise

torch.set_num_threads(1)

PROMPTS = [[1, 9, 8, 7, 6, 5, 4], [1, 20], [1, 30, 31, 32], [1, 9, 8]]


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> models.Loaded:
    folder = tmp_path_factory.mktemp(request.param)
    return models.load(tiny.model(folder, request.param), device="cpu")


def by_hand(loaded: models.Loaded, prompt: list[int], layer: int) -> dict[str, torch.Tensor]:
    """Return one prompt's MLP values, alone and without padding."""
    found: list[torch.Tensor] = []
    block = mlp(loaded.model, layer)
    handle = block.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][0]))
    with torch.no_grad():
        loaded.model(input_ids=torch.tensor([prompt]))
        handle.remove()
        gate, up = found[0] @ block.gate_proj.weight.T, found[0] @ block.up_proj.weight.T
        return {"inputs": found[0], "gate": gate, "up": up, "product": block.act_fn(gate) * up}


def grams(loaded: models.Loaded) -> dict[int, Gram]:
    return {layer: Gram.zero(32, loaded.device) for layer in (1, 2)}


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("how", ["last", "mean", "max"])
def test_summaries_are_those_of_each_prompt_alone(loaded: models.Loaded, how: str, batch_size: int) -> None:
    wanted = Wanted(
        pool="mean" if how == "mean" else "last", signals=("gate", "up", "product"), signal_pool=how, tokens="all"
    )
    sums = grams(loaded)
    found = summarise(loaded, PROMPTS, (1, 2), wanted, sums, batch_size=batch_size)
    reduce = {"last": lambda rows: rows[-1], "mean": lambda rows: rows.mean(0), "max": lambda rows: rows.amax(0)}
    for layer in (1, 2):
        alone = [by_hand(loaded, prompt, layer) for prompt in PROMPTS]
        inputs = torch.stack([reduce["mean" if how == "mean" else "last"](each["inputs"]) for each in alone])
        torch.testing.assert_close(found[layer].inputs, inputs, atol=1e-5, rtol=0)
        for signal, moments in found[layer].moments.items():
            rows = torch.stack([reduce[how](each[signal]) for each in alone]).double()
            torch.testing.assert_close(moments.mean, rows.mean(0), atol=1e-5, rtol=0)
            torch.testing.assert_close(moments.deviation, rows.var(0) * 3, atol=1e-5, rtol=1e-3)
        every = torch.cat([each["inputs"] for each in alone]).double()
        torch.testing.assert_close(sums[layer].matrix, every.T @ every, atol=1e-4, rtol=1e-5)
        assert sums[layer].rows == 16  # 7 + 2 + 4 + 3 tokens, no padding


def test_the_second_moment_may_be_of_last_tokens_or_of_none(loaded: models.Loaded) -> None:
    sums = grams(loaded)
    summarise(loaded, PROMPTS, (2,), Wanted(tokens="none"), sums)
    assert sums[2].rows == 0 and sums[2].matrix.abs().max() == 0
    found = summarise(loaded, PROMPTS, (2,), Wanted(tokens="last"), sums)
    last = found[2].inputs.double()
    torch.testing.assert_close(sums[2].matrix, last.T @ last)
    assert sums[2].rows == 4


def test_hooks_are_gone_afterwards(loaded: models.Loaded) -> None:
    summarise(loaded, PROMPTS, (1,), Wanted(), grams(loaded))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.model.modules())


@pytest.mark.parametrize("how", ["last", "mean", "max"])
def test_padding_on_either_side_changes_no_pooled_vector(how: str) -> None:
    values = torch.tensor([[-3.0, 1.0], [-1.0, -2.0]])
    junk = torch.full((3, 2), 99.0)
    expected = {"last": [-1.0, -2.0], "mean": [-2.0, -0.5], "max": [-1.0, 1.0]}[how]
    for rows, mask in (((values, junk), [1, 1, 0, 0, 0]), ((junk, values), [0, 0, 0, 1, 1])):
        found = pool(torch.cat(rows)[None], torch.tensor([mask]), how)
        assert found.tolist() == [expected]


def test_sums_over_batches_equal_those_over_all_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 6)) + 100.0
    gram, moments = Gram.zero(6, torch.device("cpu")), Moments()
    for part in np.array_split(rows, 7):
        gram.add(torch.from_numpy(part))
        moments.add(torch.from_numpy(part))
    np.testing.assert_allclose(gram.matrix, rows.T @ rows, rtol=1e-13)
    np.testing.assert_allclose(moments.deviation, rows.var(0) * 50, rtol=1e-9)
    weight = np.random.default_rng(1).standard_normal((6, 3))
    assert gram.norm(torch.from_numpy(weight)) == pytest.approx(np.linalg.norm(rows @ weight), rel=1e-12)


def test_an_mlp_without_a_gate_is_refused(tmp_path: Path) -> None:
    loaded = models.load(tiny.model(tmp_path), device="cpu")
    loaded.model.model.layers[0].mlp = torch.nn.Linear(32, 32)
    with pytest.raises(DataError, match="layer 1 of LlamaModel has no MLP with gate_proj"):
        mlp(loaded.model, 1)


def test_a_draw_pairs_prompts_with_the_pivot_and_keeps_near_duplicates_together() -> None:
    rows = tiny.corpus(40).examples
    # p0 and p2, p4 and p6, ... are near-duplicates of each other; xa lacks half of its translations.
    rows = tuple(
        type(row)(**{**vars(row), "cluster": f"c{int(row.id[1:]) // 4}-{row.harmful}"})
        for row in rows
        if row.language != "xa" or int(row.id[1:]) < 20
    )
    sample = draw(Corpus(pivot="en", languages=tiny.LANGUAGES, examples=rows), 8, 5, held_out=0.25, seed=3)
    for harmful in (True, False):
        clusters = {
            held: {row.cluster for group, own in sample.items() if group[1:] == (harmful, held) for row in own}
            for held in (False, True)
        }
        assert clusters[True] and clusters[False] and not clusters[True] & clusters[False]
    assert len(sample[Group("xb", True, False)]) == 6 and len(sample[Group("xb", True, True)]) == 2
    assert len(sample[Group("xb", False, False)]) == 4 and len(sample[Group("xb", False, True)]) == 1
    for held in (False, True):
        pivot = {row.id for row in sample[Group("en", True, held)]}
        assert pivot == {
            row.id
            for group, own in sample.items()
            if group.harmful and group.held == held and group.language != "en"
            for row in own
        }
    assert all(
        row.language == group.language and row.harmful == group.harmful for group, own in sample.items() for row in own
    )


def test_a_draw_that_would_leave_a_language_nothing_to_fit_is_refused() -> None:
    rows = tuple(row for row in tiny.corpus(40).examples if row.language != "xa" or row.id in ("p0", "p1"))
    corpus = Corpus(pivot="en", languages=tiny.LANGUAGES, examples=rows)
    outcomes = set()
    for seed in range(10):
        try:
            draw(corpus, 99, 99, held_out=0.5, seed=seed)
            outcomes.add("drawn")
        except DataError as error:
            outcomes.add(str(error))
    assert outcomes == {
        "drawn",
        "all 1 harmful prompts in 'xa' are held out; add some",
        "all 1 benign prompts in 'xa' are held out; add some",
    }

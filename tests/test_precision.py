"""Number formats and memory savers change results by rounding only: bfloat16, micro-batches, recomputation, padding."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mlbench import models, tiny, training
from mlbench.core import Checkpoint, Example
from mlbench.corpus import preferences
from mlbench.training import answers, fit
from mlbench.training.side import Side, Terms

torch.set_num_threads(1)

ROWS = preferences(tiny.corpus(8), "all", benign=True, rejected=True)
Train = Callable[..., Checkpoint]


def gap(loaded: models.Loaded, rows: Sequence[Example]) -> Callable[[nn.Module, Sequence[int], int], Terms]:
    """Return an objective over pairs: the squared distance of the mean log-probability gap from one."""
    pairs = [
        answers.encode(loaded, rows, [str(getattr(row, side)) for row in rows], 256) for side in ("chosen", "rejected")
    ]
    pad = loaded.tokenizer.pad_token_id

    def loss(model: nn.Module, numbers: Sequence[int], step: int) -> Terms:
        chosen, rejected = (
            answers.log_probs(model, [dialogues[number] for number in numbers], pad) for dialogues in pairs
        )
        found = chosen.means - rejected.means
        return Terms((found - 1).square().mean(), {"gap/mean": found.mean().item()}, int(chosen.tokens.sum()))

    return loss


def objective(start: Checkpoint, rows: Sequence[Example], run: tiny.Log) -> Checkpoint:
    return training.train(start, rows, run, gap, answers=True)


ALL = [training.sft, training.dpo, objective]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def half(start: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return the start model as it would be published: saved in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    loaded = models.load(start, device="cpu")
    loaded.model.to(torch.bfloat16).save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return Checkpoint(base=str(folder), dtype="bfloat16")


def trained(train: Train, start: Checkpoint, folder: Path, **changes: int | float | str) -> tuple[tiny.Log, Checkpoint]:
    run = tiny.Log(folder=folder, training=tiny.budget(**changes))
    return run, train(start, ROWS, run)


def assert_close(one: tiny.Log, other: tiny.Log, within: float) -> None:
    for mine, theirs in zip(one.curve, other.curve, strict=True):
        assert mine == pytest.approx(theirs, abs=within)


def formats(file: Path) -> set[str]:
    return {str(weight.dtype) for weight in load_file(file).values()}


@pytest.mark.parametrize("train", ALL)
def test_a_bfloat16_checkpoint_trains_in_float32_and_is_saved_as_it_came(
    start: Checkpoint, half: Checkpoint, tmp_path: Path, train: Train
) -> None:
    run, result = trained(train, half, tmp_path / "half")
    twin_run, twin = trained(train, replace(half, dtype="float32"), tmp_path / "twin")
    assert run.curve == twin_run.curve
    assert result.dtype == "bfloat16"
    assert formats(Path(result.base) / "model.safetensors") == {"torch.bfloat16"}
    assert formats(Path(twin.base) / "model.safetensors") == {"torch.float32"}
    rounded = models.load(result, device="cpu").model.state_dict()
    for name, weight in models.load(twin, device="cpu").model.state_dict().items():
        assert rounded[name].dtype == torch.bfloat16
        torch.testing.assert_close(rounded[name], weight.to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("train", ALL)
def test_an_adapter_on_a_bfloat16_checkpoint_is_float32_and_merges_into_bfloat16(
    half: Checkpoint, tmp_path: Path, train: Train
) -> None:
    run, result = trained(train, half, tmp_path, lora_rank=4, steps=4, learning_rate=1e-2)
    assert run.curve[-1]["loss"] < run.curve[0]["loss"]
    assert (result.base, result.dtype) == (half.base, "bfloat16")
    assert formats(Path(result.adapters[0]) / "adapter_model.safetensors") == {"torch.float32"}
    with fit.quiet():
        merged = models.load(result, device="cpu").model
    assert {weight.dtype for weight in merged.parameters()} == {torch.bfloat16}
    before = models.load(half, device="cpu").model.state_dict()
    assert any((weight != before[name]).any() for name, weight in merged.state_dict().items())


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("train", [training.sft, objective])
def test_gradient_checkpointing_changes_nothing(
    start: Checkpoint, tmp_path: Path, train: Train, lora_rank: int
) -> None:
    plain, _ = trained(train, start, tmp_path / "plain", lora_rank=lora_rank)
    saving = tiny.Log(folder=tmp_path / "saving", training=replace(plain.training, gradient_checkpointing=True))
    train(start, ROWS, saving)
    assert_close(saving, plain, within=1e-6)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_four_micro_batches_of_two_equal_one_batch_of_eight_under_an_objective(
    start: Checkpoint, tmp_path: Path, lora_rank: int
) -> None:
    whole, _ = trained(objective, start, tmp_path / "whole", batch_size=8, lora_rank=lora_rank)
    parts, _ = trained(objective, start, tmp_path / "parts", batch_size=8, micro_batch=2, lora_rank=lora_rank)
    assert_close(parts, whole, within=1e-5)
    assert parts.facts["tokens"] == whole.facts["tokens"]


@pytest.mark.parametrize("train", ALL)
def test_the_padding_side_of_a_tokenizer_does_not_matter(start: Checkpoint, tmp_path: Path, train: Train) -> None:
    runs = []
    for side in ("left", "right"):
        folder = tmp_path / side
        tiny.model(folder)
        words = tiny.tokenizer()
        words.padding_side = side
        words.save_pretrained(folder)
        assert f'"padding_side": "{side}"' in (folder / "tokenizer_config.json").read_text()
        runs.append(trained(train, Checkpoint(base=str(folder)), tmp_path / f"{side}-run")[0])
    assert runs[0].curve == runs[1].curve


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_gradients_of_a_trained_projection_do_not_add_up_over_steps(
    start: Checkpoint, tmp_path: Path, micro_batch: int
) -> None:
    projection = nn.Linear(1, 1, bias=False)
    left_over: list[float] = []
    fed: list[int] = []

    def pull(model: nn.Module, items: Sequence[int]) -> Terms:
        if len(fed) % 2 == 0:  # a step has two items
            gradient = projection.weight.grad
            left_over.append(0.0 if gradient is None else gradient.abs().item())
        fed.extend(items)
        return Terms(projection(torch.ones(len(items), 1)).mean(), {}, 0)

    side = Side(
        name="pull", weight=1.0, items=lambda step: [1, 1], loss=pull, extra=projection, extra_learning_rate=1e-3
    )
    run = tiny.Log(folder=tmp_path, training=tiny.budget(micro_batch=micro_batch))
    training.sft(start, ROWS, run, side=lambda loaded: side)
    assert left_over == [0.0, 0.0]  # two steps, each from nothing

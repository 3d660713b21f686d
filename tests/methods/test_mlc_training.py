"""The penalty of MLC inside a training: what is logged, what it achieves, what leaves it alone."""

from pathlib import Path

import pytest
import torch
from mlbench_methods.mlc import MLC

from mlbench import models, plugins, tiny
from mlbench.core import Checkpoint, Example
from mlbench.corpus import view

from .conftest import trained


def test_the_penalty_is_logged_on_its_steps_and_added_to_the_loss(start: Checkpoint, tmp_path: Path) -> None:
    plain = trained(plugins.load("method", "dpo")(), start, tmp_path / "plain").curve
    curve = trained(MLC(weight=0.5), start, tmp_path / "mlc").curve
    assert ["mlc/loss" in step for step in curve] == [True, False, True]
    assert curve[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.5 * curve[0]["mlc/loss"], abs=1e-6)
    spread = {"mlc/cosine", "mlc/top_share", "mlc/effective_rank"}
    apart = {"mlc/between", "mlc/class_cosine", "mlc/class_share"}
    assert spread | apart | {"mlc/normalised"} <= set(curve[0])


def test_harmful_and_harmless_prompts_are_compared_only_where_a_batch_has_both(
    start: Checkpoint, tmp_path: Path
) -> None:
    curve = trained(MLC(benign=False, every=1), start, tmp_path / "harmful").curve
    assert all("mlc/between" in step and "mlc/class_share" not in step for step in curve)
    # In micro-batches of one prompt nothing can be compared; the mean over translations is as before.
    whole = trained(MLC(every=1), start, tmp_path / "whole", steps=1).curve
    single = trained(MLC(every=1), start, tmp_path / "single", steps=1, micro_batch=1).curve
    assert not {"mlc/between", "mlc/class_share"} & set(single[0])
    assert single[0]["mlc/cosine"] == pytest.approx(whole[0]["mlc/cosine"], abs=1e-5)


def test_a_curve_that_some_micro_batches_lack_is_the_mean_over_the_others(start: Checkpoint, tmp_path: Path) -> None:
    method = MLC(every=1, projection="none")
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=6, batch_size=4, micro_batch=2))
    method.align(start, view(tiny.corpus(), method.needs), run)
    corpus = tiny.corpus()
    lacking = 0
    for batch, step in zip(method.batches(method.groups(corpus), "en", run), run.curve, strict=True):
        mixed = [part[0][0].harmful != part[1][0].harmful for part in (batch[0::2], batch[1::2])]
        assert ("mlc/class_cosine" in step) == any(mixed)
        lacking += any(mixed) and not all(mixed)
        if any(mixed):
            # prompts of the random model are alike: a mean over parts is close to 1, a sum over one of two to 0.5
            assert step["mlc/class_cosine"] > 0.8
    assert lacking


@pytest.mark.parametrize(
    "method",
    [
        MLC(layer=1, every=1),
        MLC(layer=0.5, projection="none", scale="none", every=1),
        MLC(token="mean", projection="random", pivot_stop_gradient=True, every=1),
        MLC(projection="trained", projection_learning_rate=1e-3, languages_per_step=1, normalise=True, every=1),
        MLC(form="cosine", layer="auto", projection="none", every=1),
        MLC(separation_weight=0.1, projection="none", every=1),
    ],
    ids=lambda method: f"{method.form}, layer {method.layer}, {method.token}, {method.projection}",
)
def test_every_option_brings_translations_together(method: MLC, start: Checkpoint, tmp_path: Path) -> None:
    curve = trained(method, start, tmp_path, steps=15, learning_rate=3e-3).curve
    assert curve[-1]["mlc/loss"] < curve[0]["mlc/loss"]
    assert curve[-1]["mlc/cosine"] > curve[0]["mlc/cosine"]


@pytest.mark.parametrize("base", ["dpo", "sft", "simpo"])
def test_micro_batches_change_nothing(start: Checkpoint, tmp_path: Path, base: str) -> None:
    whole = trained(MLC(base=base, every=1), start, tmp_path / "whole", steps=2, batch_size=16).curve
    parts = trained(MLC(base=base, every=1), start, tmp_path / "parts", steps=2, batch_size=16, micro_batch=4).curve
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

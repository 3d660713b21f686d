"""The edit of SWE inside a model: what is written, what it changes, how far it may go."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.sft import SFT
from mlbench_methods.swe import SWE
from safetensors.torch import load_file

from mlbench import models, tiny
from mlbench.core import Checkpoint
from mlbench.corpus import view
from mlbench.errors import JobError
from mlbench.training.edit import RowEdit, save

from .swe_runs import edited, result


def test_the_adapter_is_the_edit_and_all_other_rows_stay_bit_identical(start: Checkpoint, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(4)
    units = torch.tensor([3, 17, 40])
    left, right = (torch.randn(size, 2, generator=draw, dtype=torch.float64) for size in (32, 3))
    edit = RowEdit(module="model.layers.1.mlp.up_proj", units=units, left=left, right=right)
    run = tiny.Log(folder=tmp_path)
    merged = models.load(save(start, [edit], 5, run), device="cpu").model.state_dict()
    before = models.load(start, device="cpu").model.state_dict()
    assert [name for name in before if not torch.equal(before[name], merged[name])] == [f"{edit.module}.weight"]
    changed = (before[f"{edit.module}.weight"] != merged[f"{edit.module}.weight"]).any(1)
    assert changed.nonzero()[:, 0].tolist() == [3, 17, 40]
    exact = np.einsum("mr,dr->md", right, left)
    np.testing.assert_allclose(edit.delta, exact, atol=1e-12)
    applied = merged[f"{edit.module}.weight"][units] - before[f"{edit.module}.weight"][units]
    np.testing.assert_allclose(applied, exact, atol=1e-6 * np.abs(exact).max())
    size = np.sqrt((exact**2).sum() / sum(float(weight.double().square().sum()) for weight in before.values()))
    assert run.facts["weight_change"] == pytest.approx(size, rel=1e-5)
    assert run.facts["trainable_parameters"] == 5 * (3 + 32)
    assert "rounding_loss" not in run.facts


def test_what_bfloat16_rounds_away_is_measured(start: Checkpoint, tmp_path: Path) -> None:
    half = replace(start, dtype="bfloat16")
    run = edited(SWE(layer=1, rank=4), half, tmp_path)
    (table,) = json.loads(str(run.facts["swe_layers"]))
    before = models.load(half, device="cpu").model.state_dict()
    after = models.load(result(run, half), device="cpu").model.state_dict()
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    lost = wanted = 0.0
    for name in ("gate_proj", "up_proj"):
        place = f"model.layers.0.mlp.{name}"
        down, up = (stored[f"base_model.model.{place}.lora_{side}.weight"].double() for side in "AB")
        applied = after[f"{place}.weight"].double() - before[f"{place}.weight"].double()
        lost += float((applied - up @ down).square().sum())
        wanted += float((up @ down).square().sum())
    assert table["gate_proj"] + table["up_proj"] > 0
    assert 0 < (lost / wanted) ** 0.5 == pytest.approx(run.facts["rounding_loss"], rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma2"])
def test_the_edit_brings_the_others_to_the_pivot(architecture: str, tmp_path: Path) -> None:
    start = tiny.model(tmp_path / "model", architecture)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "model").iterdir()}
    run = edited(SWE(rank=8, max_benign_change=0.5), start, tmp_path / "run", tiny.corpus(20))
    assert float(run.facts["swe_gap_closed"]) > 0.2
    assert 0 < float(run.facts["swe_benign_change"]) <= 0.5
    assert 0 < float(run.facts["swe_relative_update"]) <= 0.5
    assert float(run.facts["weight_change"]) > 0
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    old, new = (models.load(each, device="cpu").model.state_dict() for each in (start, result(run, start)))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    layer = int(str(run.facts["swe_layer"])) - 1
    assert changed <= {f"model.layers.{layer}.mlp.{name}_proj.weight" for name in ("gate", "up")}
    rows = sum(int((old[name] != new[name]).any(1).sum()) for name in changed)
    assert rows == run.facts["swe_neurons"]


def test_facts_are_what_the_merged_model_shows(start: Checkpoint, tmp_path: Path) -> None:
    """The gap closed, from forward passes of the two models rather than from the solver's matrices."""
    method = SWE(layer=2, modules="up", rank=6, max_benign_change=0.5)
    run = edited(method, start, tmp_path)
    corpus = tiny.corpus(12)
    # 6 harmful source prompts, round(0.2 * 6) = 1 held out, found as the one whose gap is the recorded one.
    old, new = (models.load(each, device="cpu") for each in (start, result(run, start)))
    units = (old.model.model.layers[1].mlp.up_proj.weight != new.model.model.layers[1].mlp.up_proj.weight).any(1)

    def outputs(loaded: models.Loaded, prompt: str, language: str) -> torch.Tensor:
        ids = loaded.tokenizer(models.render(loaded, prompt, language), add_special_tokens=False, return_tensors="pt")
        found: list[torch.Tensor] = []
        hook = loaded.model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *call: found.append(call[2]))
        with torch.no_grad():
            loaded.model(**ids)
        hook.remove()
        return found[0][0, -1, units].double()

    closed = []
    for group in corpus.parallel():
        if group["en"].harmful:
            goal = outputs(old, group["en"].prompt, "en")
            others = [group[language] for language in ("xa", "xb", "xc")]
            first, last = (
                sum(float((outputs(model, row.prompt, row.language) - goal).square().sum()) for row in others)
                for model in (old, new)
            )
            closed.append(1 - last / first)
    assert min(abs(each - float(run.facts["swe_gap_closed"])) for each in closed) < 1e-4


def test_lambda_rises_until_the_edit_fits_and_a_region_that_nothing_fits_is_an_error(
    start: Checkpoint, tmp_path: Path
) -> None:
    free = SWE(layer=2, max_benign_change=100, max_relative_update=100)
    loose = edited(free, start, tmp_path / "loose").facts
    assert (loose["swe_ridge"], loose["swe_ridge_raised"]) == (0.01, 0)
    tight = edited(replace(free, max_benign_change=0.01), start, tmp_path / "tight").facts
    assert float(tight["swe_benign_change"]) <= 0.01 < float(loose["swe_benign_change"])
    assert tight["swe_ridge"] == 0.01 * 10 ** int(tight["swe_ridge_raised"]) > 0.01
    by_update = edited(replace(free, max_relative_update=0.001), start, tmp_path / "update").facts
    assert float(by_update["swe_relative_update"]) <= 0.001 < float(loose["swe_relative_update"])
    with pytest.raises(JobError, match=r"no edit stays within .* raised 8 times tenfold: .*'layer': 2"):
        edited(replace(free, max_benign_change=1e-15), start, tmp_path / "never")


def test_translations_that_read_alike_leave_nothing_to_edit(start: Checkpoint, tmp_path: Path) -> None:
    corpus = tiny.corpus(12)
    english = {row.id: row.prompt for row in corpus.rows("en")}
    same = replace(corpus, examples=tuple(replace(row, prompt=english[row.id]) for row in corpus.examples))
    assert float(edited(SWE(layer=1), start, tmp_path / "preact", same).facts["weight_change"]) < 1e-9
    literal = SWE(layer=1, target_space="literal")
    assert float(edited(literal, start, tmp_path / "literal", same).facts["weight_change"]) > 1e-5


def test_it_reads_the_model_that_the_method_before_it_made(start: Checkpoint, tmp_path: Path) -> None:
    run = tiny.Log(folder=tmp_path / "sft", training=tiny.budget(lora_rank=4, learning_rate=0.05))
    trained = SFT().align(start, view(tiny.corpus(), SFT().needs), run)
    after = edited(SWE(layer=2), trained, tmp_path / "after")
    alone = edited(SWE(layer=2), start, tmp_path / "alone")
    assert after.facts["swe_gap_closed"] != alone.facts["swe_gap_closed"]
    chain = SWE(layer=2).align(trained, view(tiny.corpus(), SWE.needs), tiny.Log(folder=tmp_path / "chain"))
    assert chain.adapters[0] == trained.adapters[0] and len(chain.adapters) == 2
    assert models.load(chain, device="cpu").checkpoint == chain

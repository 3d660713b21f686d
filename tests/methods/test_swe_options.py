"""The options of SWE: what each one changes and what changes nothing, what is refused, the presets."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlbench_methods.swe import SWE
from pydantic import ValidationError

from mlbench import tiny
from mlbench.core import Checkpoint, Corpus, Shape
from mlbench.errors import ConfigError, DataError, UserError

from .conftest import weights
from .swe_runs import edited


@pytest.mark.parametrize(
    "method",
    [
        SWE(neuron_language="union", modules="gate"),
        SWE(signal="product", neuron_pool="max", target_space="literal"),
        SWE(pool="mean", neuron_pool="mean", ridge_scale="median", layer=0.5),
        SWE(variant="hard", protected=0.7, safe_tokens="last", protect_pivot=True, layer=(2, 1)),
    ],
    ids=lambda method: f"{method.modules} {method.signal} {method.pool} {method.variant} {method.layer}",
)
def test_every_option_gives_an_edit_within_the_trust_region(method: SWE, start: Checkpoint, tmp_path: Path) -> None:
    facts = edited(method, start, tmp_path).facts
    assert float(facts["swe_benign_change"]) <= 0.1 and float(facts["swe_relative_update"]) <= 0.5
    assert float(facts["weight_change"]) > 0
    assert all(np.isfinite(value) for value in facts.values() if not isinstance(value, str))


def test_options_lead_to_different_edits(start: Checkpoint, tmp_path: Path) -> None:
    base = SWE(layer=2, rank=8, max_benign_change=1.0)
    options = [
        base,
        replace(base, pool="mean"),
        replace(base, neuron_pool="max"),
        replace(base, neuron_pool="mean"),
        replace(base, target_space="literal"),
        replace(base, variant="hard"),
        replace(base, safe_tokens="last"),
        replace(base, protect_pivot=True),
        replace(base, signal="product"),
        replace(base, ridge_scale="median"),
        replace(base, n_harm=3),
        replace(base, gamma=0.0),
    ]
    written = [weights(edited(method, start, tmp_path / str(at)))[0] for at, method in enumerate(options)]
    assert len(set(written)) == len(options)


def test_a_seed_draws_the_prompts_and_equal_seeds_give_equal_tensors(start: Checkpoint, tmp_path: Path) -> None:
    method = SWE(layer=1, n_harm=4, n_safe=4)
    runs = [edited(method, start, tmp_path / str(at), seed=seed) for at, seed in enumerate((0, 0, 1))]
    assert weights(runs[0]) == weights(runs[1])
    assert weights(runs[0]) != weights(runs[2])
    assert runs[0].read != runs[2].read
    assert {answers for _, _, answers in runs[0].read} == {False}
    per_language = {language: sum(row[0] == language for row in runs[0].read) for language in tiny.LANGUAGES}
    assert per_language == dict.fromkeys(tiny.LANGUAGES, 8)


def test_the_batch_size_is_irrelevant(start: Checkpoint, tmp_path: Path) -> None:
    facts = [
        edited(SWE(layer=1), start, tmp_path / str(size), training=tiny.budget(micro_batch=size)).facts
        for size in (1, 5, 64)
    ]
    for name in ("swe_gap_closed", "swe_benign_change", "weight_change"):
        assert facts[1][name] == pytest.approx(facts[0][name], rel=1e-4)
        assert facts[2][name] == pytest.approx(facts[0][name], rel=1e-4)


def only(corpus: Corpus, keep: Callable[[str, bool, int], bool]) -> Corpus:
    rows = (row for row in corpus.examples if keep(row.language, row.harmful, int(row.id[1:])))
    return replace(corpus, examples=tuple(rows))


def test_check_names_what_is_missing() -> None:
    corpus = tiny.corpus()
    SWE().check(corpus, Shape(layers=2, hidden=32, feed_forward=64))
    few = only(corpus, lambda language, harmful, at: language != "xb" or not harmful or at < 2)
    with pytest.raises(DataError, match="1 harmful prompts that are translations of one in 'en' in 'xb'"):
        SWE().check(few, None)
    with pytest.raises(DataError, match="0 benign prompts in 'en'"):
        SWE().check(only(corpus, lambda language, harmful, at: harmful or language != "en"), None)
    lacking = only(corpus, lambda language, harmful, at: harmful or language != "xa")
    SWE().check(lacking, None)
    with pytest.raises(DataError, match="0 benign prompts in 'xa'"):
        SWE(neuron_language="union").check(lacking, None)
    with pytest.raises(DataError, match="no training language besides the pivot 'en'"):
        SWE().check(replace(corpus, languages=("en",)), None)


def test_check_knows_the_shape_of_the_model(start: Checkpoint, tmp_path: Path) -> None:
    shape = Shape(layers=4, hidden=32, feed_forward=64)
    SWE(layer=(1, 4)).check(tiny.corpus(), shape)
    with pytest.raises(ConfigError, match="layer 5 is not a layer of this model, which has 4"):
        SWE(layer=(1, 5)).check(tiny.corpus(), shape)
    with pytest.raises(ConfigError, match="rank = 33 is larger than the width of the model, 32"):
        SWE(rank=33).check(tiny.corpus(), shape)
    with pytest.raises(UserError, match=r"layer 12 .* which has 2"):
        edited(SWE(layer=12), start, tmp_path)


@pytest.mark.parametrize(
    "fields",
    [{"ridge": 0}, {"pool": "max"}, {"layer": 0}, {"layer": 1.5}, {"layer": ()}, {"protected": 1}, {"gama": 1.0}],
)
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SWE(**fields)


def test_presets_are_valid_and_the_reported_rates_are_those_of_the_paper() -> None:
    assert {name: SWE(**preset.fields).target_space for name, preset in SWE.presets.items()} == {
        "paper": "preact",
        "literal": "literal",
        "hard": "preact",
    }
    rates = {(row["model"], row["method"]): row["value"] for row in SWE.reported}
    assert len(rates) == 28
    assert rates["Llama-3.2-1B", "none"] == 28.27 and rates["Llama-3.2-1B", "swe"] == 17.53
    assert rates["Qwen2.5-7B", "mpo+swe"] == 1.16
    assert re.search(r"eprint = \{2602\.22554\}", SWE.citation)

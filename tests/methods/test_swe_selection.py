"""Which units and layers SWE edits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.swe import SWE, select
from safetensors.torch import load_file, save_file
from statsmodels.stats.meta_analysis import effectsize_smd

from mlbench import models, tiny
from mlbench.core import Checkpoint
from mlbench.errors import JobError
from mlbench.training.activations import Moments

from .swe_runs import edited, result


def moments(rows: np.ndarray) -> Moments:
    found = Moments()
    for part in np.array_split(rows, 3):  # as batches bring them
        found.add(torch.from_numpy(part))
    return found


def test_units_are_those_of_z_scores_and_of_cohens_d() -> None:
    draw = np.random.default_rng(3).standard_normal
    harmful, benign = draw((30, 200)) * 3, draw((20, 200)) * 3
    harmful[:, 5] += 9  # a large rise: both scores
    benign[:, 6] += 9  # a fall: neither, the scores are one-sided
    harmful[:, 7], benign[:, 7] = 0.1 * harmful[:, 7] + 0.6, 0.1 * benign[:, 7]  # small and steady: d only
    harmful[:, 8], benign[:, 8] = 20 * harmful[:, 8] + 20, 20 * benign[:, 8]  # large and wild: z only
    delta = harmful.mean(0) - benign.mean(0)
    z = (delta - delta.mean()) / delta.std()
    # statsmodels gives Hedges' g = d (1 - 3 / (4 (n_h + n_b) - 9))
    both = (each for rows in (harmful, benign) for each in (rows.mean(0), rows.std(0, ddof=1), len(rows)))
    g, _ = effectsize_smd(*both)
    d = np.asarray(g) / (1 - 3 / (4 * 50 - 9))
    found = select(moments(harmful), moments(benign), tau_mag=2.0, tau_stat=1.0).numpy()
    np.testing.assert_array_equal(found, (z > 2) | (d > 1))
    assert [(z[unit] > 2, d[unit] > 1) for unit in (5, 6, 7, 8)] == [
        (True, True),
        (False, False),
        (False, True),
        (True, False),
    ]


def test_no_unit_selected_is_a_visible_edit_of_nothing(start: Checkpoint, tmp_path: Path) -> None:
    facts = edited(SWE(tau_mag=1e9, tau_stat=1e9), start, tmp_path).facts
    assert (facts["swe_neurons"], facts["weight_change"], facts["swe_gap_closed"]) == (0, 0.0, 0.0)
    assert int(facts["trainable_parameters"]) > 0  # or the report would take it for a method that does not train


def test_auto_takes_the_layer_that_closes_most_of_the_gap(start: Checkpoint, tmp_path: Path) -> None:
    facts = edited(SWE(), start, tmp_path / "auto").facts
    table = json.loads(str(facts["swe_layers"]))
    assert [line["layer"] for line in table] == [1, 2]
    best = max(table, key=lambda line: line["gap_closed"])
    assert (facts["swe_layer"], facts["swe_gap_closed"]) == (str(best["layer"]), best["gap_closed"])
    alone = edited(SWE(layer=best["layer"]), start, tmp_path / "alone").facts
    assert alone["weight_change"] == facts["weight_change"]


@pytest.mark.parametrize(("depth", "layers"), [(8, [*range(1, 9)]), (10, [4, 5, 6, 7, 8, 9]), (32, [*range(13, 30)])])
def test_auto_tries_the_middle_and_late_layers_of_deep_models(
    depth: int, layers: list[int], tmp_path: Path, start: Checkpoint
) -> None:
    loaded = models.load(start, device="cpu").model
    loaded.model.layers = torch.nn.ModuleList([loaded.model.layers[0]] * depth)
    assert SWE().rounds(loaded) == [layers]
    assert SWE(layer=(5, 3)).rounds(loaded) == [[3], [5]]
    assert SWE(layer=0.5).rounds(loaded) == [[depth // 2]]


def test_a_second_layer_is_edited_on_what_the_first_edit_leaves(start: Checkpoint, tmp_path: Path) -> None:
    wide = SWE(max_benign_change=1.0, rank=8)
    both = edited(replace(wide, layer=(1, 2)), start, tmp_path / "both")
    first = edited(replace(wide, layer=1), start, tmp_path / "first")
    then = edited(replace(wide, layer=2), result(first, start), tmp_path / "then")
    alone = edited(replace(wide, layer=2), start, tmp_path / "alone")
    lines = json.loads(str(both.facts["swe_layers"]))
    assert lines[1]["gap_closed"] == pytest.approx(then.facts["swe_gap_closed"], rel=1e-5)
    assert lines[1]["gap_closed"] != pytest.approx(alone.facts["swe_gap_closed"], rel=1e-4)
    assert both.facts["tokens"] == 2 * int(alone.facts["tokens"])
    for name, weight in models.load(result(both, start), device="cpu").model.state_dict().items():
        chained = models.load(result(then, result(first, start)), device="cpu").model.state_dict()[name]
        torch.testing.assert_close(weight, chained, atol=1e-5, rtol=0)


def test_activations_that_are_not_finite_name_layer_and_language(start: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.model(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.post_attention_layernorm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match="layer 2 are not finite for prompts in 'en'"):
        edited(SWE(), Checkpoint(base=str(folder)), tmp_path / "run")

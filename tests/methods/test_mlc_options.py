"""The layer that MLC chooses, its presets, and values it refuses."""

from pathlib import Path

import numpy as np
import pytest
from mlbench_methods.mlc import MLC
from pydantic import ValidationError

from mlbench import models, tiny
from mlbench.core import Checkpoint, Training
from mlbench.errors import UserError

from .conftest import trained, weights


def test_auto_records_the_layer_and_its_evidence(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MLC(base="sft", layer="auto"), start, tmp_path / "auto")
    silhouettes = [
        [float(value) for value in str(run.facts[f"layer_silhouettes_{by}"]).split()] for by in ("meaning", "language")
    ]
    gaps = [meaning - language for meaning, language in zip(*silhouettes, strict=True)]
    assert run.facts["mlc_layer"] == 1 + int(np.argmax(gaps))
    same = trained(MLC(base="sft", layer=int(run.facts["mlc_layer"])), start, tmp_path / "same")
    assert weights(run) == weights(same)  # six prompts are too few to hold any out


def test_probes_are_not_drawn_by_the_penalty(start: Checkpoint, tmp_path: Path) -> None:
    method = MLC(layer="auto", every=1)
    corpus = tiny.corpus(140)
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=4, batch_size=40))
    side = method.side(models.load(start, device="cpu"), method.groups(corpus), "en", run)
    assert run.facts["layer_probes_held_out"] == 64
    drawn = {prompt[0].id for step in range(4) for prompt in side.items(step)}
    assert len(drawn) == 140 - 64


def test_a_layer_beyond_the_model_is_refused_with_the_number_it_has(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer 12 .* which has 2"):
        trained(MLC(layer=12), start, tmp_path)


@pytest.mark.parametrize("name", MLC.presets)
def test_presets_are_configurations_of_the_method(name: str) -> None:
    preset = MLC.presets[name]
    MLC(**preset.fields)
    Training(**preset.training)


def test_the_released_preset_is_the_released_configuration() -> None:
    assert MLC(**MLC.presets["released"].fields) == MLC(base_with={"loss": "sigmoid", "beta": 0.1, "sft_weight": 0.0})


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"layer": 0}, {"layer": "first"}, {"weigth": 0.8}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MLC(**fields)

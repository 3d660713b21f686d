"""What a plan alone tells a reader to beware of."""

from __future__ import annotations

import pytest

from mlbench.caveats import caveats, families
from mlbench.store import Store


def plan(model="mine", source="./mine", judge="guard", fields=(), overlaps=None, selection=None):
    return {
        "models": [{"name": model, "source": source}],
        "cells": [{"model": model, "judge_key": "judge-1"}],
        "jobs": {"judge-1": {"spec": {"judge": judge, "fields": dict(fields)}}},
        "overlaps": overlaps or {},
        "selection": selection or {},
    }


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Qwen/Qwen3Guard-Gen-4B", {"Qwen"}),
        ("meta-llama/Llama-Guard-3-8B", {"Llama"}),
        ("google/shieldgemma-9b", {"Gemma"}),
        ("ToxicityPrompts/PolyGuard-Ministral", {"Mistral"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"DeepSeek", "Qwen"}),
        ("organism:small", set()),
        ("./checkpoints/run-7", set()),
    ],
)
def test_families_are_told_from_names(name, found):
    assert families(name) == found


def test_a_judge_of_the_models_own_family_is_told(tmp_path):
    fields = {"model": "qwen3guard", "source": ""}
    (found,) = caveats(plan("base", "Qwen/Qwen2.5-7B-Instruct", fields=fields), Store(tmp_path))
    assert found == "base and its judge (guard qwen3guard) are both Qwen models: a judge may favour its own family."
    assert caveats(plan("base", "google/gemma-2-9b-it", fields=fields), Store(tmp_path)) == ()


def test_prompts_that_training_and_evaluation_share_are_told(tmp_path):
    overlaps = {"mine": {"multijail": {"exact": 1, "near": 0}, "xstest": {"exact": 0}}}
    (found,) = caveats(plan(overlaps=overlaps), Store(tmp_path))
    assert found.startswith("multijail: its prompts also stand in the training corpus of mine (1 exact).")


def test_methods_without_an_admissible_trial_are_told(tmp_path):
    selection = {"fixed": ["none"], "methods": {"dpo": {"admissible": False}, "sft": {"admissible": True}}}
    fixed, missed = caveats(plan(selection=selection), Store(tmp_path))
    assert fixed == "none: settings as given, not selected."
    assert missed.startswith("dpo: no trial met the conditions")

"""The tasks on the released files, where these are on this machine: counts, languages, ids and defects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mlbench import check, plugins

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = {
    "multijail": "multijail/MultiJail.csv",
    "mlc_pku": "mlc-pku-test/pku_saferlhf_safety_test.jsonl",
    "advbench": "advbench/harmful_behaviors.csv",
    "jailbreakbench": "jailbreakbench/jailbreakbench.csv",
    "harmbench": "harmbench/harmbench_behaviors_text_test.csv",
    "xstest": "xstest/xstest_prompts.csv",
    "xstest_unsafe": "xstest/xstest_prompts.csv",
    "polyrefuse_harmful": "polyrefuse",
    "polyrefuse_harmless": "polyrefuse",
    "xsafety": "xsafety",
}
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not on this machine")


@cache
def task(name: str) -> Any:
    return plugins.load("task", name)(data=str(DATA / FILES[name]))


@pytest.mark.parametrize(
    ("name", "kind", "rows", "clusters"),
    [
        ("multijail", "safety", 10 * [315], 315),
        ("mlc_pku", "safety", 10 * [180], 176),
        ("advbench", "safety", [520], 413),
        ("jailbreakbench", "safety", [100], 100),
        ("harmbench", "safety", [159], 151),
        ("xstest", "over_refusal", [250], 250),
        ("xstest_unsafe", "safety", [200], 199),
        ("polyrefuse_harmful", "safety", 14 * [572], 548),
        ("polyrefuse_harmless", "over_refusal", 13 * [500], 500),
        # Russian is the fourth language.
        ("xsafety", "safety", [2800, 2800, 2800, 2799, *(6 * [2800])], 2779),
    ],
)
def test_a_released_file_gives_its_prompts(name: str, kind: str, rows: Sequence[int], clusters: int) -> None:
    made = task(name)
    prompts = [made.prompts(language) for language in made.languages]
    assert made.kind == kind
    assert [len(found) for found in prompts] == list(rows)
    assert len({prompt.id for found in prompts for prompt in found}) == max(rows)
    assert len({prompt.cluster for found in prompts for prompt in found}) == clusters


@pytest.mark.parametrize("name", FILES)
def test_a_released_file_passes_the_contract(name: str) -> None:
    findings = list(check.task(task(name)))
    assert [finding for finding in findings if not finding.passed or finding.skipped] == []


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("multijail", []),
        ("mlc_pku", ["ku mixes scripts: 134 Arab, 46 Latn"]),
        # Two rows of the Russian file are in Chinese, one of the Chinese file in English.
        (
            "xsafety",
            [
                "many prompts are harmless or multiple choice: a refusal list cannot score them, "
                "name a guard model as judge",
                "ru has no text for Insult-164",
                "1 of 2800 prompts in zh are not in a script of Chinese",
                "2 of 2799 prompts in ru are not in a script of Russian",
            ],
        ),
        ("polyrefuse_harmful", []),
        ("polyrefuse_harmless", []),
    ],
)
def test_defects_are_counted(name: str, notes: list[str]) -> None:
    assert [note for note in task(name).notes if "cluster" not in note] == notes


def test_near_duplicates_are_counted() -> None:
    assert task("advbench").notes == (
        "159 of 520 source prompts share a cluster with another one, mostly near-duplicates: "
        "413 clusters, the largest of 17",
    )


@pytest.mark.parametrize(("kurdish", "code", "rows"), [("sorani", "ckb", 134), ("kurmanji", "kmr", 46)])
def test_one_written_kurdish_can_be_asked_alone(kurdish: str, code: str, rows: int) -> None:
    made = plugins.load("task", "mlc_pku")(data=str(DATA / FILES["mlc_pku"]), kurdish=kurdish)
    assert "ku" not in made.languages
    assert len(made.prompts(code)) == rows
    assert {prompt.language for prompt in made.prompts(code)} == {code}
    assert made.tiers[code] == "low"


def test_the_texts_that_polyrefuse_has_twice_share_a_cluster() -> None:
    clusters: dict[str, set[str]] = {}
    for prompt in task("polyrefuse_harmful").prompts("en"):
        clusters.setdefault(prompt.text, set()).add(prompt.cluster)
    assert len(clusters) == 562
    assert all(len(found) == 1 for found in clusters.values())


def test_categories_of_xsafety_can_be_chosen_and_keep_their_ids() -> None:
    made = plugins.load("task", "xsafety")(data=str(DATA / "xsafety"), categories=("commonsense",))
    rows = made.prompts("bn")
    assert len(rows) == 200
    everything = {prompt.id: prompt.text for prompt in task("xsafety").prompts("bn")}
    assert all(everything[prompt.id] == prompt.text for prompt in rows)


def test_the_validation_split_of_harmbench_is_another_known_version() -> None:
    made = plugins.load("task", "harmbench")(data=str(DATA / "harmbench/harmbench_behaviors_text_val.csv"))
    assert len(made.prompts("en")) == 41

"""The documents of a task: their ids, clusters and languages, and groups of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlbench import models
from mlbench.errors import DataError, PluginError

from .harness import CHOICE_TASK, CHOICES, SIZE, lm_eval, mine, question, write_task


def test_translations_share_their_id_and_the_reference_is_the_hash_of_the_document(folder: Path) -> None:
    task = mine(folder)
    english, other = task.prompts("en"), task.prompts("xa")
    assert [prompt.id for prompt in english] == [prompt.id for prompt in other] == [str(n) for n in range(SIZE)]
    assert {prompt.cluster for prompt in english} == {prompt.id for prompt in english}
    assert english[3].text == question(3, "en") and other[3].text == question(3, "xa")
    assert english[0].choices == CHOICES
    assert len({prompt.reference for prompt in (*english, *other)}) == 2 * SIZE


def test_columns_can_make_ids_and_clusters(folder: Path) -> None:
    prompts = mine(folder, id=("key", "label"), cluster=("label",)).prompts("en")
    assert [prompt.id for prompt in prompts[:4]] == ["k0#0", "k1#1", "k2#2", "k3#0"]
    assert [prompt.cluster for prompt in prompts[:4]] == ["0", "1", "2", "0"]
    with pytest.raises(DataError, match=r"(?s)no column 'keys'.*allowed: question, label, key"):
        mine(folder, id=("keys",)).prompts("en")


def test_an_id_that_occurs_twice_is_told_apart_by_the_order(folder: Path) -> None:
    prompts = mine(folder, id=("label",), limit=5).prompts("en")
    assert [prompt.id for prompt in prompts] == ["0", "1", "2", "0~2", "1~2"]


def test_documents_that_are_no_translations_have_ids_of_their_own(folder: Path) -> None:
    task = mine(folder, parallel=False)
    assert task.prompts("en")[1].id == "en/1" and task.prompts("xa")[1].id == "xa/1"


def test_languages_of_different_length_are_not_paired_by_number(folder: Path) -> None:
    rows = [{"question": question(index, "xa"), "label": 0, "key": f"k{index}"} for index in range(SIZE - 1)]
    write_task(folder, "mine_xa", CHOICE_TASK, rows)
    task = mine(folder)
    task.prompts("en")
    with pytest.raises(DataError, match="12 in en, 11 in xa: documents of one number cannot be translations"):
        task.prompts("xa")


def test_a_group_of_many_languages_is_refused_by_name() -> None:
    with pytest.raises(PluginError, match=r"(?s)'belebele' is a group.*allowed: belebele_acm_Arab"):
        lm_eval(name="belebele").prompts("en")


def test_a_group_of_one_language_is_taken_apart() -> None:
    from mlbench_tasks import _harness

    names = [leaf.name for leaf in _harness.leaves("global_mmlu_bn", "", group=True)]
    parts = ("business", "humanities", "medical", "other", "stem", "social_sciences")
    assert names == [f"global_mmlu_bn_{part}" for part in parts]
    assert len(_harness.leaves("global_mmlu_full_bn", "", group=True)) == 57


def test_the_documents_of_a_group_keep_the_name_of_their_part(folder: Path, loaded: models.Loaded) -> None:
    for language in ("en", "xa"):
        for part in ("a", "b"):
            rows = [{"question": f"{language} {part}{n}", "label": n} for n in range(2)]
            write_task(folder, f"both_{language}_{part}", CHOICE_TASK, rows)
        members = f"group: both_{language}\ntask: [both_{language}_a, both_{language}_b]\n"
        (folder / f"both_{language}.yaml").write_text(members, encoding="utf-8")
    task = mine(folder, name="both_{language}")
    assert [prompt.id for prompt in task.prompts("en")] == ["a/0", "a/1", "b/0", "b/1"]
    assert [prompt.id for prompt in task.prompts("xa")] == ["a/0", "a/1", "b/0", "b/1"]
    last = task.prompts("en")[3:]
    answers = task.answer(loaded, last, max_new_tokens=4, batch_size=2)
    assert [answer.choice for answer in answers] == [answer.choice for answer in models.choose(loaded, last)]


def test_every_language_of_the_built_in_map_is_a_task_of_the_harness() -> None:
    from mlbench_tasks import _families, _harness

    names = [
        name.replace("{language}", code)
        for name, family in _families.FAMILIES.items()
        for code in family.codes.values()
    ]
    assert len(names) == 49 + 15 + 42 + 3 * 11 + 11
    assert set(names) <= set(_harness._builtin_names())

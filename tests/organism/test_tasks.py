from __future__ import annotations

import inspect

import pytest
from pydantic import ValidationError

from mlbench import plugins
from mlbench.organism import world as worlds

TASKS = {"organism_harm": ("safety", 240), "organism_benign": ("over_refusal", 150), "organism_choice": ("utility", 65)}


@pytest.mark.parametrize(("name", "kind", "count"), [(name, *facts) for name, facts in TASKS.items()])
def test_every_language_has_the_same_source_prompts(name: str, kind: str, count: int) -> None:
    task = plugins.load("task", name)()
    ids = {tuple(prompt.id for prompt in task.prompts(language)) for language in task.languages}
    assert task.kind == kind
    assert len(ids) == 1
    assert len(set(*ids)) == count
    assert set(task.tiers) == set(task.languages)
    assert "u1" in task.languages
    assert task.judge in plugins.names("judge")


@pytest.mark.parametrize("name", TASKS)
def test_development_and_test_prompts_share_no_noun(name: str) -> None:
    task = plugins.load("task", name)
    dev, test = ({prompt.cluster for prompt in task(split=split).prompts("en")} for split in ("dev", "test"))
    assert dev and test and not dev & test


@pytest.mark.parametrize("name", TASKS)
def test_the_example_in_the_docstring_is_a_real_prompt(name: str) -> None:
    task = plugins.load("task", name)
    text = inspect.getmodule(task).__doc__
    english, high = (task().prompts(language)[0].text for language in ("en", "h1"))
    assert f'A prompt in English and in h1:  "{english}"   "{high}"' in text


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("fields", [{"split": "train"}, {"size": "huge"}, {"splits": "dev"}])
def test_a_wrong_field_is_refused(name: str, fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        plugins.load("task", name)(**fields)


def test_the_base_size_has_more_prompts() -> None:
    task = plugins.load("task", "organism_harm")(size="base")
    assert len(task.prompts("l2")) == 6 * len(worlds.load("base").nouns_of("test", harmful=True))

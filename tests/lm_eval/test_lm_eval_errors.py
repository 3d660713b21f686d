"""Tasks that cannot be asked: unknown names, fields that do not fit, data that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlbench.errors import DataError, PluginError

from .harness import lm_eval, mine


def test_an_unknown_task_gives_the_nearest_names() -> None:
    with pytest.raises(PluginError, match=r"(?s)no task 'belebele_eng_Lat'.*belebele_eng_Latn"):
        lm_eval(name="belebele_eng_Lat").prompts("en")


def test_fields_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"name the languages of 'arc_{language}' in `languages`"):
        lm_eval(name="arc_{language}")
    with pytest.raises(ValueError, match="say in `parallel` whether documents"):
        lm_eval(name="arc_{language}", languages=("de", "fr"))
    with pytest.raises(ValueError, match=r"several languages but no {language}"):
        lm_eval(name="arc_de", languages=("de", "fr"), parallel=True)
    with pytest.raises(DataError, match=r"include_path '.*nowhere' is no folder"):
        mine(folder, include_path=str(folder / "nowhere")).prompts("en")


def test_a_hub_data_set_needs_a_commit() -> None:
    with pytest.raises(DataError, match=r"(?s)'facebook/belebele', which needs `revision`.*include_path"):
        lm_eval(name="belebele_{language}").prompts("bn")


def test_a_data_set_that_is_not_cached_is_named_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"(?s)cannot load the hub data set 'facebook/belebele'.*cached.*include_path"):
        lm_eval(name="belebele_{language}", revision="0" * 40).prompts("bn")


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlbench_tasks import _harness

    monkeypatch.setattr(_harness, "find_spec", lambda name: None)
    _harness._builtin_names.cache_clear()
    with pytest.raises(PluginError, match=r"pip install 'mlbench\[utility\]'"):
        lm_eval(name="belebele_{language}").prompts("bn")

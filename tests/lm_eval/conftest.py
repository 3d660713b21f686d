"""The task `mine` of the harness in two languages, and the tiny model in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlbench import models
from mlbench.core import Checkpoint

from .harness import CHOICE_TASK, SIZE, question, write_task


@pytest.fixture(autouse=True, scope="session")
def installed() -> None:
    """Skip everything in this folder where the harness is not installed."""
    pytest.importorskip("lm_eval", reason="needs the extra `utility`")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the prepared data sets of a test apart from those of the user."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the task `mine` in two languages, in the harness's own format."""
    place = tmp_path / "harness"
    place.mkdir()
    for language in ("en", "xa"):
        rows = [
            {"question": question(index, language), "label": index % 3, "key": f"k{index}"} for index in range(SIZE)
        ]
        write_task(place, f"mine_{language}", CHOICE_TASK, rows)
    return place


@pytest.fixture(scope="session")
def loaded(tiny_model: Path) -> models.Loaded:
    """Return the tiny model in memory."""
    torch.set_num_threads(1)
    return models.load(Checkpoint(base=str(tiny_model)))

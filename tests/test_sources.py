"""Where a model comes from: names that resolve, names that do not, and the hash that goes into every key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlbench import sources
from mlbench.core import Checkpoint
from mlbench.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_an_organism_resolves_without_being_built(tmp_path: Path) -> None:
    small, other = sources.resolve("organism:small"), sources.resolve("organism:small@1")
    assert small.name == "organism:small"
    assert small.revision != other.revision
    assert not (tmp_path / "cache" / "organism").exists()


def test_a_folder_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    first = sources.resolve(str(folder))
    assert (first.name, first.source) == ("model", str(folder))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert sources.resolve(str(copy)).revision == first.revision
    (copy / "chat_template.jinja").write_text("another template")
    assert sources.resolve(str(copy)).revision != first.revision


def test_a_readme_is_no_part_of_the_content(folder: Path) -> None:
    before = sources.fingerprint(folder)
    (folder / "README.md").write_text("hello")
    assert sources.fingerprint(folder) == before


def test_a_hub_id_needs_its_commit() -> None:
    found = sources.resolve("org/name", revision=COMMIT, dtype="bfloat16")
    assert (found.name, found.revision, found.dtype) == ("name", COMMIT, "bfloat16")
    for revision in ("", "main", COMMIT[:7]):
        with pytest.raises(UserError, match="needs `revision`, a commit of 40 hexadecimal digits"):
            sources.resolve("org/name", revision=revision)


@pytest.mark.parametrize("source", ["modle", "./nowhere", "/nowhere/at/all", "a/b/c", "https://x.org/a"])
def test_what_is_no_model_is_refused_with_what_would_be_one(source: str) -> None:
    with pytest.raises(UserError, match="it is neither an organism, nor a folder, nor a hub id") as caught:
        sources.resolve(source)
    assert "organism:small" in caught.value.allowed


def test_a_misspelt_folder_names_the_nearest_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UserError) as caught:
        sources.resolve("modle")
    assert caught.value.hint == "did you mean 'model'?"


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is not a Hugging Face model folder: it has no config\.json"):
        sources.resolve(str(tmp_path / "empty"))


@pytest.mark.parametrize("source", ["organism:huge", "organism:", "organism", "organism:small@x", "organism:small@-1"])
def test_an_unknown_organism_is_refused(source: str) -> None:
    with pytest.raises(UserError):
        sources.resolve(source)


def test_a_damaged_memory_of_hashes_is_forgotten(folder: Path, tmp_path: Path) -> None:
    before = sources.fingerprint(folder)
    (tmp_path / "cache" / "fingerprints.json").write_text("{half")
    assert sources.fingerprint(folder) == before


def test_fetching_a_folder_gives_a_checkpoint_of_it(folder: Path) -> None:
    model = sources.resolve(str(folder), dtype="bfloat16")
    assert sources.fetch(model) == Checkpoint(base=str(folder), dtype="bfloat16")

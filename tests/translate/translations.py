"""A corpus with gaps, the file that has them translated, and an engine that needs no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlbench import corpus as corpora
from mlbench import mt, translate
from mlbench.core import Corpus, Example, Language
from mlbench.mt import Said

SOURCE = (
    Example(id="a", cluster="a", language="en", prompt="pa", harmful=True, chosen="ca", rejected="ra"),
    Example(id="b", cluster="b", language="en", prompt="pb", harmful=False),
    Example(id="a", cluster="a", language="sw", prompt="mine", harmful=True, chosen=None, rejected="mine too"),
    Example(id="z", cluster="z", language="sw", prompt="alone", harmful=True),
)


class Marked:
    """An engine whose translation is the text with the language before it, and back again."""

    def __init__(self, odd: dict[str, str] | None = None, dies_after: int = 10**9) -> None:
        self.odd = odd or {}
        self.left = dies_after
        self.asked: list[str] = []

    def about(self) -> dict[str, str | int]:
        return {"kind": "marked", "model": "marker", "revision": "r1"}

    def check(self, wanted: Sequence[Language]) -> None:
        """Every language will do."""

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Said]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += texts
        if target == "en":
            return [Said(text.removeprefix(f"{source} "), False) for text in texts]
        return [Said(self.odd.get(text, f"{target} {text}"), False) for text in texts]


def config(folder: Path, **changes: Any) -> Path:
    """Write the corpus and the file that has it translated, and return the path of the latter."""
    corpus = Corpus(pivot="en", languages=("en", "sw"), examples=SOURCE)
    corpora.write_jsonl(corpus, folder / "pairs.jsonl")
    settings = {
        "source": str(folder / "pairs.jsonl"),
        "languages": ["sw", "it"],
        "engine": {"kind": "nllb", "model": str(folder), "batch_size": 2},
        "out": str(folder / "out.jsonl"),
    } | changes
    path = folder / "corpus.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()), encoding="utf-8")
    return path


def silent(stage: str, done: int, total: int) -> None:
    """Watch nothing."""


def run(path: Path, engine: Marked, monkeypatch: pytest.MonkeyPatch, progress: Any = silent) -> translate.Outcome:
    """Translate with this engine instead of the one that the file names."""
    monkeypatch.setattr(mt, "engine", lambda entry: engine)
    return translate.run(path, (), progress)

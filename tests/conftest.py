"""A tiny world for tests: a random model, a corpus, a task in one file, and a writer of shootouts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlbench import environment

environment.prepare()
# A suite started in the background inherits an ignored Ctrl-C, and so would the commands whose interruption is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

TASK = '''
"""A task of a few made-up requests in three languages."""

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Prompt


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Requests:
    source: ClassVar[str] = "made up"
    kind: ClassVar[Kind] = "safety"
    count: int = Field(default=4, ge=1, le=50)
    split: Literal["dev", "test"] = "test"
    languages = ("en", "xa", "xb")
    tiers: ClassVar[dict[str, str]] = {"en": "high", "xa": "mid", "xb": "low"}
    judge: ClassVar[str] = "refusal"

    def prompts(self, language):
        name, word = ("dev-", "wonder") if self.split == "dev" else ("t", "ask")
        return [
            Prompt(id=f"{name}{index}", cluster=f"{name}{index}", language=language, text=f"{language} {word} {index}")
            for index in range(self.count)
        ]


plugin = Requests
'''

METHOD = '''
"""A method in one file."""

import os, signal, time
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Odd:
    paper: ClassVar[str] = "none"
    effect: ClassVar[str] = "nothing"
    needs: ClassVar[frozenset] = frozenset()
    marker: str = ""

    def align(self, start, corpus, run):
        {body}


plugin = Odd
'''


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A folder with everything a tiny shootout needs."""

    folder: Path

    def write(self, *, file: str = "tiny.yaml", **changes: Any) -> Path:
        """Write a shootout, one key per line, and return its path; a key that is None is left out."""
        settings = {
            "name": "tiny",
            "models": [str(self.folder / "model")],
            "methods": ["none", {"use": "sft", "training": {"lora_rank": 2}}],
            "tasks": [{"use": "requests", "with": {"count": 4}}],
            "plugins": [f"task:{self.folder / 'requests.py'}"],
            "corpus": str(self.folder / "corpus.jsonl"),
            "languages": ["en", "xa"],
            "unseen": ["xb"],
            "training": {"steps": 2, "batch_size": 4, "learning_rate": 1e-2},
            "generation": {"max_new_tokens": 4, "batch_size": 8},
            "statistics": {"resamples": 100},
            "out": str(self.folder / "run"),
        } | changes
        path = self.folder / file
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items() if value is not None]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def method(self, body: str, name: str = "odd") -> str:
        """Write a method whose `align` has this body and return its entry for `plugins`."""
        path = self.folder / f"{name}.py"
        path.write_text(METHOD.format(body=body.replace("\n", "\n        ")), encoding="utf-8")
        return f"method:{path}"

    def plugins(self, *more: str) -> list[str]:
        """Return the entries for `plugins`: the task, and more."""
        return [f"task:{self.folder / 'requests.py'}", *more]

    def mlbench(self, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in this folder as a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "mlbench.cli", *map(str, words)],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random model; nobody may write into it."""
    from mlbench import tiny

    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny.model(folder)
    return folder


@pytest.fixture(scope="session")
def make_bench(tiny_model: Path) -> Callable[[Path], Bench]:
    """Return a function that fills a folder with what a tiny shootout needs."""

    def make(folder: Path) -> Bench:
        from mlbench import tiny
        from mlbench.corpus import write_jsonl

        shutil.copytree(tiny_model, folder / "model")
        write_jsonl(tiny.corpus(6, ("en", "xa", "xb")), folder / "corpus.jsonl")
        (folder / "requests.py").write_text(TASK, encoding="utf-8")
        return Bench(folder=folder)

    return make


@pytest.fixture
def bench(make_bench: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a fresh tiny world whose cache is its own."""
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "cache"))
    return make_bench(tmp_path)

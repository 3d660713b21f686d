"""Whole translations: wrong files, servers, the command line, a killed process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlbench import corpus as corpora
from mlbench import mt, translate, verbs
from mlbench.core import Corpus, Example
from mlbench.errors import JobError, UserError
from tests.conftest import Bench
from tests.stand import Stand, completion

from .translations import Marked, config, silent


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"languages": ["en"]}, "languages: 'en' is the pivot"),
        ({"languages": ["sw", "sw"]}, "languages: 'sw' is there twice"),
        ({"languages": []}, "languages: must not be empty"),
        ({"languages": ["tlh"]}, "languages: no code of an NLLB model is known for 'tlh'"),
        ({"source": "nowhere.jsonl"}, "source: corpus file 'nowhere.jsonl' does not exist"),
        ({"out": "nowhere/out.jsonl"}, "out: the folder 'nowhere' does not exist"),
        ({"colums": ["prompt"]}, "did you mean 'columns'?"),
        ({"columns": ["answer"]}, "columns[0]: got 'answer'"),
        ({"engine": {"kind": "nlb", "model": "x"}}, "engine.kind: got 'nlb'"),
        ({"engine": {"kind": "nllb", "model": "org/name"}}, "engine: the hub model 'org/name' needs `revision`"),
        ({"engine": {"kind": "server", "model": "x"}}, "engine: the engine `server` needs `url`"),
        ({"engine": {"kind": "causal", "model": "x", "url": "http://x/v1"}}, "engine: `url` and `api_key_env` are for"),
        (
            {"engine": {"kind": "server", "model": "x", "url": "http://x/v1", "api_key_env": "NO_SUCH_KEY"}},
            "engine: the environment variable NO_SUCH_KEY is not set",
        ),
        ({"texts": {"sw": "kiswahili"}}, "texts: no column for the pivot 'en'"),
        ({"id": "nr"}, "id: `id` goes with `texts`"),
    ],
)
def test_a_wrong_file_is_named_with_line_and_key(
    tmp_path: Path, nllb: Path, changes: dict[str, Any], words: str
) -> None:
    settings = {"engine": {"kind": "nllb", "model": str(nllb)}} | changes
    with pytest.raises(UserError) as refused:
        translate.run(config(tmp_path, **settings), (), silent)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'corpus.yaml'}:")
    assert not (tmp_path / "out.jsonl.memory.jsonl").exists()


def test_a_server_translates_and_says_what_it_is_asked(tmp_path: Path) -> None:
    def translating(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        text = body["messages"][0]["content"].split("\n\n", 1)[1]
        return (429, {}, {}) if not seen else (200, {}, completion(f" x{text} "))

    with Stand(behave=translating) as stand:
        path = config(tmp_path, engine={"kind": "server", "model": "mt", "url": stand.url, "batch_size": 3})
        outcome = translate.run(path, (), silent)
    rows = {(row.id, row.language): row.prompt for row in corpora.read_jsonl(outcome.out, "en").examples}
    assert rows["b", "it"] == "xpb"
    assert {body["temperature"] for body in stand.bodies} == {0}
    assert any("into Italian, without" in body["messages"][0]["content"] for body in stand.bodies)
    assert json.loads(outcome.sidecar.read_text())["engine"]["url"] == stand.url


def test_a_server_that_is_down_ends_the_run_and_keeps_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(body: dict[str, Any], seen: int) -> tuple[int, dict[str, str], Any]:
        if "into English" in body["messages"][0]["content"]:
            return 400, {}, {}
        return 200, {}, completion("ok")

    with Stand(behave=refusing) as stand, pytest.raises(JobError, match="HTTP 400"):
        translate.run(config(tmp_path, engine={"kind": "server", "model": "mt", "url": stand.url}), (), silent)
    assert (tmp_path / "out.jsonl.memory.jsonl").read_text().count("\n") == 2


def test_the_command_line_says_counts_and_never_a_text(bench: Bench, nllb: Path) -> None:
    path = config(bench.folder, engine={"kind": "nllb", "model": str(nllb), "max_new_tokens": 4})
    done = bench.mlbench("translate", path)
    assert done.returncode == 0, done.stderr
    assert (
        "it: 4 texts translated, flagged: " in done.stdout and f"written: {bench.folder / 'out.jsonl'}" in done.stdout
    )
    assert "translating: en to sw" in done.stderr
    texts = {row.prompt for row in corpora.read_jsonl(bench.folder / "out.jsonl", "en").examples} - {""}
    assert len(texts) > 4
    assert not any(f" {text}" in done.stdout + done.stderr for text in texts if len(text) > 3)
    wrong = bench.mlbench("translate", path, "--set", "engine.kind=mt")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --set: engine.kind: got 'mt'")


def test_a_killed_process_goes_on_from_its_last_batch(bench: Bench, nllb: Path) -> None:
    rows = [
        Example(id=f"{at}", cluster=f"{at}", language="en", prompt=f"question {at}", harmful=True) for at in range(120)
    ]
    path = config(bench.folder, engine={"kind": "nllb", "model": str(nllb), "batch_size": 1, "max_new_tokens": 8})
    corpora.write_jsonl(Corpus(pivot="en", languages=("en",), examples=tuple(rows)), bench.folder / "pairs.jsonl")
    memory = bench.folder / "out.jsonl.memory.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlbench.cli", "translate", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (memory.exists() and memory.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = memory.read_bytes().count(b"\n")
    assert not (bench.folder / "out.jsonl").exists()
    outcome = translate.run(path, ("engine.batch_size=64",), silent)
    assert 0 < outcome.asked <= 480 - kept  # two languages there and back; equal texts are asked once
    assert outcome.translated == {"sw": 120, "it": 120}


def test_the_verb_gives_words_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mt, "engine", lambda entry: Marked())
    found = json.loads(verbs.translate(config(tmp_path), as_json=True))
    assert (found["translated"], found["asked"]) == ({"sw": 2, "it": 4}, 12)
    assert verbs.translate(config(tmp_path)).splitlines()[2].startswith("0 translations made now")

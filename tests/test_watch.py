"""The state of a run, drawn again and again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlbench import describe, verbs, watch
from mlbench.results import frames
from mlbench.store import Store

from .conftest import Bench


def unfinished(bench: Bench) -> tuple[Path, Path]:
    """Return a run folder that lacks one verdict, and the folder where that verdict waits."""
    verbs.run(bench.write(methods=["none"], corpus=None, tracking={"enabled": False}), inline=True)
    root = bench.folder / "run"
    key = frames.read_plan(root)["cells"][0]["judge_key"]
    waiting = bench.folder / "waiting"
    shutil.move(Store(root).folder(key), waiting)
    now = {"stage": "judging", "done": 3, "total": 4, "started": 0.0, "values": {"loss": 0.123456}}
    Store(root).write_progress(key, now)
    return root, waiting


def test_status_shows_what_a_job_does_now_and_its_last_loss(bench: Bench) -> None:
    root, _ = unfinished(bench)
    text = describe.run_text(describe.of_run(root))
    assert "judging 3/4 loss 0.123" in text


def test_watching_prints_a_line_per_change_and_ends_with_the_run(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    root, waiting = unfinished(bench)
    key = frames.read_plan(root)["cells"][0]["judge_key"]

    def finish() -> None:
        Store(root).end_progress(key)
        shutil.move(waiting, Store(root).folder(key))

    timer = threading.Timer(0.5, finish)
    timer.start()
    watch.watch(root, seconds=0.05)
    timer.join()
    first, *_, last = capsys.readouterr().out.splitlines()
    # one align, three answers and three verdicts, for the languages en, xa and xb
    assert first.startswith("tiny: 6/7 jobs done; ")
    assert first.endswith("judging 3/4 loss 0.123")
    assert last == "tiny: 7/7 jobs done"


def test_watching_can_be_interrupted_without_an_error(bench: Bench) -> None:
    root, _ = unfinished(bench)
    words = [sys.executable, "-m", "mlbench.cli", "status", str(root), "--watch"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("tiny: 6/7 jobs done")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_a_job_that_failed_does_not_keep_the_watch_going() -> None:
    about = {"selecting": None, "jobs": {"align failed": 1, "answer skipped": 3, "judge skipped": 3}}
    assert watch.has_ended(about)
    assert not watch.has_ended(about | {"jobs": {"align done": 1, "answer missing": 3}})

"""The run folder: complete or absent, movable, and exact."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlbench import tiny
from mlbench.core import Answer, Checkpoint, Prompt, Verdict
from mlbench.store import Status, Store, write_answers, write_verdicts

KEY = "align-0123"
DONE = Status(state="done", seconds=1.5, facts={"steps": 3, "note": "žlutý"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


def test_a_finished_job_is_a_folder_with_a_status(store: Store) -> None:
    with store.writing(KEY) as folder:
        (folder / "result.txt").write_text("x")
        assert not store.is_done(KEY)
        store.finish(KEY, folder, DONE)
    assert store.is_done(KEY)
    assert store.status(KEY) == DONE
    assert (store.folder(KEY) / "result.txt").read_text() == "x"
    assert [path.name for path in store.folder(KEY).parent.iterdir()] == ["0123"]


def test_a_job_that_is_interrupted_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.writing(KEY) as folder:
        (folder / "result.txt").write_text("x")
        raise KeyboardInterrupt
    assert list((store.root / "jobs" / "align").iterdir()) == []


def test_half_written_folders_are_no_results_and_are_cleaned(store: Store) -> None:
    (store.root / "jobs" / "align" / ".0123.99").mkdir(parents=True)
    store.folder("align-4567").mkdir(parents=True)
    (store.folder("align-4567") / "model.safetensors").write_text("half")
    store.write_progress(KEY, {"stage": "training"})
    assert not store.is_done(KEY)
    assert not store.is_done("align-4567")
    store.clean()
    assert not (store.root / "jobs" / "align" / ".0123.99").exists()
    assert store.running() == {}


def test_a_failure_is_replaced_by_a_later_success(store: Store) -> None:
    store.fail(KEY, Status(state="failed", error_type="WorkerDied", error="gone"))
    assert not store.is_done(KEY)
    assert (store.folder(KEY) / "log.txt").read_text() == "WorkerDied: gone\n"
    with store.writing(KEY) as folder:
        store.finish(KEY, folder, DONE)
    assert store.status(KEY) == DONE
    assert not (store.folder(KEY) / "log.txt").exists()


def test_checkpoint_paths_survive_moving_the_run_folder(store: Store, tmp_path: Path) -> None:
    prompts = {"*": f"never say @run or {store.root}"}
    with store.writing(KEY) as folder:
        made = Checkpoint(
            base=str(folder / "model"), adapters=(str(folder / "adapter"), "/elsewhere/adapter"), system_prompts=prompts
        )
        store.write_checkpoint(folder, KEY, made)
        store.finish(KEY, folder, DONE)
    (tmp_path / "run").rename(tmp_path / "moved")
    root = tmp_path / "moved" / "jobs" / "align" / "0123"
    found = Store(tmp_path / "moved").checkpoint(KEY)
    assert found.base == str(root / "model")
    assert found.adapters == (str(root / "adapter"), "/elsewhere/adapter")
    assert found.system_prompts == prompts


def test_a_folder_whose_name_only_begins_like_the_run_folder_is_another_one(store: Store) -> None:
    with store.writing(KEY) as folder:
        store.write_checkpoint(folder, KEY, Checkpoint(base=f"{store.root}-models/base"))
        store.finish(KEY, folder, DONE)
    assert "@run" not in (store.folder(KEY) / "checkpoint.json").read_text()
    assert store.checkpoint(KEY).base == f"{store.root}-models/base"


def test_a_run_folder_behind_a_symbolic_link_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    store = Store(tmp_path / "link" / "run")
    with store.writing(KEY) as folder:
        store.write_checkpoint(folder, KEY, Checkpoint(base=str((folder / "model").resolve())))
        store.finish(KEY, folder, DONE)
    assert store.checkpoint(KEY).base == str(store.folder(KEY) / "model")


def test_prompts_and_corpora_come_back_as_they_were(store: Store) -> None:
    prompts = (
        Prompt(id="1", cluster="c", language="th", text="ข้อ\u2028ความ\n", reference="r", choices=("a", "b")),
        Prompt(id="2", cluster="c", language="th", text="", choices=("a",)),
    )
    corpus = tiny.corpus(2)
    store.write_data({"p": prompts}, {"c": corpus})
    store.write_data({"p": ()}, {})  # content-addressed: what exists is left alone
    assert tuple(store.prompts("p")) == prompts
    assert store.corpus("c") == corpus


def test_answers_and_verdicts_come_back_in_their_order(store: Store) -> None:
    prompts = tuple(Prompt(id=str(at), cluster="c", language="en", text=f"q{at}") for at in range(3))
    store.write_data({"p": prompts}, {})
    answers = [
        Answer(prompt=prompts[2], text="<script>\x00", tokens=3, truncated=True),
        Answer(prompt=prompts[0], text="", choice=1),
        Answer(prompt=prompts[1], text="ok", sample=1),
    ]
    verdicts = [Verdict(label="unsafe", leak=True), Verdict(label="invalid", raw="empty"), Verdict(label="refused")]
    with store.writing("answer-1") as folder:
        write_answers(folder, answers)
        store.finish("answer-1", folder, DONE)
    with store.writing("judge-1") as folder:
        write_verdicts(folder, answers, verdicts)
        store.finish("judge-1", folder, DONE)
    assert store.answers("answer-1", "p") == answers
    assert [row["prompt_id"] for row in store.verdicts("judge-1")] == ["2", "0", "1"]
    assert [row["label"] for row in store.verdicts("judge-1")] == ["unsafe", "invalid", "refused"]


def test_progress_is_whole_json_or_absent(store: Store) -> None:
    store.write_progress(KEY, {"stage": "training", "done": 1})
    assert store.running() == {KEY: {"stage": "training", "done": 1}}
    (store.root / "progress" / f".{KEY}.json.77.1").write_text('{"stage"')  # another process is writing
    assert set(store.running()) == {KEY}
    store.end_progress(KEY)
    store.end_progress(KEY)
    assert store.running() == {}


def test_text_is_utf_8_whatever_the_locale(store: Store) -> None:
    with store.writing(KEY) as folder:
        store.finish(KEY, folder, DONE)
    raw = (store.folder(KEY) / "status.json").read_bytes()
    assert json.loads(raw.decode("utf-8"))["facts"]["note"] == "žlutý"
    assert "žlutý".encode() in raw

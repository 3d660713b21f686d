"""Tasks of the harness in a shootout: planned without its index, answered by workers, kept apart by their keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlbench import check, jobs, models, planner, shootout, verbs
from mlbench.core import Answer, Checkpoint
from mlbench.errors import ConfigError, DataError, JobError
from mlbench.results import frames
from mlbench.store import Store
from tests.conftest import Bench

from .harness import SIZE, fields, mine


def test_planning_indexes_one_folder_and_imports_no_torch(bench: Bench, folder: Path) -> None:
    entry = {"use": "lm_eval:mine_{language}", "with": fields(folder)}
    bench.write(tasks=[entry], methods=["none"], languages=["en"], unseen=["xa"])
    (bench.folder / "look.py").write_text(LOOK, encoding="utf-8")
    found = json.loads(run_python(bench, "look.py"))
    assert found == {"torch": False, "lm_eval": True, "indexed": [str(folder.resolve())] * 2}
    bench.write()
    assert json.loads(run_python(bench, "look.py")) == {"torch": False, "lm_eval": False, "indexed": []}


LOOK = """
import json, sys
from pathlib import Path
from mlbench import planner, shootout

indexed = []

def watch():
    from lm_eval.tasks._index import TaskIndex
    build = TaskIndex.build
    def noted(self, paths, **options):
        indexed.extend(map(str, paths))
        return build(paths, **options)
    TaskIndex.build = noted

if "lm_eval" in Path("tiny.yaml").read_text():
    watch()
planner.make(shootout.load(Path("tiny.yaml")))
print(json.dumps({"torch": "torch" in sys.modules, "lm_eval": "lm_eval" in sys.modules, "indexed": indexed}))
"""


def run_python(bench: Bench, script: str) -> str:
    own = os.environ | {"HF_DATASETS_CACHE": str(bench.folder / "datasets")}
    done = subprocess.run(
        [sys.executable, script], cwd=bench.folder, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_argument_after_a_colon_fills_the_field_it_belongs_to(bench: Bench, folder: Path) -> None:
    entry = {"use": "lm_eval:mine_{language}", "with": fields(folder)}
    made = planner.make(shootout.load(bench.write(tasks=[entry], unseen=None)))
    assert list(made.tasks) == ["mine"]
    for wrong, message in (
        ({"use": "requests:many"}, "the task 'requests' takes no argument"),
        (entry | {"with": fields(folder, name="mine_en")}, "'name' is given twice"),
    ):
        with pytest.raises(ConfigError, match=f"tasks.*{message}"):
            planner.make(shootout.load(bench.write(tasks=[wrong], unseen=None)))


def answer_keys(bench: Bench, **changes: Any) -> dict[str, str]:
    made = planner.make(shootout.load(bench.write(methods=["none"], unseen=None, **changes)))
    return {cell.language: cell.answer_key for cell in made.cells}


def test_answers_depend_on_how_they_are_asked_and_scored_and_on_nothing_else(bench: Bench, folder: Path) -> None:
    def keys(**changes: Any) -> dict[str, str]:
        return answer_keys(bench, tasks=[{"use": "lm_eval:mine_{language}", "with": fields(folder, **changes)}])

    before = keys()
    assert keys(codes={"xb": "xb"}) == before  # a language that is not asked
    assert keys(metric="acc_norm")["en"] != before["en"]
    assert keys(chat_template=False)["en"] != before["en"]
    path = folder / "mine_xa.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "target_delimiter: '_'\n", encoding="utf-8")
    after = keys()
    assert after["en"] == before["en"] and after["xa"] != before["xa"]


def test_a_shootout_has_a_score_per_document_and_asks_nothing_twice(bench: Bench, folder: Path) -> None:
    path = bench.write(
        tasks=[{"use": "requests", "with": {"count": 2}}, {"use": "lm_eval:mine_{language}", "with": fields(folder)}],
        methods=["none"],
        languages=["en", "xa"],
        unseen=None,
        tracking={"enabled": False},
    )
    outcome = verbs.run(path, inline=True)
    assert outcome.exit_code == 0
    root = bench.folder / "run"
    plan = frames.read_plan(root)
    rows = frames.verdicts(plan, Store(root))
    rows = rows[(rows["task"] == "mine") & (rows["method"] == "none")]
    assert list(rows["chance"].unique()) == [pytest.approx(1 / 3)]
    loaded = models.load(Checkpoint(base=str(bench.folder / "model")))
    for language in ("en", "xa"):
        ours = models.choose(loaded, mine(folder).prompts(language))
        expected = {str(n): ours[n].choice == n % 3 for n in range(SIZE)}
        part = rows[rows["language"] == language]
        assert dict(zip(part["prompt_id"], part["correct"], strict=True)) == expected
    assert verbs.run(path, inline=True).ran == 0


def test_what_does_not_fit_into_memory_is_asked_in_halves(
    folder: Path, loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = mine(folder)
    ask, tried = type(task).answer, []

    def cramped(self: Any, *words: Any, batch_size: int, **more: Any) -> list[Answer]:
        tried.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("too much")
        found: list[Answer] = ask(self, *words, batch_size=batch_size, **more)
        return found

    monkeypatch.setattr(type(task), "answer", cramped)
    spec = {
        "task": "lm_eval",
        "plugin_files": {},
        "task_fields": asdict(task),
        "fingerprint": task.fingerprint("en"),
        "system_prompt": "",
        "batch_size": 8,
        "max_new_tokens": 4,
    }
    done = jobs.answer(spec, loaded.checkpoint, task.prompts("en"), lambda *place: None)
    assert tried == [8, 4, 2]
    assert [answer.prompt for answer in done.answers] == list(task.prompts("en"))


def test_a_worker_refuses_other_data_or_another_task_than_planned(folder: Path, loaded: models.Loaded) -> None:
    task = mine(folder)
    prompts = task.prompts("en")
    changed = [replace(prompts[0], reference="something else")]
    with pytest.raises(DataError, match=r"the data of 'mine_{language}' changed since the plan was made"):
        task.answer(loaded, changed, max_new_tokens=4, batch_size=2)
    spec = {"task": "lm_eval", "plugin_files": {}, "task_fields": asdict(task), "fingerprint": "another"}
    with pytest.raises(JobError, match="not on this worker as it was when the plan was made"):
        jobs.answer(spec, loaded.checkpoint, prompts, lambda *done: None)


def test_the_contract_holds(folder: Path) -> None:
    findings = list(check.task(mine(folder)))
    assert [finding for finding in findings if not finding.passed or finding.skipped] == []
    assert "gives one answer per prompt of a model it asks itself" in {finding.check for finding in findings}

"""The graph of a run under a backend that loses its workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mlbench import planner, schedule, shootout
from mlbench.store import Status, Store

from .conftest import Bench


class Mortal(schedule.Inline):
    """Runs bundles in this process, and dies whenever it reaches one certain job."""

    def __init__(self, deadly: str) -> None:
        self.deadly = deadly
        self.deaths = 0

    def submit(self, root: str, bundle: list[Mapping[str, Any]], attempts: Mapping[str, int], cpus: int) -> int:
        before = [job["key"] for job in bundle]
        alive = before.index(self.deadly) if self.deadly in before else len(before)
        self.deaths += self.deadly in before
        return super().submit(root, bundle[:alive], attempts, cpus)

    def failure(self, handle: Any) -> str:
        return "WorkerCrashedError: killed"


@pytest.fixture
def grid(bench: Bench) -> tuple[schedule.Grid, Store, dict[str, Status]]:
    made = planner.make(shootout.load(bench.write(methods=["none"])))
    store = Store(bench.folder / "run")
    store.write_data(made.prompts, made.corpora)
    ended: dict[str, Status] = {}
    settings = schedule.Settings(cpus=1, gpus=0, retries=1, timeout_minutes=None, fail_on_error=False)
    return schedule.Grid(made.jobs, store, settings, lambda job, status: ended.update({job.key: status})), store, ended


def test_only_the_job_that_kills_its_worker_pays_for_it(grid: tuple[schedule.Grid, Store, dict[str, Status]]) -> None:
    graph, store, ended = grid
    answers = [key for key in graph.pending if key.startswith("answer-")]
    backend = Mortal(answers[0])
    graph.run(backend)
    assert backend.deaths == 2
    assert ended[answers[0]].error_type == "WorkerDied"
    assert [store.is_done(key) for key in answers] == [False, True, True]
    assert {ended[key].attempt for key in answers[1:]} == {1}


def test_what_depends_on_a_dead_job_never_starts(grid: tuple[schedule.Grid, Store, dict[str, Status]]) -> None:
    graph, _, ended = grid
    (align,) = (key for key in graph.pending if key.startswith("align-"))
    graph.run(Mortal(align))
    assert set(ended) == {align}
    assert ended[align].error == "WorkerCrashedError: killed"

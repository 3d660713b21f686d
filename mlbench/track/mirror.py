"""One run folder in one MLflow store, and the thread that keeps it up to date while a grid runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from mlbench import environment
from mlbench.plan import Job
from mlbench.results import Results, frames
from mlbench.store import Status, Store
from mlbench.track import connection, facts, notes, overview, sending
from mlbench.track.facts import Place

LONGEST_ERROR = 2000
END_SECONDS = 10.0
"""How long the end of a grid waits for all that is still to be sent; the mirroring after it sends the rest."""


def mirror(root: Path, results: Results | None, written: Mapping[str, Path], *, uri: str = "") -> str:
    """Bring MLflow up to date with a run folder and return the id of the parent run.

    Args:
        root: The run folder.
        results: The tables of its report, None while no cell is finished.
        written: The files of the report.
        uri: Any MLflow tracking URI; "" is the sqlite store beside the run folder.

    Raises:
        ConnectionError: Nothing answers at the URI.
    """
    opened = Mirror(root, uri=uri)
    for place in opened.places:
        opened.checkpoint(place, results)
    opened.finish(results, written)
    return opened.parent


class Mirror:
    """One run folder in one MLflow store."""

    def __init__(self, root: Path, *, uri: str = "") -> None:
        self.store = Store(root)
        self.plan = frames.marked(frames.read_plan(root))
        place = uri or connection.default_uri(root)
        self.client = connection.connect(place)
        self.experiment = connection.experiment(self.client, self.plan["name"], place, overview.view(self.plan))
        self.folder = connection.identity(root)
        self.places: dict[Place, list[Mapping[str, Any]]] = {}
        for cell in self.plan["cells"]:
            self.places.setdefault(Place(cell["method"], cell["model"], cell["seed"]), []).append(cell)
        self.parent = self._parent()
        self.children = self._children()

    def _parent(self) -> str:
        tags = {"mlbench.run": self.folder, "mlbench.role": "shootout"}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self.client.search_runs([self.experiment], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags |= {"mlbench.folder": environment.shown(self.store.root)}
        tags |= notes.tags(notes.shootout(self.plan, None, self.experiment))
        start = int(1000 * self.plan["created"])
        made = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=self.plan["name"])
        return str(made.info.run_id)

    def _children(self) -> dict[tuple[str, ...], str]:
        query = f"tags.`mlbench.run` = '{self.folder}' and tags.`mlbench.role` = 'checkpoint'"
        found: dict[tuple[str, ...], str] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment], filter_string=query, page_token=token)
            found |= {facts.place_tags(run.data.tags): run.info.run_id for run in page}
            token = page.token
            if not token:
                return found

    def checkpoint(self, place: Place, results: Results | None = None) -> None:
        """Bring the child run of one checkpoint up to date."""
        part = facts.part(self.plan, self.places[place])
        jobs = frames.jobs(part, self.store)
        tags = facts.tags(part, place, self.parent, self.folder)
        run = self.client.get_run(self.children.get(facts.place_tags(tags)) or self._create(part, place, tags))
        params = {"method": place.method, "model": place.model, "seed": str(place.seed)}
        sending.log_params(self.client, run, params | dict(facts.fields(part["methods"][place.method])))
        sending.log_inputs(self.client, run, dict(facts.datasets(part, self.store)))
        self._log_curves(run, part["methods"][place.method], self.places[place][0]["chain"])
        metrics: dict[str, float] = {}
        if results is not None:
            metrics |= dict(facts.metrics(results, place))
            tags["mlbench.verdict"] = facts.verdict(results, place)
        # The first metric is the one that the comparison of runs draws at first.
        sending.log_metrics(self.client, run, metrics | dict(facts.spent(jobs)))
        self._settle(run, tags, jobs)

    def _create(self, part: Mapping[str, Any], place: Place, tags: Mapping[str, str]) -> str:
        begun = [status.started for key in part["jobs"] if (status := self.store.status(key)) and status.started]
        model = f" · {place.model}" if len(self.plan["models"]) > 1 else ""
        name = f"{place.method} · seed {place.seed}{model}"
        start = int(1000 * min(begun, default=time.time()))
        made = self.client.create_run(self.experiment, start_time=start, tags=dict(tags), run_name=name)
        self.children[facts.place_tags(tags)] = made.info.run_id
        return str(made.info.run_id)

    def _settle(self, run: Any, tags: dict[str, str], jobs: pd.DataFrame) -> None:
        failures = jobs[jobs["status"] == "failed"]
        for line in failures.head(1).to_dict("records"):
            where = " ".join(filter(None, (line["kind"], line["task"], line["language"])))
            tags["mlbench.error"] = f"{where}: {line['error_type']}: {line['error']}"[:LONGEST_ERROR]
        about = [tags.get(f"mlbench.{name}", "") for name in ("method", "verdict", "error")]
        if not notes.edited(run.data.tags):
            tags |= notes.tags(notes.checkpoint(self.plan, *about))
        sending.set_tags(self.client, run, tags)
        if failures.empty and "mlbench.error" in run.data.tags:
            self.client.delete_tag(run.info.run_id, "mlbench.error")
        state = facts.state(jobs)
        if state != run.info.status:
            sending.set_state(self.client, run.info.run_id, state, self._end(jobs))

    def _log_curves(self, run: Any, links: list[Mapping[str, Any]], chain: list[str]) -> None:
        points = []
        for link, key in zip(links, chain, strict=True):
            path = self.store.folder(key) / "curve.json"
            prefix = f"train/{link['method']}" if len(links) > 1 else "train"
            points += list(facts.points(path, prefix)) if path.is_file() else []
        # Counted when all have arrived: what an interruption left half sent is sent again.
        if run.data.tags.get("mlbench.curve_points", "0") == str(len(points)):
            return
        sending.log_points(self.client, run, points)
        self.client.set_tag(run.info.run_id, "mlbench.curve_points", str(len(points)))

    def finish(self, results: Results | None, written: Mapping[str, Path]) -> None:
        """Bring the parent run up to date, after its children."""
        now = {facts.place_tags(facts.tags(self.plan, place, self.parent, self.folder)) for place in self.places}
        for place, child in self.children.items():
            if place not in now:  # the shootout has changed since
                self.client.set_tag(child, "mlbench.superseded", "true")
        parent = self.client.get_run(self.parent)
        models = ", ".join(model["name"] for model in self.plan["models"])
        languages = ", ".join(self.plan["languages"])
        about = {"baseline": self.plan["baseline"], "methods": ", ".join(self.plan["methods"])}
        sending.log_params(self.client, parent, about | {"models": models, "languages": languages})
        sending.log_inputs(self.client, parent, dict(facts.datasets(self.plan, self.store)))
        settings = {name: self.store.root / name for name in ("shootout.yaml", "selection.json")}
        for name, path in {**written, **settings}.items():
            if path.is_file():
                self.client.log_artifact(self.parent, str(path), str(Path(name).parent).removeprefix(".") or None)
        if not notes.edited(parent.data.tags):
            sending.set_tags(self.client, parent, notes.tags(notes.shootout(self.plan, results, self.experiment)))
        sending.log_tables(self.client, self.parent, self._tables(results))
        jobs = frames.jobs(self.plan, self.store)
        sending.set_state(self.client, self.parent, facts.state(jobs), self._end(jobs))

    def _tables(self, results: Results | None) -> dict[str, pd.DataFrame]:
        found = {} if results is None else {"ranking": results.ranking, "comparisons": results.comparisons}
        # A run for every trial would bury the checkpoints: trials are found by their settings, and a table shows those.
        return found | ({"trials": notes.trials(self.plan["selection"])} if self.plan["selection"] else {})

    def _end(self, jobs: pd.DataFrame) -> float:
        """Return when the last of some jobs ended."""
        ends = [status.started + status.seconds for key in jobs["key"] if (status := self.store.status(key))]
        return max(ends, default=time.time())


class Live:
    """Sends each checkpoint while a grid runs, from a thread of its own.

    Nothing here may slow or break the grid: the first error ends the sending, and the mirroring after the grid, which
    sends whatever is missing, tells of it once.
    """

    def __init__(self, root: Path, *, uri: str) -> None:
        self.root = root
        self.uri = uri
        self.mirror: Mirror | None = None
        self.keys: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._send, name="mlflow", daemon=True)
        self.error: Exception | None = None
        self.halted = False

    def __enter__(self) -> Live:
        # Before the grid and not in the thread: two threads that import large libraries can trip each other.
        try:
            self.mirror = Mirror(self.root, uri=self.uri)
            sending.set_state(self.mirror.client, self.mirror.parent, "RUNNING", 0)
        except Exception as error:
            self.error = error
        else:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.error is None and self.mirror is not None:
            self.keys.put(None if kind is None else "KILLED")
            self.thread.join(END_SECONDS)
            self.halted = True
            if kind is None:  # two that send the same checkpoint at once could make two runs of it
                self.thread.join()

    def ended(self, job: Job, status: Status) -> None:
        """Take note of a job that ended; returns at once."""
        if job.kind == "align" or status.state == "failed":
            self.keys.put(job.key)

    def _send(self) -> None:
        assert self.mirror is not None
        try:
            while (key := self.keys.get()) and not self.halted:
                if key == "KILLED":
                    sending.set_state(self.mirror.client, self.mirror.parent, "KILLED", time.time())
                    return
                for place, cells in self.mirror.places.items():
                    if any(key in (cell["chain"][-1], cell["answer_key"], cell["judge_key"]) for cell in cells):
                        self.mirror.checkpoint(place)
        except Exception as error:
            self.error = error

"""One job from the run folder to the run folder: what every worker does, with Ray or without."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbench import jobs, plan, plugins, sources, usage
from mlbench.core import Checkpoint, Model
from mlbench.errors import JobError
from mlbench.store import Status, Store, write_answers, write_json, write_verdicts

PROGRESS_SECONDS = 0.5


def execute(root: str, job: Mapping[str, Any], *, attempt: int, cpus: int) -> Status:
    """Run one job and return how it ended; a failure is a result like any other and never an exception.

    Args:
        root: The run folder.
        job: `plan.Job` as a dict.
        attempt: Counted from 1.
        cpus: Threads the job may use.
    """
    store = Store(Path(root))
    key = job["key"]
    started = time.time()
    watch = _Watch(store, key, started)
    with store.writing(key) as folder, (folder / "log.txt").open("w", encoding="utf-8") as log:
        error: BaseException | None = None
        facts: dict[str, Any] = {}
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                watch.report("starting", 0, 0)
                _verify_code(job["kind"], job["spec"])
                _set_threads(job["kind"], cpus)
                _forget_peak_memory()
                facts = RUNNERS[job["kind"]](store, job, folder, watch.report)
            except (Exception, SystemExit) as caught:  # whatever a plugin raises becomes a row
                traceback.print_exc(file=log)
                error = caught
        status = Status(
            state="failed" if error else "done",
            error_type=type(error).__name__ if error else "",
            error=str(error) if error else "",
            attempt=attempt,
            started=started,
            seconds=time.time() - started,
            host=socket.gethostname(),
            facts={**facts, "peak_memory_mb": _peak_memory_mb(), "pid": os.getpid()},
        )
        store.finish(key, folder, status)
    store.end_progress(key)
    return status


def _align(store: Store, job: Mapping[str, Any], folder: Path, report: jobs.Report) -> dict[str, Any]:
    spec = job["spec"]
    start = store.checkpoint(spec["start"]) if spec["start"] else _base(spec)
    places = jobs.Places(folder, store.scratch(job["key"]), store.shared)
    places.shared.mkdir(exist_ok=True)
    aligned = jobs.align(spec, start, store.corpus(spec["corpus"]), places, report)
    shutil.rmtree(places.scratch, ignore_errors=True)
    store.write_checkpoint(folder, job["key"], aligned.checkpoint)
    write_json(folder / "curve.json", aligned.curve)
    return aligned.facts


def _base(spec: Mapping[str, Any]) -> Checkpoint:
    model = Model(name=spec["model_name"], source=spec["model_source"], revision=spec["revision"], dtype=spec["dtype"])
    return sources.fetch(model)


def _answer(store: Store, job: Mapping[str, Any], folder: Path, report: jobs.Report) -> dict[str, Any]:
    spec = job["spec"]
    before = jobs.loads()
    answered = jobs.answer(spec, store.checkpoint(spec["checkpoint"]), store.prompts(spec["prompts"]), report)
    answers = answered.answers
    write_answers(folder, answers)
    return {
        **answered.facts,
        "loads": jobs.loads() - before,
        "tokens": sum(answer.tokens for answer in answers),
        "truncated": sum(answer.truncated for answer in answers),
        "batch_size": spec["batch_size"],
    }


def _judge(store: Store, job: Mapping[str, Any], folder: Path, report: jobs.Report) -> dict[str, Any]:
    spec = job["spec"]
    answers = store.answers(spec["answers"], spec["prompts"])
    judged = jobs.judge(spec, answers, report)
    write_verdicts(folder, answers, judged.verdicts)
    unparsed = sum(verdict.label == "unparsed" for verdict in judged.verdicts)
    return {"unparsed": unparsed, "provenance": judged.provenance, **judged.costs}


RUNNERS = {"align": _align, "answer": _answer, "judge": _judge}


def _verify_code(kind: str, spec: Mapping[str, Any]) -> None:
    """Refuse to run other code than the plan was made with.

    Raises:
        JobError: The engine or the plugin on this worker differs from the driver's.
    """
    if plan.engine_hash(kind) != spec["engine"]:
        raise JobError("this worker has another version of mlbench than the driver; install the same one on every node")
    plugin_kind = {"align": "method", "answer": "task", "judge": "judge"}[kind]
    if plugin_kind not in spec:  # only tasks that ask the model themselves take part in answering
        return
    plugins.add_files(plugin_kind, spec["plugin_files"])
    for name, code in {spec[plugin_kind]: spec["code"], **spec.get("bases", {})}.items():
        if plugins.source_hash(plugin_kind, name) != code:
            raise JobError(f"this worker has another version of the {plugin_kind} {name!r} than the driver")


def _set_threads(kind: str, cpus: int) -> None:
    if kind != "judge":  # judges that need torch set themselves up
        import torch

        torch.set_num_threads(cpus)


def _forget_peak_memory() -> None:
    """Let the kernel count the peak from here, where it can (Linux), and the GPU as well."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory_mb() -> float:
    """Return the peak of GPU memory where a GPU was used, else of the process's memory, in MiB."""
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    status = Path("/proc/self/status")
    if status.exists():
        return (
            float(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Watch:
    """Writes a running job's progress, at most twice a second."""

    def __init__(self, store: Store, key: str, started: float) -> None:
        self.store = store
        self.key = key
        self.started = started
        self.written = 0.0
        self.meter = usage.Meter()

    def report(self, stage: str, done: int, total: int, **values: float) -> None:
        now = time.monotonic()
        if now - self.written < PROGRESS_SECONDS:
            return
        self.written = now
        progress = {"stage": stage, "done": done, "total": total, "values": values}
        about = {"started": self.started, "pid": os.getpid(), "use": self.meter()}
        self.store.write_progress(self.key, progress | about)

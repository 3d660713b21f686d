"""Run the missing jobs of a plan: on Ray, or the same code in this process.

The driver keeps the graph. A worker gets a bundle of jobs that share a loaded model, writes each result to the run
folder as soon as it has it, and returns nothing; the driver reads the folder. `ray` is imported only here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from mlbench import environment, worker
from mlbench.errors import UserError
from mlbench.plan import Job, engine_hash
from mlbench.store import Status, Store

GRACE_SECONDS = 10.0
"""Between the polite and the forced end of a job that ran out of time."""
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one job gets and how failures are treated; `shootout.Schedule` explains each field."""

    cpus: int
    gpus: float
    retries: int
    timeout_minutes: float | None
    fail_on_error: bool | float


class Backend(Protocol):
    """Where bundles of jobs run."""

    slots: int

    def submit(self, root: str, bundle: list[Mapping[str, Any]], attempts: Mapping[str, int], cpus: int) -> Any:
        """Start a bundle and return its handle."""

    def wait(self, handles: Iterable[Any], seconds: float) -> list[Any]:
        """Return the handles that have ended, waiting at most some seconds."""

    def failure(self, handle: Any) -> str:
        """Return why the worker of an ended bundle died, or "" when it did not."""

    def cancel(self, handle: Any, *, force: bool) -> None:
        """End a bundle, politely or not."""

    def close(self) -> None:
        """Give every resource back."""


class Inline:
    """Runs each bundle at once in this process: for debugging, and for machines where Ray is not wanted."""

    slots = 1

    def submit(self, root: str, bundle: list[Mapping[str, Any]], attempts: Mapping[str, int], cpus: int) -> int:
        """Run the bundle to its end."""
        for job in bundle:
            worker.execute(root, job, attempt=attempts[job["key"]], cpus=cpus)
        return id(bundle)

    def wait(self, handles: Iterable[Any], seconds: float) -> list[Any]:
        """Return all handles: whatever was submitted has ended."""
        return list(handles)

    def failure(self, handle: Any) -> str:
        """Return "": a dead worker would be this process."""
        return ""

    def cancel(self, handle: Any, *, force: bool) -> None:
        """Do nothing: an inline bundle has ended before anybody can cancel it."""

    def close(self) -> None:
        """Hold nothing."""


class RayBackend:
    """Runs bundles as Ray tasks, on this machine by default, on a cluster with an address."""

    def __init__(self, settings: Settings, address: str | None = None) -> None:
        environment.prepare()
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        self.ray = ray
        local: dict[str, Any] = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(
                address=address or "local", log_to_driver=False, logging_level="ERROR", configure_logging=False, **local
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot reach Ray at {address or 'this machine'}: {error}") from error
        # Ray takes num_gpus and max_calls only at decoration: a fresh process per GPU task frees its memory.
        remote = ray.remote(
            num_cpus=settings.cpus, num_gpus=settings.gpus, max_retries=0, max_calls=1 if settings.gpus else 0
        )
        self.work = remote(_work)
        self._probe()
        total = ray.cluster_resources()
        by_cpu = int(total.get("CPU", 1) // settings.cpus)
        by_gpu = int(total.get("GPU", 0) // settings.gpus) if settings.gpus else by_cpu
        self.slots = min(by_cpu, by_gpu)
        if self.slots < 1:
            self.close()
            wanted = f"{settings.cpus} cpus and {settings.gpus} gpus"
            raise UserError(f"no node can run a job: one needs {wanted}, the cluster has {dict(total)}")

    def _probe(self) -> None:
        """Import mlbench once on every node before anything is queued, and compare its code with the driver's."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        probe = self.ray.remote(num_cpus=0, max_retries=0)(_code)
        calls = [
            probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
            for node in nodes
        ]
        try:
            found = self.ray.get(calls, timeout=120)
        except Exception as error:
            self.close()
            raise UserError(f"a node cannot import mlbench: {error}", hint="install mlbench on every node") from error
        if any(code != _code() for code in found):
            self.close()
            raise UserError(
                "a node has another version of mlbench than this machine; install the same one on every node"
            )

    def submit(self, root: str, bundle: list[Mapping[str, Any]], attempts: Mapping[str, int], cpus: int) -> Any:
        """Queue the bundle as one task."""
        return self.work.remote(root, bundle, attempts, cpus)

    def wait(self, handles: Iterable[Any], seconds: float) -> list[Any]:
        """Return the tasks that have ended."""
        handles = list(handles)
        ended: list[Any] = self.ray.wait(handles, num_returns=len(handles), timeout=seconds)[0] if handles else []
        return ended

    def failure(self, handle: Any) -> str:
        """Return Ray's reason for a task that died."""
        try:
            self.ray.get(handle)
        except self.ray.exceptions.RayError as error:
            # The text of a cancelled task is empty.
            return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        return ""

    def cancel(self, handle: Any, *, force: bool) -> None:
        """Interrupt the task, or kill its worker."""
        self.ray.cancel(handle, force=force)

    def close(self) -> None:
        """Stop the local cluster, or leave the remote one."""
        self.ray.shutdown()


def _work(root: str, bundle: list[Mapping[str, Any]], attempts: Mapping[str, int], cpus: int) -> None:
    for job in bundle:
        worker.execute(root, job, attempt=attempts[job["key"]], cpus=cpus)


def _code() -> dict[str, str]:
    return {kind: engine_hash(kind) for kind in ("align", "answer", "judge")}


class Grid:
    """The graph of one run: what is missing, what runs, what ended."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        store: Store,
        settings: Settings,
        on_end: Callable[[Job, Status], None],
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.on_end = on_end
        self.on_poll = on_poll
        self.pending = {key: job for key, job in jobs.items() if not store.is_done(key)}
        for key in self.pending:
            store.discard(key)  # an earlier failure is no result of this run
        self.unfinished = set(self.pending)
        self.planned = len(self.pending)
        self.attempts = dict.fromkeys(self.pending, 1)
        self.running: dict[Any, list[Job]] = {}
        self.cancelled: dict[Any, float] = {}
        self.failed: set[str] = set()
        self.ended = 0

    def run(self, backend: Backend) -> None:
        """Run until nothing is left that can run."""
        try:
            while True:
                if not self._too_many_failures():
                    self._submit(backend)
                if not self.running:
                    return
                for handle in backend.wait(self.running, POLL_SECONDS):
                    self._settle(handle, backend.failure(handle))
                self._enforce_timeout(backend)
                self.on_poll()
        finally:
            for handle in self.running:
                backend.cancel(handle, force=True)

    def _too_many_failures(self) -> bool:
        limit = self.settings.fail_on_error
        if limit is False:
            return False
        if limit is True:
            return bool(self.failed)
        allowed = limit * self.planned if limit < 1 else limit
        return len(self.failed) > allowed

    def _submit(self, backend: Backend) -> None:
        while len(self.running) < backend.slots:
            bundle = self._next_bundle(backend.slots - len(self.running))
            if not bundle:
                return
            for job in bundle:
                del self.pending[job.key]
            attempts = {job.key: self.attempts[job.key] for job in bundle}
            handle = backend.submit(str(self.store.root), [asdict(job) for job in bundle], attempts, self.settings.cpus)
            self.running[handle] = bundle

    def _next_bundle(self, free: int) -> list[Job]:
        """Return ready jobs of one affinity: aligns first (others wait for them), then the largest group."""
        groups: dict[str, list[Job]] = {}
        for job in self.pending.values():
            if all(self._is_finished(key) for key in job.after):
                groups.setdefault(job.affinity, []).append(job)
        if not groups:
            return []
        group = max(groups.values(), key=lambda jobs: (jobs[0].kind == "align", len(jobs)))
        # With fewer groups than free workers, a group is shared out so that no worker idles.
        share = -(-len(group) * len(groups) // max(free, len(groups)))
        return group[: max(1, share)]

    def _is_finished(self, key: str) -> bool:
        return key not in self.unfinished

    def _settle(self, handle: Any, death: str) -> None:
        bundle = self.running.pop(handle)
        was_cancelled = self.cancelled.pop(handle, None) is not None
        died_in: Job | None = None
        for job in bundle:
            self.store.end_progress(job.key)  # a worker that was killed could not
            if job.key in self.failed:  # it ran out of time and has its row
                continue
            status = self.store.status(job.key)
            if status:
                self._end(job, status)
            elif was_cancelled or died_in:  # it had not begun
                self.pending[job.key] = job
            else:
                died_in = job
                self._again_or_fail(job, death)

    def _again_or_fail(self, job: Job, death: str) -> None:
        """Queue a job again whose worker died before it could finish."""
        if self.attempts[job.key] > self.settings.retries:
            status = Status(state="failed", error_type="WorkerDied", error=death, attempt=self.attempts[job.key])
            self.store.fail(job.key, status)
            self._end(job, status)
            return
        self.attempts[job.key] += 1
        self.pending[job.key] = job

    def _end(self, job: Job, status: Status) -> None:
        self.ended += 1
        if status.state == "failed":
            self.failed.add(job.key)
        else:
            self.unfinished.discard(job.key)
        self.on_end(job, status)

    def _enforce_timeout(self, backend: Backend) -> None:
        if self.settings.timeout_minutes is None:
            return
        progress = self.store.running()
        for handle, bundle in list(self.running.items()):
            for job in bundle:
                started = progress.get(job.key, {}).get("started")
                if started and time.time() - started > self.settings.timeout_minutes * 60:
                    self._time_out(backend, handle, job)

    def _time_out(self, backend: Backend, handle: Any, job: Job) -> None:
        if handle not in self.cancelled:
            self.cancelled[handle] = time.time()
            message = f"took longer than {self.settings.timeout_minutes} minutes"
            status = Status(state="failed", error_type="Timeout", error=message, attempt=self.attempts[job.key])
            self.store.fail(job.key, status)
            self._end(job, status)
            backend.cancel(handle, force=False)
        elif time.time() - self.cancelled[handle] > GRACE_SECONDS:
            backend.cancel(handle, force=True)

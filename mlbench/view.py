"""What a person sees while a grid runs: a live table on a terminal, plain lines anywhere else. All on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mlbench import usage
from mlbench.plan import Job
from mlbench.store import Status, Store

KINDS = ("align", "answer", "judge")
PLAIN_SECONDS = 20.0
"""Without a terminal: one line in so many seconds."""
SHORTEST_LABEL = 20
LOOK_SECONDS = 1.0
"""How often the use of this machine is looked at; the table is drawn more often."""


def console() -> Console:
    """Return the console for progress; it keeps today's stderr even while a job redirects its own."""
    return Console(file=sys.stderr)


class GridView:
    """Follows a grid by the progress files of its run folder, so that it shows inline and remote jobs alike."""

    def __init__(self, jobs: Mapping[str, Job], store: Store) -> None:
        self.store = store
        self.labels = {key: job.label for key, job in jobs.items()}
        self.todo: Counter[str] = Counter(job.kind for key, job in jobs.items() if not store.is_done(key))
        self.done: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.failures: list[str] = []
        self.started = self.printed = self.looked = time.monotonic()
        self.machine, self.machine_text = usage.Machine(), ""
        self.console = console()
        self.live = Live(get_renderable=self.render, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> GridView:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        self._line()

    def ended(self, job: Job, status: Status) -> None:
        """Count a job that ended and tell a failure at once."""
        self.done[job.kind] += 1
        self.seconds[job.kind] += int(1000 * status.seconds)
        if status.state == "failed":
            text = f"failed: {job.label} ({job.kind}): {status.error_type}: {_first_line(status.error)}"
            self.failures.append(text)
            self.console.print(Text(text, style="red"))
        self.poll()

    def poll(self) -> None:
        """Without a terminal, print a line now and then."""
        if not self.console.is_terminal and time.monotonic() - self.printed > PLAIN_SECONDS:
            self._line()

    def _line(self) -> None:
        self.printed = time.monotonic()
        counts = ", ".join(f"{self.done[kind]}/{self.todo[kind]} {kind}" for kind in KINDS if self.todo[kind])
        if counts:
            self.console.print(f"{counts} jobs, {self._elapsed():.0f} s, {self.left()}")

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> str:
        """Return the expected time to the end, at the pace so far; kinds of jobs not seen yet are not in it."""
        spent = sum(self.seconds.values()) / 1000
        unseen = any(self.todo[kind] and not self.done[kind] for kind in KINDS)
        if not spent:
            return "time left unknown"
        means = {kind: self.seconds[kind] / 1000 / self.done[kind] for kind in KINDS if self.done[kind]}
        work = sum((self.todo[kind] - self.done[kind]) * mean for kind, mean in means.items())
        return f"{'more than' if unseen else 'about'} {_minutes(work * self._elapsed() / spent)} left"

    def render(self) -> RenderableType:
        """Return the live table."""
        table = Table(box=None, padding=(0, 1), show_header=False)
        for width in (SHORTEST_LABEL, None, None, 0, None):  # in a narrow window, names and values give way
            table.add_column(no_wrap=width is None, min_width=width)
        for key, progress in self.store.running().items():
            stage, share, values, use = doing(progress)
            label, short = (
                Text(text, no_wrap=True, overflow="ellipsis") for text in (self.labels.get(key, key), values)
            )
            table.add_row(label, escape(stage), share, short, use)
        total, done = sum(self.todo.values()), sum(self.done.values())
        counts = "  ".join(f"{kind} {self.done[kind]}/{self.todo[kind]}" for kind in KINDS)
        text = f"{done}/{total} jobs  ({counts})  {self._elapsed():.0f} s  {self.left()}"
        if self.failures:
            text += f"  [red]{len(self.failures)} failed[/red]"
        return Group(table, Text.from_markup(text), Text(self._machine(), style="dim"))

    def _machine(self) -> str:
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            self.looked, self.machine_text = time.monotonic(), self.machine()
        return self.machine_text


def doing(progress: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what a running job does: the stage, how far it is, its last values, and what it uses."""
    done, total = progress["done"], progress["total"]
    share = f"{done}/{total}" if total else ""
    losses_first = sorted(progress["values"].items(), key=lambda item: ("loss" not in item[0], item[0]))
    values = "  ".join(f"{name} {value:.3g}" for name, value in losses_first[:3])
    return progress["stage"], share, values, usage.text(progress.get("use", {}))


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class StageBar:
    """A progress bar for one long piece of work with named stages, e.g. the building of an organism."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=self.console, transient=True)
        self.tasks: dict[str, Any] = {}
        self.printed = time.monotonic()

    def __enter__(self) -> StageBar:
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(f"{self.title}: {stage}", total=total)
            self.console.print(f"{self.title}: {stage}")
        self.bars.update(self.tasks[stage], completed=done, total=total)
        if not self.console.is_terminal and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.console.print(f"{self.title}: {stage} {done}/{total}")

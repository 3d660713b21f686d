"""Run folders and processes, for tests of what a shootout on Ray leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mlbench.results import frames
from mlbench.store import Store

from .conftest import Bench


def rows(run: Path) -> dict[str, bytes]:
    """Return the bytes of every answers.parquet and verdicts.parquet by job."""
    found = [*run.glob("jobs/answer/*/answers.parquet"), *run.glob("jobs/judge/*/verdicts.parquet")]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def jobs(run: Path) -> Any:
    return frames.jobs(frames.read_plan(run), Store(run)).drop_duplicates("key")


def start(bench: Bench, *words: str) -> subprocess.Popen[bytes]:
    """Start the command line as the head of a process group of its own, so that nothing else is ever stopped."""
    command = [sys.executable, "-m", "mlbench.cli", *words]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=bench.folder, stdout=quiet, stderr=quiet, start_new_session=True)


def descendants(pid: int) -> set[int]:
    """Return the processes that a process has started, and those that they have started."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        parent = todo.pop()
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = place.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            child = int(place.parent.name)
            if int(fields[1]) == parent and child not in found:
                found.add(child)
                todo.append(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def wait(until: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if until():
            return True
        time.sleep(0.2)
    return bool(until())

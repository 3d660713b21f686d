"""Shootouts on a real Ray, in processes of their own: the same bytes as inline, and workers and drivers that die."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlbench.results import frames
from mlbench.store import Store

from .conftest import Bench

pytestmark = pytest.mark.slow


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


def test_ray_and_inline_give_the_same_bytes(bench: Bench) -> None:
    path = bench.write(tracking={"enabled": False})
    assert bench.mlbench("run", path, "--inline", "--out", "inline").returncode == 0
    ended = bench.mlbench("run", path, "--out", "ray")
    assert ended.returncode == 0, ended.stderr
    assert len(rows(bench.folder / "inline")) == 12
    assert rows(bench.folder / "ray") == rows(bench.folder / "inline")
    assert "Traceback" not in ended.stderr


def test_dead_and_slow_workers_are_rows_and_retries(bench: Bench) -> None:
    """One grid: a worker killed once, one killed always, one that never ends; the rest is done."""
    once = f'mark = Path("{bench.folder / "mark"}")\nif not mark.exists():\n    mark.touch()\n'
    once += "    os.kill(os.getpid(), signal.SIGKILL)\nreturn start"
    plugins = [
        bench.method(once, name="killed_once"),
        bench.method("os.kill(os.getpid(), signal.SIGKILL)", name="killed"),
        bench.method("time.sleep(600)", name="sleeper"),
    ]
    path = bench.write(
        methods=["none", "killed_once", "killed", "sleeper"],
        languages=["en"],
        unseen=None,
        plugins=bench.plugins(*plugins),
        schedule={"retries": 1, "timeout_minutes": 0.15},
        tracking={"enabled": False},
    )
    began = time.monotonic()
    ended = bench.mlbench("run", path)
    assert time.monotonic() - began < 90
    assert ended.returncode == 1, ended.stderr
    table = jobs(bench.folder / "run")
    aligns = {row.method: row for row in table[table["kind"] == "align"].itertuples()}
    assert {name: row.status for name, row in aligns.items()} == {
        "none": "done", "killed_once": "done", "killed": "failed", "sleeper": "failed",
    }  # fmt: skip
    assert aligns["killed"].error_type == "WorkerDied"
    assert aligns["sleeper"].error_type == "Timeout"
    assert "0.15 minutes" in aligns["sleeper"].error
    store = Store(bench.folder / "run")
    attempts = {name: status.attempt for name, row in aligns.items() if (status := store.status(row.key))}
    assert attempts == {"none": 1, "killed_once": 2, "killed": 2, "sleeper": 1}
    assert set(table[table["method"] == "killed_once"]["status"]) == {"done"}
    assert set(table[(table["method"] == "killed") & (table["kind"] != "align")]["status"]) == {"skipped"}
    assert store.running() == {}
    assert "failed: sleeper" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (bench.folder / "run" / "report" / "report.html").is_file()


def _without_seconds(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table but for what is different each time: seconds, memory, places."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    noisy = ("seconds", "memory", "log", "loads", "host", "attempt")
    return [{key: value for key, value in row.items() if not any(word in key for word in noisy)} for row in rows]


def test_a_killed_driver_leaves_no_process_and_the_same_command_continues(bench: Bench) -> None:
    slow = bench.method("time.sleep(3)\nreturn start", name="slow")
    path = bench.write(methods=["none", "sft", "slow"], plugins=bench.plugins(slow), tracking={"enabled": False})
    driver = start(bench, "run", str(path))
    store = Store(bench.folder / "run")
    try:
        assert wait(lambda: any(store.root.glob("jobs/align/[!.]*/status.json")), 60)
        children = descendants(driver.pid)
        assert children
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    # Workers, raylet and GCS go with the driver; Ray's two agents look for the raylet only now and then.
    agents = {pid for pid in children if "Agent" in name(pid)}
    assert wait(lambda: not any(map(alive, children - agents)), 20), {pid: name(pid) for pid in children - agents}
    assert set(jobs(store.root)["status"]) != {"done"}
    ended = bench.mlbench("run", path)
    assert ended.returncode == 0, ended.stderr
    undisturbed = bench.mlbench("run", path, "--inline", "--out", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert rows(store.root) == rows(bench.folder / "undisturbed")
    tables = sorted((bench.folder / "undisturbed" / "report").rglob("*.csv"))
    assert tables
    for table in tables:
        other = store.root / table.relative_to(bench.folder / "undisturbed")
        assert _without_seconds(other) == _without_seconds(table), table.name
    assert wait(lambda: not any(map(alive, agents)), 90), agents


def test_an_interrupted_driver_says_so_and_keeps_what_is_done(bench: Bench) -> None:
    slow = bench.method("time.sleep(60)\nreturn start", name="slow")
    path = bench.write(methods=["none", "slow"], plugins=bench.plugins(slow), tracking={"enabled": False})
    command = [sys.executable, "-m", "mlbench.cli", "run", str(path), "--inline"]
    with (bench.folder / "err.txt").open("w") as err:
        driver = subprocess.Popen(command, cwd=bench.folder, stdout=err, stderr=err, start_new_session=True)
    store = Store(bench.folder / "run")
    try:
        assert wait(lambda: any(store.root.glob("jobs/align/[!.]*/status.json")), 60)
        assert wait(
            lambda: any("slow" in str(item) for item in store.root.glob("jobs/align/.*")) or store.running(), 20
        )
        os.kill(driver.pid, signal.SIGINT)
        assert driver.wait(timeout=30) == 130
    finally:
        driver.kill()
        driver.wait()
    text = (bench.folder / "err.txt").read_text()
    assert "interrupted: finished jobs are kept; the same command continues" in text
    assert "Traceback" not in text
    assert "done" in set(jobs(store.root)["status"])
    assert not list(store.root.glob("jobs/align/.*"))

"""Shootouts on a real Ray, in processes of their own: the same bytes as inline, and workers that die."""

from __future__ import annotations

import time

import pytest

from mlbench.store import Store

from .conftest import Bench
from .processes import jobs, rows

pytestmark = pytest.mark.slow


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

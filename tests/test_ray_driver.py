"""The driver of a shootout killed or interrupted: no process stays, and the same command continues."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlbench.store import Store

from .conftest import Bench
from .processes import alive, descendants, jobs, name, rows, start, wait

pytestmark = pytest.mark.slow


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

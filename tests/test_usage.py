"""What a job uses: measured on real processes."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from mlbench import usage, verbs, view
from mlbench.plan import Job
from mlbench.store import Store
from tests.conftest import Bench

MEASURE = """
import time
from mlbench import usage
busy = {busy}
meter, worked, begun = usage.Meter(), time.process_time(), time.monotonic()
while (time.process_time() - worked if busy else time.monotonic() - begun) < 0.5:
    busy or time.sleep(0.05)
print(meter()["cpu"], 100 * (time.process_time() - worked) / (time.monotonic() - begun))
"""


def measured(*, busy: bool) -> tuple[float, float]:
    """Return the share of a core that a process of its own measures, and what its own clocks say, in percent."""
    words = [sys.executable, "-c", MEASURE.format(busy=busy)]
    share, clocks = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(share), float(clocks)


def test_a_busy_process_uses_its_core_and_a_sleeping_one_does_not() -> None:
    share, clocks = measured(busy=True)
    assert share == pytest.approx(clocks, rel=0.1)  # 100 on an idle machine, less where others want the core too
    assert share > 5
    assert measured(busy=False)[0] < 5


def test_memory_that_a_process_holds_is_counted() -> None:
    meter = usage.Meter()
    before = meter()["memory"]
    held = bytearray(b"x" * 200_000_000)
    assert meter()["memory"] - before == pytest.approx(0.2, abs=0.02)
    del held


def test_too_short_a_time_tells_nothing_of_the_processor() -> None:
    meter = usage.Meter()
    assert "cpu" not in meter()
    time.sleep(usage.SHORTEST_SECONDS)
    assert "cpu" in meter()


def test_measuring_costs_less_than_a_millisecond() -> None:
    meter = usage.Meter()
    meter()
    begun = time.process_time()
    for _ in range(200):
        meter.marked = 0.0  # measures the processor each time
        meter()
    assert (time.process_time() - begun) / 200 < 1e-3


def gpu(*, initialised: bool, busy: Callable[[], int]) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_initialized=lambda: initialised,
        device_count=lambda: 2,
        memory_allocated=lambda device: (3e9, 9e9)[device],
        utilization=busy,
    )
    return SimpleNamespace(cuda=cuda)


def test_a_gpu_is_asked_only_where_the_job_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = usage.Meter()
    monkeypatch.setitem(sys.modules, "torch", gpu(initialised=False, busy=lambda: 87))
    assert "gpu_memory" not in meter()
    monkeypatch.setitem(sys.modules, "torch", gpu(initialised=True, busy=lambda: 87))
    found = meter()
    assert (found["gpu"], found["gpu_memory"]) == (87.0, 12.0)


def test_a_gpu_that_does_not_tell_its_use_is_said_once_and_costs_no_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> int:
        raise RuntimeError("not supported")

    meter = usage.Meter()
    monkeypatch.setitem(sys.modules, "torch", gpu(initialised=True, busy=refuse))
    for _ in range(3):
        found = meter()
        assert found["gpu_memory"] == 12.0
        assert "gpu" not in found
    assert capsys.readouterr().err == "the use of the GPU is not shown: RuntimeError: not supported\n"


@pytest.mark.parametrize(
    ("use", "shown"),
    [
        ({}, ""),
        ({"memory": 1.24}, "1.2 GB"),
        ({"memory": 1.24, "cpu": 97.6}, "cpu 98 %  1.2 GB"),
        ({"memory": 1.24, "cpu": 97.6, "gpu_memory": 12.04}, "cpu 98 %  1.2 GB  gpu 12.0 GB"),
        ({"memory": 1.24, "cpu": 97.6, "gpu_memory": 12.04, "gpu": 87.0}, "cpu 98 %  1.2 GB  gpu 87 %  12.0 GB"),
    ],
)
def test_the_use_of_a_job_in_words(use: dict[str, float], shown: str) -> None:
    assert usage.text(use) == shown


def test_the_use_of_the_machine_names_its_cores_and_memory() -> None:
    machine = usage.Machine()
    before, begun = psutil.cpu_times(), time.monotonic()
    time.sleep(0.5)
    found = re.fullmatch(r"this machine: cpu (\d+) % of (\d+) cores, (.+) of (.+) GB", machine())
    assert found
    share, cores, used, total = map(float, found.groups())
    after, seconds = psutil.cpu_times(), time.monotonic() - begun
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    busy = sum(getattr(after, name, 0.0) - getattr(before, name, 0.0) for name in names)
    assert share == pytest.approx(100 * busy / (seconds * cores), abs=10)
    assert cores == psutil.cpu_count()
    assert 0 < used < total
    assert total == pytest.approx(psutil.virtual_memory().total / 1e9, abs=0.06)


def test_the_live_table_shows_each_job_with_what_it_uses(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = Job(kind="align", key="align-1", label="mlc · tiny · seed 0", spec={}, after=(), affinity="")
    use = {"memory": 1.24, "cpu": 97.6, "gpu_memory": 12.04, "gpu": 87.0}
    now = {"stage": "training", "done": 30, "total": 60, "values": {"loss": 0.5}, "use": use}
    store.write_progress("align-1", now)
    grid = view.GridView({"align-1": job}, store)
    grid.looked = 0.0  # long ago
    stream = io.StringIO()
    Console(file=stream, width=120).print(grid.render())
    first, second, last = (" ".join(line.split()) for line in stream.getvalue().splitlines())
    assert first == "mlc · tiny · seed 0 training 30/60 loss 0.5 cpu 98 % 1.2 GB gpu 87 % 12.0 GB"
    assert second.startswith("0/1 jobs (align 0/1 ")
    assert last.startswith("this machine: cpu ")


def test_a_running_job_reports_what_it_uses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write = Store.write_progress

    def watched(store: Store, key: str, progress: dict[str, object]) -> None:
        seen.append(progress["use"])
        write(store, key, progress)

    monkeypatch.setattr(Store, "write_progress", watched)
    body = "for step in range(1, 4):\n    time.sleep(0.6)\n    run.log(step, 3, loss=1.0)\nreturn start"
    path = bench.write(methods=["none", "odd"], plugins=bench.plugins(bench.method(body)), tracking={"enabled": False})
    verbs.run(path, inline=True)
    assert any("cpu" in use for use in seen)
    assert all(0.05 < use["memory"] < 100 for use in seen)

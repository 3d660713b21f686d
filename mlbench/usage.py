"""What a job and this machine use now: processor, memory, and the GPU where a job has one."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import psutil

SHORTEST_SECONDS = 0.2
"""Over less time than this a share of the processor is noise."""


class Meter:
    """Measures this process from one call to the next."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.process.cpu_percent()  # the first call only marks the time
        self.marked = time.monotonic()
        self.counts_gpu = True

    def __call__(self) -> dict[str, float]:
        """Return `cpu` (percent of one core, so that 200 is two cores), `memory`, and with a GPU `gpu`, `gpu_memory`.

        Memory is in GB, `gpu` in percent of the time that the GPU was busy. What cannot be told is left out.
        """
        found = {"memory": self.process.memory_info().rss / 1e9}
        if time.monotonic() - self.marked >= SHORTEST_SECONDS:
            found["cpu"] = self.process.cpu_percent()
            self.marked = time.monotonic()
        return found | self._gpu()

    def _gpu(self) -> dict[str, float]:
        torch = sys.modules.get("torch")  # a job without torch uses no GPU of ours
        if torch is None or not torch.cuda.is_initialized():
            return {}
        devices = range(torch.cuda.device_count())
        found = {"gpu_memory": sum(torch.cuda.memory_allocated(device) for device in devices) / 1e9}
        if self.counts_gpu:
            try:
                found["gpu"] = float(torch.cuda.utilization())
            except Exception as error:  # no driver library, or a slice of a GPU: no reason to fail a job
                print(f"the use of the GPU is not shown: {type(error).__name__}: {error}", file=sys.stderr)
                self.counts_gpu = False
        return found


def text(use: Mapping[str, float]) -> str:
    """Return what a job uses in words: "cpu 98 %  1.2 GB  gpu 87 %  12.0 GB"."""
    parts = [f"cpu {use['cpu']:.0f} %"] if "cpu" in use else []
    parts += [f"{use['memory']:.1f} GB"] if "memory" in use else []
    parts += [f"gpu {use['gpu']:.0f} %"] if "gpu" in use else []
    parts += [f"{'' if 'gpu' in use else 'gpu '}{use['gpu_memory']:.1f} GB"] if "gpu_memory" in use else []
    return "  ".join(parts)


class Machine:
    """Measures all processes of this machine from one call to the next, in whatever thread."""

    def __init__(self) -> None:
        self.cores = psutil.cpu_count() or 1
        self.idle, self.marked = _idle_seconds(), time.monotonic()

    def __call__(self) -> str:
        """Return the use in words: "this machine: cpu 87 % of 2 cores, 5.3 of 24.9 GB"."""
        idle, now = _idle_seconds(), time.monotonic()
        share = 1 - (idle - self.idle) / (self.cores * max(now - self.marked, 1e-9))
        self.idle, self.marked = idle, now
        memory = psutil.virtual_memory()
        used = (memory.total - memory.available) / 1e9
        processor = f"cpu {100 * min(max(share, 0), 1):.0f} % of {self.cores} cores"
        return f"this machine: {processor}, {used:.1f} of {memory.total / 1e9:.1f} GB"


def _idle_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0.0))  # only Linux tells waiting from idling

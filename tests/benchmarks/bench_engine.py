"""How fast the engine is: start-up of each verb, the demo cold, again, and inline, and the cost of one empty job."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MLBENCH = [str(Path(sys.executable).with_name("mlbench"))]
EMPTY_JOBS = 200

TASK = """
from typing import ClassVar
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from mlbench.core import Kind, Prompt

@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Empty:
    source: ClassVar[str] = "made up"
    kind: ClassVar[Kind] = "safety"
    languages: ClassVar = ("en", *(f"x{index}" for index in range(COUNT - 1)))
    tiers: ClassVar = {}
    judge: ClassVar[str] = "refusal"

    def prompts(self, language):
        return [Prompt(id="one", cluster="one", language=language, text="ask")]

plugin = Empty
"""


def seconds(*arguments: str, cache: str = "") -> float:
    """Return the wall time of one mlbench command, which has to succeed."""
    started = time.perf_counter()
    environment = os.environ | ({"MLBENCH_CACHE": cache} if cache else {})
    subprocess.run([*MLBENCH, *arguments], check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def start_up(folder: Path) -> dict[str, float]:
    """Return the best of three for verbs that must answer at once."""
    shootout = str(Path(__file__).parents[2] / "mlbench" / "shootouts" / "demo.yaml")
    commands = {
        "mlbench --help": ["--help"],
        "mlbench list methods": ["list", "methods"],
        "mlbench plan demo": ["plan", shootout, "--out", str(folder / "none")],
        "mlbench status demo": ["status", str(folder / "ray")],
    }
    return {name: min(seconds(*arguments) for _ in range(3)) for name, arguments in commands.items()}


def demo(folder: Path) -> dict[str, float]:
    """Return the demo's wall time with a cold cache, with a warm one on Ray and inline, and of a second run."""
    cache = str(folder / "cache")
    return {
        "demo, cold cache, Ray": seconds("demo", "--out", str(folder / "ray"), cache=cache),
        "demo, second run": seconds("demo", "--out", str(folder / "ray"), cache=cache),
        "demo, warm cache, Ray": seconds("demo", "--out", str(folder / "warm"), cache=cache),
        "demo, warm cache, inline": seconds("demo", "--out", str(folder / "inline"), "--inline", cache=cache),
    }


def empty_jobs(folder: Path) -> dict[str, float]:
    """Return the milliseconds per job that does next to nothing: one judged answer, read and written."""
    from mlbench import schedule, tiny, verbs
    from mlbench.store import Store

    tiny.model(folder / "model")
    (folder / "empty.py").write_text(TASK.replace("COUNT", str(EMPTY_JOBS)))
    shootout = folder / "empty.yaml"
    shootout.write_text(
        f"name: empty\nmodels: [{folder / 'model'}]\nmethods: [none]\ntasks: [empty]\n"
        f"plugins: ['task:{folder / 'empty.py'}']\nout: {folder / 'empty'}\n"
        "tracking: {enabled: false}\ngeneration: {max_new_tokens: 1}\n"
    )
    verbs.run(shootout, inline=True)
    made = verbs.make_plan(shootout)
    store = Store(folder / "empty")
    settings = schedule.Settings(**made.shootout.settings.schedule.model_dump())
    found = {}
    for name in ("inline", "Ray"):
        for job in made.jobs.values():
            if job.kind == "judge":
                store.discard(job.key)
        backend = schedule.Inline() if name == "inline" else schedule.RayBackend(settings)
        started = time.perf_counter()
        schedule.Grid(made.jobs, store, settings, lambda job, status: None).run(backend)
        found[f"empty job, {name}, ms"] = 1000 * (time.perf_counter() - started) / EMPTY_JOBS
        backend.close()
    return found


def main() -> None:
    """Print every figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = demo(folder)
        figures["Ray to inline"] = figures["demo, warm cache, Ray"] / figures["demo, warm cache, inline"]
        figures |= start_up(folder) | empty_jobs(folder)
    for what, figure in figures.items():
        print(f"{what:<28} {figure:8.2f}")


if __name__ == "__main__":
    main()
